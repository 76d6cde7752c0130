"""Fashion-MNIST at half its size: what a processor trains on in a fraction of the time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.datasets.fashion_mnist import FASHION_MNIST
from iterative_retraining.datasets.fashion_mnist import OPTIONS as FULL_SIZE
from iterative_retraining.datasets.options import of_network

OPTIONS = FULL_SIZE | {"multipliers": (1, 2)}  # attention at 7 x 7, as at full size


class FashionMNIST14:
    """Fashion-MNIST with each 2 x 2 block of pixels as its mean, halves rounded up: 14 x 14 pixels, same splits.

    data_dir: as for fashion_mnist.
    """

    name = "fashion_mnist14"
    shape = (14, 14, 1)
    counts = FASHION_MNIST.counts
    has_labels = True
    features = "fashion_mnist14"

    def load(self, split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `iterative_retraining.interfaces.Dataset`."""
        images, labels = FASHION_MNIST.load(split, data_dir)
        return halved(images), labels

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """See `iterative_retraining.interfaces.Dataset`."""
        return OPTIONS | of_network(network)


FASHION_MNIST14 = FashionMNIST14()


def halved(images: np.ndarray) -> np.ndarray:
    """The means of 2 x 2 blocks of uint8 images (N, 2H, 2W, C), rounded to nearest, halves up: uint8 (N, H, W, C)."""
    n, height, width, colours = images.shape
    blocks = images.reshape(n, height // 2, 2, width // 2, 2, colours)
    return ((blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4).astype(np.uint8)
