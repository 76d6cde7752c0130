"""What takes long to make, arrays and numbers by name, kept between processes in the user's cache."""

import hashlib
import json
import os
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike

N_CHECKSUM = 4  # bytes behind the array: the CRC-32 of all before them


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/iterative-retraining; by default ~/.cache/iterative-retraining."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "iterative-retraining"


def cached_array(
    name: str,
    make: Callable[[], np.ndarray],
    *,
    dtype: DTypeLike,
    n: int | None = None,
    folder: str | Path | None = None,
) -> np.ndarray:
    """The array (n, ...) that ``folder`` keeps as ``name``.npy, memory-mapped and read-only; n: None for any length.

    If it is missing, truncated, changed in any byte or another array, ``make()`` makes it again: once, if several
    processes of this machine ask at the same time, the others wait. A file appears whole or not at all. folder: by
    default `cache_folder`. Where it cannot be written, a RuntimeWarning says so, and the array stays in memory.
    """
    path = Path(folder or cache_folder()) / f"{name}.npy"
    with _alone(path):
        found = _load(path)
        if found is not None and found.ndim and n in (None, len(found)) and found.dtype == dtype:
            return found
        array = make()
        try:
            _save(path, array)
        except OSError as error:
            warnings.warn(
                f"{path} cannot be written ({error}): it is made again next time; a folder that takes "
                f"{array.nbytes / 1e6:.0f} MB can be set as XDG_CACHE_HOME",
                RuntimeWarning,
                stacklevel=2,
            )
            return array
    return np.load(path, mmap_mode="r", allow_pickle=False)


def cached_numbers(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The mapping of JSON values that the cache keeps as ``name``.npy, made by ``make()`` as in `cached_array`."""

    def text() -> np.ndarray:
        return np.frombuffer(json.dumps(make()).encode(), dtype=np.uint8)

    return json.loads(cached_array(name, text, dtype=np.uint8).tobytes())


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Inside, no other process of this machine is inside for the same ``path``; where there are no locks, any may."""
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir()) / f"iterative-retraining-cache-{os.getuid()}" / name)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:  # then several may make it at once, and the last keeps it
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _load(path: Path) -> np.ndarray | None:
    """The array of a whole file; None if there is none."""
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        whole = _checksum(content[:-N_CHECKSUM]) == content[-N_CHECKSUM:].tobytes()
        return np.lib.format.open_memmap(path, mode="r") if whole else None
    except Exception:  # NumPy has no one error for a file that is none of its own; whatever it is, there is no array
        return None


def _checksum(content: np.ndarray) -> bytes:
    return zlib.crc32(content).to_bytes(N_CHECKSUM, "little")


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        with part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            file.write(_checksum(np.memmap(part, dtype=np.uint8, mode="r")))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
