"""Data sets by name, as uint8 images: read from scikit-learn or from files that the user has; nothing is downloaded."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from iterative_retraining.datasets.ffhq64 import ffhq64
from iterative_retraining.errors import DataError

DATASETS = ("digits", "fashion_mnist", "cifar10", "ffhq64")
WITH_TEST_SPLIT = ("fashion_mnist", "cifar10")

FASHION_MNIST_FOLDERS = ("/usr/share/datasets/fashion-mnist",)
FASHION_MNIST = {  # images and labels of each split: file name, SHA-256 of its unzipped content, shape
    "train": (
        (
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            (60_000, 28, 28),
        ),
        ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", (60_000,)),
    ),
    "test": (
        (
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            (10_000, 28, 28),
        ),
        ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34", (10_000,)),
    ),
}


def load_dataset(name: str, data_dir: str | Path | None = None, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """The real images, uint8 (N, H, W, C), and their labels, int64 (N,).

    ``digits``: the 1 797 grey images of 8 x 8 pixels that ship inside scikit-learn (UCI "optical recognition of
    handwritten digits"); nothing is downloaded and ``data_dir`` is not used. Grey levels 0..16 become 0..255.
    ``fashion_mnist``: 60 000 grey images of 28 x 28 pixels (Xiao et al. 2017), and 10 000 of split ``test``, from the
    four idx files, zipped or not, in ``data_dir`` or where Debian's package dataset-fashion-mnist puts them.
    ``cifar10``: 50 000 colour images of 32 x 32 pixels (Krizhevsky 2009), and 10 000 of split ``test``, from
    ``data_dir``/cifar-10-batches-py; torchvision reads them, after it has compared their checksums.
    ``ffhq64``: 70 000 colour images of 64 x 64 pixels made of FFHQ (Karras et al. 2019), without labels (all 0), from
    ``data_dir``, a zip or a folder of PNGs, see `ffhq64.ffhq64`; memory-mapped and read-only.

    Raises ValueError for a name not in ``DATASETS`` or a split that it does not have, DataError for missing or damaged
    files.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; allowed: {', '.join(DATASETS)}")
    if split != "train" and (split != "test" or name not in WITH_TEST_SPLIT):
        raise ValueError(f"dataset {name!r} has no split {split!r}; with 'test': {', '.join(WITH_TEST_SPLIT)}")
    if name == "fashion_mnist":
        images, labels = (_read_idx(*file, data_dir) for file in FASHION_MNIST[split])
        return images[..., np.newaxis], labels.astype(np.int64)
    if name == "cifar10":
        return _cifar10(data_dir, split)
    if name == "ffhq64":
        images = ffhq64(data_dir)
        return images, np.zeros(len(images), dtype=np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    return images, digits.target.astype(np.int64)


def _cifar10(data_dir: str | Path | None, split: str) -> tuple[np.ndarray, np.ndarray]:
    from torchvision.datasets import CIFAR10

    how = (
        f"set data_dir to the folder that holds {CIFAR10.base_folder}; it comes from {CIFAR10.url}, or from "
        "torchvision.datasets.CIFAR10(data_dir, download=True)"
    )
    if not data_dir:
        raise DataError(f"cifar10 is looked for in data_dir, which is empty; {how}")
    try:
        found = CIFAR10(data_dir, train=split == "train")
    except RuntimeError as error:  # torchvision does not say which
        raise DataError(f"{Path(data_dir) / CIFAR10.base_folder} is missing, incomplete or damaged; {how}") from error
    return found.data, np.asarray(found.targets, dtype=np.int64)


def _read_idx(name: str, sha256: str, shape: tuple[int, ...], data_dir: str | Path | None) -> np.ndarray:
    """The content of an idx file of bytes, in the given shape."""
    folders = [Path(data_dir)] if data_dir else [Path(folder) for folder in FASHION_MNIST_FOLDERS]
    folders += [folder / "FashionMNIST" / "raw" for folder in folders]  # where torchvision puts them
    candidates = [folder / f"{name}{end}" for folder in folders for end in ("", ".gz")]
    how = (
        "set data_dir to a folder with the four idx files; they come with Debian's package dataset-fashion-mnist, or "
        "from torchvision.datasets.FashionMNIST(data_dir, download=True)"
    )
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise DataError(f"{name}[.gz] of fashion_mnist is in none of {', '.join(map(str, folders))}; {how}")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error}); {how}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"{path} is damaged or another file: SHA-256 {found}, should be {sha256}; {how}")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
