"""What of images themselves is measured, in no feature space."""

import numpy as np

from iterative_retraining.metrics.metric import Value
from iterative_retraining.metrics.values import Values

PIXEL_VALUES = {"pixel_variance": Value("pixel variance")}


def pixel_variance(images: np.ndarray) -> Values:
    """The variance over images, uint8 (N, H, W, C), of pixels in [-1, 1], unbiased, and its mean over the pixels.

    What Proposition 1 says of Gaussians, that retraining on own samples takes the variance away, said of images: it is
    the trace of their covariance a pixel. Raises ValueError for fewer than 2 images.
    """
    if len(images) < 2:
        raise ValueError(f"a variance needs at least 2 images, got {len(images)}")
    flat = images.reshape(len(images), -1).astype(np.float64) / 127.5
    return Values({"pixel_variance": float(flat.var(axis=0, ddof=1).mean())})
