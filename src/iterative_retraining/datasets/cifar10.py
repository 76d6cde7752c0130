"""CIFAR-10: colour images in ten classes, from the batches, their archive or EDM's zip, whichever the user has."""

import hashlib
import lzma
import pickle
import tarfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from iterative_retraining.datasets.options import of_augmentation, of_network
from iterative_retraining.datasets.pngs import read_labels, read_pngs
from iterative_retraining.errors import DataError
from iterative_retraining.file_kinds import seems_to_be, unfinished

FOLDER, ARCHIVE, ZIP = "cifar-10-batches-py", "cifar-10-python.tar.gz", "cifar10-32x32.zip"
LABELS = "dataset.json"  # of the zip, and of the folder that it was unpacked into
HOW = (
    f"set data_dir to the folder {FOLDER}, to one that holds it, or to {ARCHIVE}, from "
    f"https://www.cs.toronto.edu/~kriz/{ARCHIVE} or torchvision.datasets.CIFAR10(data_dir, download=True); or to "
    f"{ZIP}, by dataset_tool.py of https://github.com/NVlabs/edm"
)
OTHERS = {  # what people have in its place
    "data_batch_1.bin": "the binary version of CIFAR-10, and the python version is wanted",
    "data_batch_1.mat": "the MATLAB version of CIFAR-10, and the python version is wanted",
    "cifar-100-python": "CIFAR-100",
    "cifar-100-python.tar.gz": "CIFAR-100",
}
# What tarfile and the decompressors below it raise for a damaged file.
DAMAGED = (OSError, EOFError, ValueError, lzma.LZMAError, tarfile.TarError, zlib.error)
N_TRAIN = 50_000
LARGEST = 2**26  # bytes of a batch, of which the published ones have half


class CIFAR10Images:
    """60 000 colour images of 32 x 32 pixels (Krizhevsky 2009), split as published.

    data_dir: the folder cifar-10-batches-py, the archive cifar-10-python.tar.gz, EDM's cifar10-32x32.zip, or a folder
    that holds one of them, taken in this order. Each batch is compared with the checksum that torchvision has of it.
    The zip has the same training images in the same order, and no held-out ones: none are then given.
    """

    name = "cifar10"
    shape = (32, 32, 3)
    counts: Mapping[str, int] = MappingProxyType({"train": N_TRAIN, "test": 10_000})
    has_labels = True
    features = "inception-legacy_pytorch"  # as the authors' metric has it

    def load(self, split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `iterative_retraining.interfaces.Dataset`."""
        from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10

        place = _find(data_dir)
        if place.suffix == ".zip" or (place / LABELS).is_file():
            return self._of_zip(place, split)
        checksums = dict(TorchvisionCIFAR10.train_list if split == "train" else TorchvisionCIFAR10.test_list)
        contents = _read_archive(place, checksums) if place.is_file() else _read_folder(place, checksums)
        for name, md5 in checksums.items():
            found = hashlib.md5(contents[name], usedforsecurity=False).hexdigest()
            if found != md5:
                what = f": it seems to be {seems_to_be(place / name)}" if place.is_dir() else ""
                raise DataError(
                    f"{name} in {place} is damaged or another file: MD5 {found}, should be {md5}{what}; {HOW}"
                )
        batches = [pickle.loads(contents[name], encoding="latin1") for name in checksums]  # the published bytes alone
        pixels = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = np.concatenate([np.asarray(batch["labels"], dtype=np.int64) for batch in batches])
        return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), labels

    def _of_zip(self, path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split != "train":
            return np.zeros((0, *self.shape), np.uint8), np.zeros(0, np.int64)
        images = read_pngs(path, self.name, N_TRAIN, self.shape[0], HOW)
        return images, read_labels(path, self.name, HOW)

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """The defaults of the models are those published for CIFAR-10; and the augmentation of Karras et al. (2022)."""
        augmentation = of_augmentation(network, 0.12) if model == "edm" else {}
        return {**of_network(network), **augmentation}


CIFAR10 = CIFAR10Images()


def _find(data_dir: str | Path | None) -> Path:
    """The folder of the batches, the archive or the zip. Raises DataError."""
    if not data_dir:
        raise DataError(f"cifar10 is looked for in data_dir, which is empty; {HOW}")
    path = Path(data_dir)
    if path.is_file() or any((path / name).is_file() for name in ("data_batch_1", "test_batch", LABELS)):
        return path
    for inside in (path / FOLDER, path / ARCHIVE, path / ZIP):
        if inside.exists():
            return inside
    other = next((f"which holds {what}" for name, what in OTHERS.items() if (path / name).exists()), None)
    why = other or ("which has none of them" if path.is_dir() else "which is not there")
    why += unfinished(path / FOLDER if path.is_dir() else path) or unfinished(path / ARCHIVE)
    raise DataError(f"cifar10 is looked for in {path}, {why}; {HOW}")


def _read_folder(folder: Path, names: Collection[str]) -> dict[str, bytes]:
    """The files of these names. Raises DataError."""
    contents = {}
    for name in names:
        try:
            with (folder / name).open("rb") as file:
                contents[name] = file.read(LARGEST)
        except OSError as error:
            raise DataError(f"{folder / name} is missing or cannot be read ({error.strerror}); {HOW}") from error
    return contents


def _read_archive(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """The files of these names in a tar archive, by reading it once; nothing is written. Raises DataError."""
    contents, others = {}, set()
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                others.update((name, Path(member.name).parts[0]) if name else ())
                if member.isfile() and name in names and member.size < LARGEST:
                    contents[name] = archive.extractfile(member).read()
                if len(contents) == len(names):
                    break
    except DAMAGED as error:
        why = str(error).partition(":\n")[0]  # tarfile lists every format that it tried
        what = f"is no tar archive, or a truncated or damaged one ({why}): it seems to be {seems_to_be(path)}"
        raise DataError(f"{path} {what}; {HOW}") from error
    for name in names:
        if name not in contents:
            seen = next((f", but {what}" for other, what in OTHERS.items() if other in others), "")
            raise DataError(f"{path} holds no {FOLDER}/{name}{seen}; {HOW}")
    return contents
