"""Biased real data: a class of which only a share is there."""

import numpy as np

from iterative_retraining.schemes import synthetic_count


def rows_with_rare(labels: np.ndarray, rare_class: int, rare_share: float) -> np.ndarray:
    """All rows but those of the rare class beyond the first floor(rare_share count). Raises ValueError if it has none
    then."""
    of_class = np.flatnonzero(labels == rare_class)
    n = synthetic_count(rare_share, len(of_class))
    if n == 0:
        raise ValueError(
            f"rare_class = {rare_class} with rare_share = {rare_share:g} is not allowed: of the "
            f"{len(of_class)} real images of that class none is left"
        )
    return np.setdiff1d(np.arange(len(labels)), of_class[n:])
