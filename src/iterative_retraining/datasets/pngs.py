"""Zips and folders of PNGs of one size, as EDM's dataset_tool.py writes them: PNGs in folders, and a dataset.json."""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from iterative_retraining.cache import cached_array
from iterative_retraining.errors import DataError
from iterative_retraining.file_kinds import seems_to_be

LARGEST = 2**20  # bytes of a PNG that are read; one of 64 x 64 pixels has 12 500 without compression
LARGEST_JSON = 2**26  # bytes of a dataset.json; that of 70 000 images has 3 million
# What zipfile and Pillow raise for a damaged file.
DAMAGED = (OSError, EOFError, RuntimeError, SyntaxError, ValueError, zipfile.BadZipFile, zlib.error,
           Image.DecompressionBombError)  # fmt: skip


def read_pngs(path: Path, name: str, n: int, size: int, how: str) -> np.ndarray:
    """The ``n`` colour images of ``size`` x ``size`` pixels of a zip or folder in the order of their names, uint8
    (n, size, size, 3), read-only.

    name: of the data set. how: the end of every message: how to get the right files. Decoded once, then kept in the
    cache and memory-mapped, see `cached_array`. Raises DataError for other files.
    """
    with _opened(path, how) as (identities, read):
        if len(identities) != n:
            raise DataError(f"{path} holds {len(identities)} files *.png, {name} has {n}; {how}")
        names = sorted(identities)
        key = hashlib.sha256("".join(f"{png}\n{identities[png]}\n" for png in names).encode()).hexdigest()
        make = partial(_decoded, path, names, read, size, how)
        return cached_array(f"{name}-{key[:32]}", make, n=n, dtype=np.uint8)


def look_at_pngs(path: Path, name: str, n: int, size: int, how: str) -> None:
    """Whether there are ``n`` PNGs whose first is of ``size`` x ``size`` pixels, in seconds. Raises DataError."""
    with _opened(path, how) as (identities, read):
        if len(identities) != n:
            raise DataError(f"{path} holds {len(identities)} files *.png, {name} has {n}; {how}")
        _decoded(path, sorted(identities)[:1], read, size, how)


def read_labels(path: Path, name: str, how: str) -> np.ndarray:
    """The classes in the dataset.json of a zip or folder, int64 (N,), in the order of the names of the PNGs.

    Raises DataError if it has none.
    """
    with _opened(path, how) as (identities, read):
        try:
            found = dict(json.loads(read("dataset.json", LARGEST_JSON))["labels"])
            return np.array([_label(found[png]) for png in sorted(identities)], dtype=np.int64)
        except (*DAMAGED, LookupError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
            raise DataError(f"{path} has no classes of {name} in a dataset.json ({why}); {how}") from error


def _label(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no class")
    return value


@contextmanager
def _opened(path: Path, how: str) -> Iterator[tuple[Mapping[str, str], Callable[..., bytes]]]:
    """The PNGs of a zip or a folder: by name, what changes when the file does; and what reads the file of a name, up to
    `LARGEST` bytes or as many as are asked for, whatever size it claims."""
    if path.is_dir():
        stats = {file.relative_to(path).as_posix(): file.stat() for file in path.rglob("*.png")}
        times = {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}
        yield times, lambda name, n=LARGEST: _head((path / name).open("rb"), n)
        return
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        why = f"{path} is no zip, or a damaged one ({error}): it seems to be {seems_to_be(path)}"
        raise DataError(f"{why}; {how}") from error
    with archive:
        files = [file for file in archive.infolist() if file.filename.endswith(".png")]
        checksums = {file.filename: f"{file.file_size} {file.CRC}" for file in files}
        yield checksums, lambda name, n=LARGEST: _head(archive.open(name), n)


def _head(file: IO[bytes], n: int) -> bytes:
    with file:
        return file.read(n)


def _decoded(path: Path, names: Sequence[str], read: Callable[..., bytes], size: int, how: str) -> np.ndarray:
    images = np.empty((len(names), size, size, 3), dtype=np.uint8)
    for i, name in enumerate(names):
        try:
            images[i] = _pixels(read(name), size)
        except DAMAGED as error:
            raise DataError(f"{name} in {path} cannot be used: {error}; {how}") from error
    return images


def _pixels(content: bytes, size: int) -> np.ndarray:
    """The image of a PNG, uint8 (size, size, 3). Raises one of `DAMAGED`."""
    with _png(content) as image:
        found, wanted = f"{image.mode} {image.width} x {image.height}", f"RGB {size} x {size}"
        if found != wanted:
            raise ValueError(f"it is {found}, should be {wanted}")
        image.verify()  # the checksums of all parts, which decoding passes over
    with _png(content) as image:
        return np.asarray(image)


def _png(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=("PNG",))
    except UnidentifiedImageError as error:
        raise ValueError("it is no PNG, or its head is damaged") from error
