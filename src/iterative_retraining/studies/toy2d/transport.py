"""Wasserstein distances between distributions that are known by samples, with what their number alone would give."""

from dataclasses import dataclass

import numpy as np
import ot


@dataclass(frozen=True)
class Transport:
    """A distance of two distributions from samples: ``value`` corrected for its bias, between ``low`` and ``high``.

    high is the mean distance of samples: on average never below the truth (convexity). low is that minus both floors,
    the distances of two samples of one distribution: on average never above the truth (triangle inequality). value is
    sqrt(high^2 - floor^2), a rule of thumb: distance and sampling noise at right angles. standard_error is that of
    high, over disjoint parts.
    """

    value: float
    low: float
    high: float
    standard_error: float


def wasserstein1_of_samples(first: np.ndarray, second: np.ndarray) -> float:
    """W_1 of two samples (N, D), (M, D) with Euclidean cost, exactly: the network simplex of POT."""
    for name, x in (("first", first), ("second", second)):
        if x.ndim != 2 or not np.isfinite(x).all():
            raise ValueError(f"{name} must be finite points (N, D), got shape {x.shape}")
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"points of {first.shape[1]} and of {second.shape[1]} dimensions have no distance")
    return float(ot.emd2([], [], ot.dist(first, second, metric="euclidean"), numItermax=10_000_000))


def estimate_wasserstein1(first: np.ndarray, second: np.ndarray, *, n_splits: int = 8) -> Transport:
    """W_1 of the distributions behind two samples (N, D) of one size, ``n_splits`` disjoint pairs of parts of each.

    Raises ValueError if the sizes differ or are no multiple of 2 n_splits.
    """
    if len(first) != len(second) or len(first) % (2 * n_splits) or n_splits < 2:
        raise ValueError(
            f"{len(first)} and {len(second)} points with n_splits = {n_splits} are not allowed: equal numbers, "
            "multiples of 2 n_splits, n_splits at least 2"
        )
    parts = list(zip(np.split(first, 2 * n_splits), np.split(second, 2 * n_splits), strict=True))
    plain, floors = [], []
    for (a, b), (c, d) in zip(parts[::2], parts[1::2], strict=True):
        plain.append((wasserstein1_of_samples(a, b) + wasserstein1_of_samples(c, d)) / 2)
        floors.append((wasserstein1_of_samples(a, c) + wasserstein1_of_samples(b, d)) / 2)
    high, floor = float(np.mean(plain)), float(np.mean(floors))
    value = float(np.sqrt(max(0.0, high**2 - floor**2)))
    return Transport(value, max(0.0, high - 2 * floor), high, float(np.std(plain, ddof=1) / np.sqrt(n_splits)))
