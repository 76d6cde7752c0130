"""A run of an ensemble on disk: its ledger, the weights and the samples of its last generation, whole or not at all."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.errors import RunError
from iterative_retraining.files import write_file

STATE, SAMPLES = "state/", "samples"


class FolderRun:
    """A `Run` that goes on where it was killed. It is for schemes that read one generation back.

    The samples of generations that are ``measured`` stay, as float32.
    """

    def __init__(self, path: Path, measured: Callable[[int], bool] = lambda generation: False) -> None:
        self.path, self.measured = path, measured
        path.mkdir(parents=True, exist_ok=True)
        file = path / "ledger.jsonl"
        self.rows: list[dict[str, Any]] = read_lines(file.read_text()) if file.is_file() else []
        self._last: dict[str, np.ndarray] = {}
        if self.rows:
            self._last = read_arrays(self._file(len(self.rows) - 1))

    def _file(self, generation: int) -> Path:
        return self.path / f"generation-{generation:04d}.npz"

    @property
    def history(self) -> Sequence[np.ndarray]:
        """The samples by generation, the last alone; those of others raise RunError."""
        return _Last(len(self.rows), self._last.get(SAMPLES))

    def samples(self, generation: int) -> np.ndarray:
        """The samples of a generation that was measured, (n, M, 2). Raises RunError if they are missing."""
        return read_arrays(self.path / f"samples-{generation:04d}.npz")[SAMPLES]

    def load_state(self) -> Mapping[str, np.ndarray]:
        """The weights of the last complete generation."""
        return {name.removeprefix(STATE): a for name, a in self._last.items() if name.startswith(STATE)}

    def commit(
        self,
        row: dict[str, Any],
        state: Mapping[str, np.ndarray],
        samples: np.ndarray,
        preview: np.ndarray,
        history_length: int | None,
    ) -> None:
        """Keeps a complete generation and drops what the one before it needed. Raises RunError."""
        generation = len(self.rows)
        self._last = {f"{STATE}{name}": array for name, array in state.items()} | {SAMPLES: samples}
        write_arrays(self._file(generation), self._last)
        if self.measured(generation):
            write_arrays(self.path / f"samples-{generation:04d}.npz", {SAMPLES: samples.astype(np.float32)})
        text = "".join(json.dumps(one) + "\n" for one in [*self.rows, row])
        write_file(self.path / "ledger.jsonl", lambda file: file.write(text.encode()))
        self.rows.append(row)
        self._file(generation - 1).unlink(missing_ok=True)


class _Last(Sequence):
    """Samples by generation, of which the last are kept."""

    def __init__(self, n: int, last: np.ndarray | None) -> None:
        self.n, self.last = n, last

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, generation: int) -> np.ndarray:
        if generation % self.n != self.n - 1:
            raise RunError(f"the samples of generation {generation} are not kept; those of {self.n - 1} are")
        return self.last


def read_lines(text: str) -> list[dict[str, Any]]:
    """The rows of a ledger."""
    return [json.loads(line) for line in text.splitlines()]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes named arrays whole or not at all. Raises RunError."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name.replace("/", "|"): array for name, array in arrays.items()})
    write_file(path, lambda file: file.write(buffer.getvalue()))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The inverse of `write_arrays`. Raises RunError if the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name.replace("|", "/"): file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"cannot read {path}: {error}; remove its folder, and the same command makes it anew") from error
