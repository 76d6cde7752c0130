"""Fashion-MNIST: grey images of clothes in ten classes, from the four idx files that the user has."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from iterative_retraining.datasets.options import of_network
from iterative_retraining.errors import DataError
from iterative_retraining.file_kinds import seems_to_be

FOLDERS = ("/usr/share/datasets/fashion-mnist",)  # where Debian's package puts the files
HOW = (
    "set data_dir to a folder with the four idx files; they come with Debian's package dataset-fashion-mnist, or "
    "from torchvision.datasets.FashionMNIST(data_dir, download=True)"
)
FILES = {  # images and labels of each split: file name, SHA-256 of its unzipped content, shape
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
OPTIONS = {  # our choices
    "channels": 32,
    "multipliers": (1, 2, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (7,),
    "dropout": 0.0,
    "augment_labels": 0,
    "norm_groups": 16,
    "ema_halflife_images": 50_000,
}
# Within 0.5 % in one pass, see digits.SAMPLERS; the images vary so much along the first eigenvector that the start has
# to count it in. No sampler of DDPM's whole levels does so for the finest structure: there it is as by default.
SAMPLER = {"solver": "dpmpp_3m", "n_steps": 34, "rho": 10.0, "start_data_std": 4.0}
SAMPLERS: dict[str, dict[str, Any]] = {"edm": SAMPLER, "flow_matching": SAMPLER | {"spacing": "karras"}}


class FashionMNIST:
    """70 000 grey images of 28 x 28 pixels (Xiao et al. 2017), split as published.

    data_dir: a folder with the four idx files, zipped or not, or the one above it that torchvision fills; by default
    the folder of Debian's package dataset-fashion-mnist.
    """

    name = "fashion_mnist"
    shape = (28, 28, 1)
    counts: Mapping[str, int] = MappingProxyType({"train": 60_000, "test": 10_000})
    has_labels = True
    features = "fashion_mnist"

    def load(self, split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `iterative_retraining.interfaces.Dataset`."""
        images, labels = (_read_idx(*file, data_dir) for file in FILES[split])
        return images[..., np.newaxis], labels.astype(np.int64)

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """See `iterative_retraining.interfaces.Dataset`."""
        return OPTIONS | SAMPLERS.get(model, {}) | of_network(network)


FASHION_MNIST = FashionMNIST()


def _read_idx(name: str, sha256: str, shape: tuple[int, ...], data_dir: str | Path | None) -> np.ndarray:
    """The content of an idx file of bytes, in the given shape. Raises DataError."""
    folders = [Path(data_dir)] if data_dir else [Path(folder) for folder in FOLDERS]
    folders += [folder / "FashionMNIST" / "raw" for folder in folders]  # where torchvision puts them
    candidates = [folder / f"{name}{end}" for folder in folders for end in ("", ".gz")]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise DataError(f"{name}[.gz] of fashion_mnist is in none of {', '.join(map(str, folders))}; {HOW}")
    head = 4 + 4 * len(shape)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            content = file.read(head + math.prod(shape) + 1)  # no more, whatever a zipped file claims to hold
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read or is damaged ({error}); {HOW}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        what = f"SHA-256 {found}, should be {sha256}; it seems to be {seems_to_be(path)}"
        raise DataError(f"{path} is damaged or another file: {what}; {HOW}")
    return np.frombuffer(content, dtype=np.uint8, offset=head).reshape(shape)
