"""The run directory: what can be killed at any instant and continued to the same bits.

    config.json              the identity of the run; its hash is in the run id
    manifest.json            every attempt: versions, commit, device, threads
    ledger.jsonl             a line per complete generation, written last
    fit.safetensors          if asked for: the fit under way, to go on from its middle
    checkpoint-0003.safetensors, samples-0003.npy, preview-0003.png
                             weights and samples of the last complete generation (weights of theta_0 stay too, and of
                             every k-th generation if asked for)

A generation is complete when its ledger line is. Every other file is written beside its place, synced and renamed, so
whatever a kill leaves behind belongs to a generation without a line and is written again.
"""

import errno
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import RunError
from iterative_retraining.files import cannot_write, file_sha256, state_sha256, write_file, write_json
from iterative_retraining.runs.locks import lock, unlock

FIT = "fit.safetensors"


def read_config(path: Path) -> dict[str, Any]:
    """``config.json`` of a run directory. Raises RunError if it is missing or damaged."""
    file = Path(path) / "config.json"
    if not file.is_file():
        raise RunError(f"{file} is missing")
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise RunError(f"{file} is damaged ({error}); restore it, or start again in another directory") from error


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """The complete generations of a run directory, generation 0 first; a last line without its end does not count.

    Raises RunError if a complete line does not parse or is out of order.
    """
    file = Path(path) / "ledger.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []
    rows = []
    for number, line in enumerate(lines):
        try:
            row = json.loads(line)
            if row["generation"] != number:
                raise ValueError(f"generation {row['generation']} where {number} belongs")
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{file}, line {number + 1} is damaged ({error}); restore it, or cut the file before that line and "
                "start again in another directory with init= this one"
            ) from error
        rows.append(row)
    return rows


def read_floor(path: str | Path) -> dict[str, Any]:
    """The real-vs-real floor of a run: the metrics' settings, and the values of each over random halvings."""
    return json.loads((Path(path) / "floor.json").read_text())


def _file(path: Path, kind: str, generation: int) -> Path:
    ending = {"checkpoint": "safetensors", "samples": "npy", "preview": "png"}[kind]
    return path / f"{kind}-{generation:04d}.{ending}"


def _check_file(path: Path, kind: str, row: Mapping[str, Any]) -> Path:
    """The file of a complete generation. Raises RunError unless its bytes are those that its ledger line names."""
    file = _file(path, kind, row["generation"])
    if not file.is_file() or file_sha256(file) != row[f"{kind}_sha256"]:
        raise RunError(
            f"{file} is {'damaged' if file.is_file() else 'missing'}, and nothing can go on from generation "
            f"{row['generation']} without it; restore it, or start again in another directory"
        )
    return file


def read_state(path: Path) -> dict[str, np.ndarray]:
    """The weights of the last complete generation of a run directory. Raises RunError if they are damaged."""
    return load_file(_check_file(path, "checkpoint", read_ledger(path)[-1]))


def read_samples(path: Path) -> np.ndarray:
    """The samples of the last complete generation, memory-mapped. Raises RunError if they are damaged."""
    return np.load(_check_file(path, "samples", read_ledger(path)[-1]), mmap_mode="r", allow_pickle=False)


def read_fit(path: Path, seed: int) -> dict[str, np.ndarray] | None:
    """The checkpoint within the fit of this seed, if one is there and whole: else that fit begins at its beginning."""
    try:
        with safe_open(path / FIT, "np") as stored:
            about = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
    whole = about == {"seed": str(seed), "sha256": state_sha256(state)}
    return state if whole else None


