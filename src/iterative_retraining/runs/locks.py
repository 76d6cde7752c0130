"""One process at a time in a run directory, by a lock that a dead process cannot keep."""

import fcntl
import os
from pathlib import Path

from iterative_retraining.errors import RunError

# The system drops these when the process ends, however it ends; opening a directory again in the same process (a
# notebook's cell run twice) goes on under the lock that is already held.
_HELD: dict[Path, int] = {}


def lock(path: Path) -> None:
    """Makes the directory if need be and takes its lock. Raises RunError if it is unwritable or in use elsewhere."""
    if path.resolve() in _HELD:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"cannot write the run directory {path}: {error.strerror}; choose another run_dir") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunError(f"{path} is in use by another process; wait for it, or choose another run_dir") from error
    _HELD[path.resolve()] = descriptor


def unlock(path: Path) -> None:
    """Gives the directory free for other processes."""
    if path.resolve() in _HELD:
        os.close(_HELD.pop(path.resolve()))


def in_use(path: Path) -> bool:
    """Whether a process, this one or another, holds the lock of a run directory."""
    if path.resolve() in _HELD:
        return True
    try:
        descriptor = os.open(path / ".lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
