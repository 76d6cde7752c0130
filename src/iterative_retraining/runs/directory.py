"""The run directory: what can be killed at any instant and continued to the same bits.

    config.json              the identity of the run; its hash is in the run id
    manifest.json            every attempt: versions, commit, device, threads
    ledger.jsonl             a line per complete generation, written last
    fit.safetensors          if asked for: the fit under way, to go on from its middle
    checkpoint-0003.safetensors, samples-0003.npy, preview-0003.png
                             weights and samples of the last complete generation (weights of theta_0 stay too, and
                             weights or samples of every k-th generation if asked for)

A generation is complete when its ledger line is. Every other file is written beside its place, synced and renamed, so
whatever a kill leaves behind belongs to a generation without a line and is written again. Lines and JSON files are
sealed: they hold the SHA-256 of the rest of them.
"""

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import RunError
from iterative_retraining.files import append_line, cut_torn_line, sealed, state_sha256, write_file, write_json
from iterative_retraining.runs.locks import lock
from iterative_retraining.runs.reading import (
    FIT,
    check_file,
    check_whole,
    file_of,
    read_config,
    read_fit,
    read_floor,
    read_ledger,
    read_manifest,
    read_samples,
    read_state,
    samples_of,
)

__all__ = ["History", "Run", "read_config", "read_floor", "read_ledger", "read_samples", "read_state"]


class Run:
    """A run directory, opened for one configuration and locked against a second opener, in this process or another.

    The lock belongs to this object: `close` gives it free, and so does the end of the last reference to it. After
    `close` nothing is written any more. Raises RunError if the directory cannot be written, is in use, or belongs to
    another configuration, or if a file of what is complete is missing or damaged.

    keep_every: k > 0 keeps the weights of every k-th generation, as does each k that an earlier attempt was given.
    keep_samples: the same for samples.
    """

    in_fit: bool
    stop: BaseException | None

    def __init__(self, path: str | Path, config: RunConfig, *, keep_every: int = 0, keep_samples: int = 0) -> None:
        self.path, self.config, self.keep_every, self.keep_samples = Path(path), config, keep_every, keep_samples
        self.in_fit, self.stop = False, None
        self._refuse_other_files()  # before the first file of ours lies among them
        self._lock = lock(self.path)
        try:
            self._claim()
            self.rows, manifest = read_ledger(self.path), read_manifest(self.path)
            check_whole(self.path, self.rows, manifest)
            asked = [{"keep_every": keep_every, "keep_samples": keep_samples}, *manifest["attempts"]]
            every = {"checkpoint": "keep_every", "samples": "keep_samples"}
            self._kept = {kind: {one.get(name, 0) for one in asked} - {0} for kind, name in every.items()}
            # A kill can leave a line without its end: that generation is not complete and is computed again.
            self._length = cut_torn_line(self.path / "ledger.jsonl")
            if self.rows:
                for kind in ("checkpoint", "samples"):
                    check_file(self.path, kind, self.rows[-1])
        except BaseException:
            self.close()
            raise

    def _refuse_other_files(self) -> None:
        """Raises RunError for a folder, not of a run, that holds anything."""
        if self.path.is_dir() and not (self.path / "config.json").exists():
            try:
                others = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
            except OSError as error:
                raise RunError(
                    f"cannot read the run directory {self.path}: {error.strerror}; choose another run_dir"
                ) from error
            if others:
                raise RunError(
                    f"{self.path} is not empty and is no run directory (it holds {others[0]!r}); choose another run_dir"
                )

    def _claim(self) -> None:
        """Writes config.json into a new directory, or compares the one that is there."""
        identity = self.config.identity()
        if not (self.path / "config.json").exists():
            self._refuse_other_files()
            write_json(self.path / "config.json", sealed({"run_id": self.config.run_id, "identity": identity}))
            return
        found = read_config(self.path)["identity"]
        if found != identity:
            differing = {
                k: (found.get(k), identity.get(k)) for k in found | identity if found.get(k) != identity.get(k)
            }
            text = "; ".join(f"{key}: there {old!r}, asked for {new!r}" for key, (old, new) in differing.items())
            raise RunError(f"{self.path} holds a run of another configuration ({text}); choose another run_dir")

    @property
    def is_open(self) -> bool:
        """Whether this object holds the directory's lock, and so may write."""
        return bool(self._lock.is_locked)

    def close(self) -> None:
        """Gives the directory free for others."""
        self._lock.release()

    def _check_open(self) -> None:
        if not self.is_open:
            raise RunError(f"{self.path} was closed, and others may write there now; open the experiment again")
        try:
            with open(self.path / "ledger.jsonl", "rb") as file:  # opened, a network file system looks at it anew
                length = os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            length = 0
        if length != self._length:
            raise RunError(
                f"{self.path / 'ledger.jsonl'} has been changed by another process while this one holds its lock: the "
                "locks of this file system do not hold between machines. Let one machine at a time write a run; the "
                "same command goes on from what the ledger holds"
            )

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
        self._check_open()
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
        self._check_open()
        broken = sorted(key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value))
        if broken:
            raise RunError(
                f"generation {row['generation']}: {broken[0]} is {row[broken[0]]}; the generation is not kept"
            )
        t = row["generation"]
        checkpoint = save({name: np.asarray(array, order="C") for name, array in state.items()})
        digests = {
            "checkpoint_sha256": write_file(file_of(self.path, "checkpoint", t), lambda file: file.write(checkpoint)),
            "samples_sha256": write_file(
                file_of(self.path, "samples", t), lambda file: np.save(file, samples, allow_pickle=False)
            ),
        }
        if samples.dtype == np.uint8:
            strip = Image.fromarray(_strip(preview))
            write_file(file_of(self.path, "preview", t), lambda file: strip.save(file, format="PNG"))
        row |= digests
        self._check_open()
        self._length = append_line(self.path / "ledger.jsonl", row, self._length)
        self.rows.append(row)
        self._prune(t, history_length)

    def _prune(self, last: int, history_length: int | None) -> None:
        (self.path / FIT).unlink(missing_ok=True)
        for file in self.path.iterdir():
            found = re.fullmatch(r"(checkpoint|samples)-(\d+)\.\w+", file.name)
            if not found:
                continue
            kind, generation = found[1], int(found[2])
            if kind == "checkpoint":
                needed = generation in (0, last)
            else:
                needed = history_length is None or last - generation < history_length
            if not needed and not any(generation % k == 0 for k in self._kept[kind]):
                file.unlink()


class History(Sequence):
    """The samples of a run's generations, by generation; see `Run.history`."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def __len__(self) -> int:
        return len(self.run.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        return samples_of(self.run.path, self.run.rows[index])


def _strip(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) side by side: (H, N W) for one colour, else (H, N W, C)."""
    strip = np.concatenate(list(images), axis=1)
    return strip[..., 0] if strip.shape[-1] == 1 else strip
