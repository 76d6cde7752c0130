"""Candidates that cover the clusters of the real points, each in its share."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.errors import shown
from iterative_retraining.interfaces import Candidates
from iterative_retraining.selectors.base import BaseSelector


@dataclass(frozen=True)
class KMeansCoverage(BaseSelector):
    """Every cluster of the real features gets its real share of what is kept, as far as there are candidates in it.

    ``n_clusters`` by k-means on the real points, at most one for each that differs; a candidate belongs to the nearest
    centre. Within a cluster the first are taken: candidates are i.i.d. by index, so that is a fair draw. What a cluster
    lacks is shared out among the others. Raises ValueError for n_clusters below 1.
    """

    n_clusters: int = 50
    name = "kmeans"
    style: ClassVar[Mapping[str, Any]] = {"color": "#332288", "marker": "<"}

    def __post_init__(self) -> None:
        n = self.n_clusters
        if isinstance(n, bool) or not isinstance(n, Integral) or not 1 <= n < 2**63:
            raise ValueError(f"n_clusters = {shown(n)} is not allowed: it counts clusters, 1 or more")
        object.__setattr__(self, "n_clusters", int(n))

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Selector`; the clusters are the same in all generations and seeds."""
        from sklearn.cluster import KMeans

        real = candidates.real_features.astype(np.float64)
        n = min(self.n_clusters, len(np.unique(real, axis=0)))
        clusters = KMeans(n, n_init=1, random_state=0).fit(real)
        of_candidate = clusters.predict(candidates.features.astype(np.float64))
        there = np.bincount(of_candidate, minlength=n)
        counts = shared_out(n_kept, np.bincount(clusters.labels_, minlength=n), there)
        place = np.empty(len(of_candidate), dtype=np.int64)  # within its cluster
        order = np.argsort(of_candidate, kind="stable")
        place[order] = np.arange(len(order)) - np.repeat(np.cumsum(there) - there, there)
        return np.flatnonzero(place < counts[of_candidate])


def shared_out(n: int, shares: np.ndarray, there: np.ndarray) -> np.ndarray:
    """``n`` places in proportion to ``shares`` (C,), by largest remainders, no more of one than are ``there`` (C,).

    What is left over goes to the others in proportion, and to those of share 0 at last. n is at most the sum of there.
    """
    found = np.zeros(len(there), dtype=np.int64)
    while (left := n - found.sum()) > 0:
        weights = np.where(found < there, shares, 0).astype(np.float64)
        if not weights.any():
            weights = (found < there).astype(np.float64)
        exact = left * weights / weights.sum()
        added = np.floor(exact).astype(np.int64)
        by_remainder = np.argsort(added - exact, kind="stable")[: left - added.sum()]
        added[by_remainder] += 1
        found = np.minimum(found + added, there)
    return found