class Run:
    """A run directory, opened for one configuration and locked against a second process.

    Raises RunError if the directory cannot be written, is in use, or belongs to another configuration, or if a file of
    its last complete generation is missing or damaged.
    """

    def __init__(self, path: str | Path, config: RunConfig, *, keep_every: int = 0) -> None:
        self.path, self.config, self.keep_every = Path(path), config, keep_every
        lock(self.path)
        try:
            self._claim()
            self.rows = read_ledger(self.path)
            self._cut_torn_line()
            if self.rows:
                for kind in ("checkpoint", "samples"):
                    _check_file(self.path, kind, self.rows[-1])
        except BaseException:
            self.close()
            raise

    def _claim(self) -> None:
        """Writes config.json into a new directory, or compares the one that is there."""
        identity = self.config.identity()
        if not (self.path / "config.json").exists():
            others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            if others:
                raise RunError(
                    f"{self.path} is not empty and is no run directory (it holds {others[0]!r}); choose another"
                )
            write_json(self.path / "config.json", {"run_id": self.config.run_id, "identity": identity})
            return
        found = read_config(self.path).get("identity", {})
        if found != identity:
            differing = {
                k: (found.get(k), identity.get(k)) for k in found | identity if found.get(k) != identity.get(k)
            }
            text = "; ".join(f"{key}: there {old!r}, asked for {new!r}" for key, (old, new) in differing.items())
            raise RunError(f"{self.path} holds a run of another configuration ({text}); choose another run_dir")

    def _cut_torn_line(self) -> None:
        """A kill can leave a line without its end: that generation is not complete and is computed again."""
        ledger = self.path / "ledger.jsonl"
        if ledger.is_file():
            whole = ledger.read_bytes().rfind(b"\n") + 1
            if whole < ledger.stat().st_size:
                os.truncate(ledger, whole)

    def close(self) -> None:
        """Gives the directory free for another process."""
        unlock(self.path)

    @property
    def history(self) -> Sequence[np.ndarray]:
        """The samples of generations 0, 1, ..., memory-mapped; those no longer kept raise RunError when asked for."""
        return History(self)

    def load_state(self) -> dict[str, np.ndarray]:
        """The weights of the last complete generation."""
        return read_state(self.path)

    def load_fit(self, seed: int) -> dict[str, np.ndarray] | None:
        """See `read_fit`."""
        return read_fit(self.path, seed)

    def save_fit(self, seed: int, state: Mapping[str, np.ndarray]) -> None:
        """Keeps a checkpoint within the fit of this seed. Raises RunError if the disk is full."""
        about = {"seed": str(seed), "sha256": state_sha256(state)}
        content = save({name: np.asarray(array, order="C") for name, array in state.items()}, metadata=about)
        write_file(self.path / FIT, lambda file: file.write(content))

    def commit(
        self,
        row: dict[str, Any],
        state: Mapping[str, np.ndarray],
        samples: np.ndarray,
        preview: np.ndarray,
        history_length: int | None,
    ) -> None:
        """Puts a complete generation on disk, its ledger line last, then drops what no later generation needs.

        Raises RunError if a number in ``row`` is not finite, or if the disk is full; nothing complete is lost.
        """
        broken = sorted(key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value))
        if broken:
            raise RunError(
                f"generation {row['generation']}: {broken[0]} is {row[broken[0]]}; the generation is not kept"
            )
        t = row["generation"]
        checkpoint = save({name: np.asarray(array, order="C") for name, array in state.items()})
        digests = {
            "checkpoint_sha256": write_file(_file(self.path, "checkpoint", t), lambda file: file.write(checkpoint)),
            "samples_sha256": write_file(
                _file(self.path, "samples", t), lambda file: np.save(file, samples, allow_pickle=False)
            ),
        }
        if samples.dtype == np.uint8:
            strip = Image.fromarray(_strip(preview))
            write_file(_file(self.path, "preview", t), lambda file: strip.save(file, format="PNG"))
        self._append(row | digests)
        self._prune(t, history_length)

    def _append(self, row: dict[str, Any]) -> None:
        ledger = self.path / "ledger.jsonl"
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        whole = ledger.stat().st_size if ledger.exists() else 0
        try:
            with open(ledger, "ab", buffering=0) as file:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
        except OSError as error:
            if ledger.exists():
                os.truncate(ledger, whole)
            raise cannot_write(ledger, error) from error
        self.rows.append(row)

    def _prune(self, last: int, history_length: int | None) -> None:
        (self.path / FIT).unlink(missing_ok=True)
        for file in self.path.iterdir():
            found = re.fullmatch(r"(checkpoint|samples)-(\d+)\.\w+", file.name)
            if not found:
                continue
            kind, generation = found[1], int(found[2])
            if kind == "checkpoint":
                keep = generation in (0, last) or (self.keep_every > 0 and generation % self.keep_every == 0)
            else:
                keep = history_length is None or last - generation < history_length
            if not keep:
                file.unlink()


class History(Sequence):
    """The samples of a run's generations, by generation; see `Run.history`."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def __len__(self) -> int:
        return len(self.run.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        generation = range(len(self))[index]
        file = _file(self.run.path, "samples", generation)
        if not file.is_file():
            raise RunError(f"{file} is missing: the samples of generation {generation} are no longer kept")
        return np.load(file, mmap_mode="r", allow_pickle=False)


def _strip(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) side by side: (H, N W) for one colour, else (H, N W, C)."""
    strip = np.concatenate(list(images), axis=1)
    return strip[..., 0] if strip.shape[-1] == 1 else strip
