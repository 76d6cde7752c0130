"""The data sets, as uint8 images: one file each, from scikit-learn or files that the user has; nothing is fetched."""

from pathlib import Path

import numpy as np

from iterative_retraining.datasets.cifar10 import CIFAR10
from iterative_retraining.datasets.digits import DIGITS
from iterative_retraining.datasets.fashion_mnist import FASHION_MNIST
from iterative_retraining.datasets.fashion_mnist14 import FASHION_MNIST14
from iterative_retraining.datasets.ffhq64 import FFHQ64
from iterative_retraining.datasets.photos import PHOTOS32, PHOTOS64
from iterative_retraining.errors import DataError, find, refuse_unknown
from iterative_retraining.interfaces import Dataset

DATASETS: dict[str, Dataset] = {
    "digits": DIGITS,
    "fashion_mnist": FASHION_MNIST,
    "fashion_mnist14": FASHION_MNIST14,
    "photos32": PHOTOS32,
    "photos64": PHOTOS64,
    "cifar10": CIFAR10,
    "ffhq64": FFHQ64,
}


def find_dataset(name: str) -> Dataset:
    """The data set called ``name``. Raises ConfigError for a name not in ``DATASETS``."""
    return find("dataset", name, DATASETS)


def load_dataset(name: str, data_dir: str | Path | None = None, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """The images of one split, uint8 (N, H, W, C), and their labels, int64 (N,), all 0 where a data set has none.

    data_dir: where the files are, see the data set; those that come with a library do not use it.
    Raises ConfigError for a name not in ``DATASETS`` or a split that it does not have, DataError for missing or damaged
    files.
    """
    dataset = find_dataset(name)
    refuse_unknown(f"split of {name}", [split], dataset.counts)
    try:
        return dataset.load(split, data_dir)
    except OSError as error:  # such as a folder that may not be read, or a link to nowhere
        raise DataError(f"{name} cannot be read from data_dir = {str(data_dir)!r}: {error}") from error
