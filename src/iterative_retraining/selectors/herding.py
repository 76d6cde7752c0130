"""Candidates that together lie where the real points lie: kernel herding (Chen, Welling and Smola 2010)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Candidates
from iterative_retraining.metrics.pairs import cross_tiles
from iterative_retraining.selectors.base import BaseSelector


@dataclass(frozen=True)
class Herding(BaseSelector):
    """Takes candidates one by one, each time the one that brings the kernel mean of those taken nearest to the real.

    Step t + 1 takes the x with the largest mean over real y of k(x, y), less the sum over those taken of k(x, .) over
    t + 1, none twice. k(x, y) = exp(-|x - y|^2 / 2 h^2), h^2 the total variance of the real features. No randomness.
    """

    name = "herding"
    style: ClassVar[Mapping[str, Any]] = {"color": "#56b4e9", "marker": "X"}

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Selector`."""
        real, x = candidates.real_features, candidates.features.astype(np.float64)
        centre, scale = real.mean(axis=0, dtype=np.float64), real.var(axis=0, dtype=np.float64).sum() or 1.0
        x = x - centre
        wanted, norms = _kernel_means(candidates.features, real, scale), (x * x).sum(axis=1)
        taken, free, rows = np.zeros(len(x)), np.ones(len(x), dtype=bool), []
        for t in range(n_kept):
            row = int(np.argmax(np.where(free, wanted - taken / (t + 1), -np.inf)))
            rows.append(row)
            free[row] = False
            squared = np.maximum(norms + norms[row] - 2 * x @ x[row], 0)
            taken += np.exp(-squared / (2 * scale))
        return np.sort(np.array(rows))


def _kernel_means(features: np.ndarray, real: np.ndarray, scale: float) -> np.ndarray:
    """The mean over real points (M, D) of the kernel at each of the features (N, D), (N,)."""
    total = np.zeros(len(features))
    for rows, _, tile in cross_tiles(features, real):
        total[rows] += (-tile / (2 * scale)).exp().sum(dim=1).numpy()
    return total / len(real)
