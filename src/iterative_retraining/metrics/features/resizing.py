"""clean-fid's resizing of many images at once on their device, equal to its own up to rounding."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.errors import ConfigError, shown

AUTO = "auto"
RESIZINGS = (AUTO, "exact", "batched")
GREY, STEP = 128.0, 64.0  # an impulse between these two is not clipped, whatever the lobes of the filter


def check_resizing(value: object) -> str:
    """``value`` if it may be the parameter features_resizing. Raises ConfigError."""
    if value not in RESIZINGS:
        raise ConfigError(f"features_resizing = {shown(value)} is not allowed; allowed: {', '.join(RESIZINGS)}")
    return str(value)


def chosen_resizing(given: str, device: str) -> str:
    """ "exact" or "batched" for one of `RESIZINGS` on ``device``."""
    return given if given != AUTO else "exact" if device == "cpu" else "batched"


class BatchedResizer:
    """uint8 images (B, H, W, 3) -> float32 (B, 3, 299, 299) on ``device``, as ``resize`` does one by one.

    resize: an image (H, W, 3) -> (299, 299, 3) in 0..255, clipped; linear before that, and in each direction by itself.
    So it is two matrices, which are read off ``resize``: what becomes of a line of pixels brighter than the rest. They
    are applied in float64, where no setting of the device takes digits away.
    """

    def __init__(self, resize: Callable[[np.ndarray], np.ndarray], device: str) -> None:
        self.resize, self.device = resize, device
        self._matrix = cache(self._read_off)

    def __call__(self, images: np.ndarray) -> Tensor:
        """Resized images."""
        _, height, width, _ = images.shape
        x = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).double()
        resized = self._matrix(height, width, 0) @ x @ self._matrix(width, height, 1).mT
        return resized.clamp(0, 255).float()

    def _read_off(self, size: int, other: int, axis: int) -> Tensor:
        """The matrix (299, size) of the direction ``axis`` of images that have ``other`` pixels in the other one."""
        shape = (size, other) if axis == 0 else (other, size)
        columns = []
        for k in range(size):
            line = np.full((*shape, 3), GREY, np.float32)
            line[(slice(None),) * axis + (k,)] += STEP
            columns.append(self.resize(line).mean(axis=(1 - axis, 2), dtype=np.float64) - GREY)
        return torch.tensor(np.stack(columns, axis=1) / STEP, device=self.device)
