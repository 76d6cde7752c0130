"""Metrics of a generation: callables ``(generated, *, real) -> {name: value}``."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from iterative_retraining.metrics.distances import frechet_distance, knn_radii, moments, precision_recall
from iterative_retraining.seeding import generator


class Metric(Protocol):
    """What `retrain` asks of a metric; ``real`` is always the keyword."""

    def __call__(self, generated: np.ndarray, *, real: np.ndarray) -> dict[str, float]: ...


def compare(generated: np.ndarray, *, real: np.ndarray, k: int = 3) -> dict[str, float]:
    """fid, precision and recall of two feature sets (N, D) and (M, D)."""
    return {"fid": frechet_distance(*moments(generated), *moments(real)), **precision_recall(generated, real=real, k=k)}


class ImageMetrics:
    """fid, precision and recall of images in the space of ``features``; what the real images give is computed once.

    k: neighbours, besides the point itself, that set the radii of precision and recall (3, as the paper's code has it).
    """

    def __init__(self, features: Callable[[np.ndarray], np.ndarray], k: int = 3) -> None:
        self.features, self.k = features, k
        self._real: np.ndarray | None = None

    def _prepare(self, real: np.ndarray) -> None:
        if self._real is real:
            return
        self._real, self.real_features = real, self.features(real)
        self._moments, self._radii = moments(self.real_features), knn_radii(self.real_features, self.k)

    def __call__(self, generated: np.ndarray, *, real: np.ndarray) -> dict[str, float]:
        self._prepare(real)
        found = self.features(generated)
        return {
            "fid": frechet_distance(*moments(found), *self._moments),
            **precision_recall(found, real=self.real_features, k=self.k, real_radii=self._radii),
        }

    def floor(self, real: np.ndarray, *, seed: int, n_splits: int = 20) -> dict[str, list[float]]:
        """The same metrics between the two halves of ``real``, for ``n_splits`` random halvings: what chance gives.

        Halves hold n/2 images each, so the floor of FID, whose bias goes as 1/n, stands a little above what two sets
        of n real images would give.
        """
        self._prepare(real)
        rng, half = generator(seed), len(real) // 2
        rows = []
        for _ in range(n_splits):
            order = rng.permutation(len(real))
            a, b = self.real_features[order[:half]], self.real_features[order[half : 2 * half]]
            rows.append(compare(a, real=b, k=self.k))
        return {name: [row[name] for row in rows] for name in rows[0]}
