"""Files written whole or not at all, and the digests by which they are known again."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from iterative_retraining.errors import RunError

SEAL = "content_sha256"  # key of a JSON object: the SHA-256 of the rest of it


def write_file(path: Path, write: Callable[[IO[bytes]], object]) -> str:
    """Writes a file whole or not at all; returns the SHA-256 of its bytes. Raises RunError with the way out."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        digest = file_sha256(temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    return digest


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error to raise where ``path`` cannot be written, with the way out."""
    full = " Free some space;" if error.errno in (errno.ENOSPC, errno.EDQUOT) else " Mend that;"
    return RunError(
        f"cannot write {path}: {error.strerror}.{full} complete generations are kept, and the same command goes on "
        "from the last of them"
    )


def append_line(file: Path, value: Mapping[str, Any], whole: int) -> int:
    """Adds ``value``, sealed, as a line of JSON to a file of ``whole`` bytes, made if need be, and syncs it: the whole
    line or none of it. Returns the bytes that the file then has. Raises RunError."""
    line = (json.dumps(sealed(value), allow_nan=False) + "\n").encode()
    try:
        with open(file, "ab", buffering=0) as stream:
            if stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(stream.fileno())
    except OSError as error:
        if file.exists():
            os.truncate(file, whole)
        raise cannot_write(file, error) from error
    return whole + len(line)


def cut_torn_line(file: Path) -> int:
    """Cuts off what a kill left of a last line without its end, if anything; returns the bytes that are left."""
    if not file.is_file():
        return 0
    whole = file.read_bytes().rfind(b"\n") + 1
    if whole < file.stat().st_size:
        os.truncate(file, whole)
    return whole


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: object) -> None:
    """Writes ``value`` as JSON, whole or not at all. Raises RunError."""
    write_file(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` with its `SEAL`, the last key: a digit that changes on a disk is noticed when it is read."""
    rest = {key: one for key, one in value.items() if key != SEAL}
    return rest | {SEAL: _digest_of(rest)}


def unsealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` without its seal. Raises ValueError if that is of another content; what has none is taken as it is."""
    rest = {key: one for key, one in value.items() if key != SEAL}
    if SEAL in value and value[SEAL] != _digest_of(rest):
        raise ValueError(f"{SEAL} is of another content")
    return rest


def _digest_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of ``value`` as JSON without spaces, keys sorted: the same of a value and of its text read again."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def data_sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def state_sha256(state: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays, such as starting weights, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {data_sha256(state[name])}\n".encode())
    return digest.hexdigest()
