"""What every feature space refuses."""

import numpy as np


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
