"""What the entries of the registry of feature spaces are, and what every space refuses."""

from pathlib import Path
from typing import Protocol

import numpy as np

from iterative_retraining.interfaces import FeatureSpace


class FeatureEntry(Protocol):
    """A feature space before its weights are read: all that the rest of the package asks of it."""

    name: str
    needs_weights: bool
    """Whether the user has to bring weights; else they are part of the package."""
    shape: tuple[int, int, int] | None
    """(H, W, C) of the images that it takes; None for any with C = 1 or 3."""

    def build(self, weights: str | Path, device: str) -> FeatureSpace:
        """Reads ``weights``, a file or folder, "" for the usual place. Raises WeightsError if missing or damaged."""


def check_images(images: np.ndarray, shape: tuple[int, int, int] | None = None) -> None:
    """Refuses what are not uint8 images (N, H, W, C) with C = 1 or 3, of ``shape`` (H, W, C) if given, N >= 1.

    Raises TypeError or ValueError.
    """
    wanted = f"uint8 (N, {', '.join(map(str, shape))})" if shape else "uint8 (N, H, W, C) with C = 1 or 3"
    if not isinstance(images, np.ndarray):
        raise TypeError(f"images must be {wanted}, got {type(images).__name__}")
    fits = images.ndim == 4 and (images.shape[1:] == shape if shape else images.shape[3] in (1, 3))
    if images.dtype != np.uint8 or not fits or len(images) == 0:
        raise ValueError(f"images must be {wanted} with N >= 1, got {images.dtype} {images.shape}")


def three_channels(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, 1 or 3) with grey repeated, (N, H, W, 3)."""
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
