"""FFHQ-64: faces in colour, from a zip or a folder of PNGs, decoded once, then memory-mapped from the user's cache."""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from iterative_retraining.cache import cached_array
from iterative_retraining.datasets.options import of_augmentation, of_network
from iterative_retraining.errors import DataError

N_IMAGES = 70_000
SIZE = 64
LARGEST = 2**20  # bytes of a PNG that are read; without compression one has 12 500
HOW = (
    "set data_dir to a zip of the PNGs, to their folder, or to a folder with that zip alone. The originals, of 1024 x "
    "1024 pixels, are at https://github.com/NVlabs/ffhq-dataset; dataset_tool.py of https://github.com/NVlabs/edm with "
    "--resolution=64x64 makes the zip of them; another resize filter gives another FID"
)
# What zipfile and Pillow raise for a damaged file.
DAMAGED = (OSError, EOFError, RuntimeError, SyntaxError, ValueError, zipfile.BadZipFile, zlib.error,
           Image.DecompressionBombError)  # fmt: skip


# As Karras et al. (2022) published it, where that differs from CIFAR-10; the steps are those of their sampler alone.
OPTIONS = {"multipliers": (1, 2, 2, 2), "dropout": 0.05, "learning_rate": 2e-4}
OF_EDM = {"n_steps": 40}
AUGMENT_PROBABILITY = 0.15


class FFHQImages:
    """70 000 faces of 64 x 64 pixels made of FFHQ (Karras et al. 2019), without labels and without a held-out split.

    data_dir: a zip of PNGs, a folder of PNGs with its subfolders, or a folder that holds one zip; other files, such as
    a dataset.json, are not looked at. The images are in the order of their names: the same from a zip and from its
    folder. The first call decodes (about a minute); the array is then kept in the cache and memory-mapped. It is made
    again when names, sizes or checksums in the zip change, or names, sizes or times of modification in the folder;
    where they lie does not matter.

    A PNG does not tell by which filter it was made smaller, and FID depends on it. The SHA-256 of the images in a run's
    manifest tells two filters apart, and a run does not go on with other images than it began with.
    """

    name = "ffhq64"
    shape = (SIZE, SIZE, 3)
    counts: Mapping[str, int] = MappingProxyType({"train": N_IMAGES})
    has_labels = False
    features = "inception-legacy_pytorch"  # as the authors' metric has it

    def load(self, split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `iterative_retraining.interfaces.Dataset`; the images are read-only. Raises DataError if files are
        missing, damaged, of another size or mode, or not 70 000."""
        path = _find(data_dir)
        with _opened(path) as (identities, read):
            if len(identities) != N_IMAGES:
                raise DataError(f"{path} holds {len(identities)} files *.png, ffhq64 has {N_IMAGES}; {HOW}")
            names = sorted(identities)
            key = hashlib.sha256("".join(f"{name}\n{identities[name]}\n" for name in names).encode()).hexdigest()
            make = partial(_decoded, path, names, read)
            images = cached_array(f"ffhq64-{key[:32]}", make, n=N_IMAGES, dtype=np.uint8)
        return images, np.zeros(len(images), dtype=np.int64)

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """See `iterative_retraining.interfaces.Dataset`."""
        of_edm = OF_EDM | of_augmentation(network, AUGMENT_PROBABILITY) if model == "edm" else {}
        return OPTIONS | of_network(network) | of_edm


FFHQ64 = FFHQImages()


def _find(data_dir: str | Path | None) -> Path:
    """The zip, or the folder with PNGs."""
    if not data_dir:
        raise DataError(f"ffhq64 is looked for in data_dir, which is empty; {HOW}")
    path = Path(data_dir)
    if not path.exists():
        raise DataError(f"ffhq64 is looked for in {path}, which is not there; {HOW}")
    if path.is_file() or next(path.rglob("*.png"), None):
        return path
    zips = sorted(path.glob("*.zip"))
    if len(zips) != 1:
        found = f"{len(zips)} zips: {', '.join(file.name for file in zips)}" if zips else "no zip"
        raise DataError(f"ffhq64 is looked for in {path}, which holds no PNG and {found}; {HOW}")
    return zips[0]


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Mapping[str, str], Callable[[str], bytes]]]:
    """The PNGs of a zip or a folder: by name, what changes when the file does; and what reads the file of a name."""
    if path.is_dir():
        stats = {file.relative_to(path).as_posix(): file.stat() for file in path.rglob("*.png")}
        times = {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}
        yield times, lambda name: _head((path / name).open("rb"))
        return
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise DataError(f"{path} is no zip, or a damaged one ({error}); {HOW}") from error
    with archive:
        files = [file for file in archive.infolist() if file.filename.endswith(".png")]
        yield {file.filename: f"{file.file_size} {file.CRC}" for file in files}, lambda name: _head(archive.open(name))


def _head(file: IO[bytes]) -> bytes:
    """What a file holds, up to `LARGEST`, whatever size it claims."""
    with file:
        return file.read(LARGEST)


def _decoded(path: Path, names: Sequence[str], read: Callable[[str], bytes]) -> np.ndarray:
    images = np.empty((len(names), SIZE, SIZE, 3), dtype=np.uint8)
    for i, name in enumerate(names):
        try:
            images[i] = _pixels(read(name))
        except DAMAGED as error:
            raise DataError(f"{name} in {path} cannot be used: {error}; {HOW}") from error
    return images


def _pixels(content: bytes) -> np.ndarray:
    """The image of a PNG, uint8 (64, 64, 3). Raises one of `DAMAGED`."""
    with _png(content) as image:
        found, wanted = f"{image.mode} {image.width} x {image.height}", f"RGB {SIZE} x {SIZE}"
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
