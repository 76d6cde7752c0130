"""One opener at a time of a run directory, by a lock that a dead process cannot keep."""

import errno
import fcntl
import os
from pathlib import Path
from weakref import WeakSet

from filelock import FileLock, Timeout

from iterative_retraining.errors import RunError

NAME = ".lock"
SECONDS = 0.3  # to wait for it: whoever asks for the state of a run holds its lock for an instant
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
_OF_THIS_PROCESS: WeakSet[FileLock] = WeakSet()


def lock(path: Path) -> FileLock:
    """Makes the directory if need be and takes its lock, which belongs to the object returned: it is given free by its
    ``release()``, when nothing refers to it any more, and when the process ends, however it ends.

    Raises RunError if the directory is unwritable, in use, in this process or another, or has no locks.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A lock by the mere existence of a file (fallback_to_soft) would outlive a killed process.
        taken = FileLock(path / NAME, thread_local=False, fallback_to_soft=False)
        taken.acquire(timeout=SECONDS)
    except Timeout as error:
        if any(held.is_locked and _same(held.lock_file, path / NAME) for held in _OF_THIS_PROCESS):
            raise RunError(
                f"{path} is open already in this process; close it first (experiment.run.close()), or choose another "
                "run_dir"
            ) from error
        raise RunError(f"{path} is in use by another process; wait for it, or choose another run_dir") from error
    except OSError as error:
        if error.errno in NO_LOCKS:
            raise RunError(
                f"{path} is on a file system without locks ({error.strerror}): two processes could write one run; "
                "choose a run_dir on another, such as a local disk"
            ) from error
        raise RunError(f"cannot write the run directory {path}: {error.strerror}; choose another run_dir") from error
    _OF_THIS_PROCESS.add(taken)
    return taken


def _same(one: str | os.PathLike[str], other: Path) -> bool:
    return Path(one).resolve() == other.resolve()


def in_use(path: Path) -> bool:
    """Whether somebody, in this process or another, holds the lock of a run directory.

    False where that cannot be asked: no lock, no permission to read it, a file system without locks.
    """
    try:
        descriptor = os.open(path / NAME, os.O_RDONLY)  # not by FileLock, which would need to write
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
