"""A selector at work: what a run asks for a share of the samples that its model has drawn."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from iterative_retraining.interfaces import Selector
from iterative_retraining.metrics.features import cached
from iterative_retraining.selectors.share import check_keep_rate, n_candidates

LogDensity = Callable[[np.ndarray], np.ndarray]  # of items (N, ...), float64 (N,)
NEEDS = {
    "classes": "a feature space with the probabilities of classes",
    "density": "a model with an exact density, such as spline_flow or gaussian",
    "target": "a data set whose density is known (log_prob)",
}


class Selection:
    """Keeps the share ``keep_rate`` of what a model draws, by ``selector``.

    features: the feature space in which selectors look; None for items that are vectors, which are their own features.
    target: log-density of the distribution of the real data, where that is known. Raises ValueError for a keep_rate
    that is not allowed.
    """

    def __init__(
        self, selector: Selector, keep_rate: float = 0.5, *, features: Any = None, target: LogDensity | None = None
    ) -> None:
        self.selector, self.keep_rate = selector, check_keep_rate(keep_rate)
        self.features, self.target = features, target
        self._real: np.ndarray | None = None

    def check(self, n_real: int, *, has_density: bool) -> None:
        """Raises ValueError, before anything is spent, where the selector needs what the run does not have."""
        there = {
            "classes": hasattr(self.features, "probabilities"),
            "density": has_density,
            "target": self.target is not None,
        }
        missing = [NEEDS[need] for need in sorted(self.selector.needs) if not there[need]]
        if missing:
            raise ValueError(f"selector = {self.selector.name!r} is not allowed here: it needs {' and '.join(missing)}")
        n_classes = self.features.n_classes if there["classes"] else None
        self.selector.check(keep_rate=self.keep_rate, n_real=n_real, n_classes=n_classes)

    def n_candidates(self, n_kept: int) -> int:
        """How many samples have to be drawn."""
        return n_candidates(n_kept, self.keep_rate)

    def keep(self, samples: np.ndarray, n_kept: int, *, real: np.ndarray, model: Any, seed: int) -> np.ndarray:
        """``n_kept`` of the first `n_candidates` samples (N, ...) that ``model`` has drawn, in their order.

        All samples if none is needed. Raises ValueError if the selector does not keep so many different ones.
        """
        n = self.n_candidates(n_kept)
        if n_kept in (0, n):
            return samples[:n] if n else samples
        rows = self.selector.rows(_Drawn(self, samples[:n], real, model), n_kept, seed=seed)
        if len(np.unique(rows)) != n_kept or len(rows) != n_kept:
            raise ValueError(
                f"selector {self.selector.name!r} kept {len(rows)} rows of {n}, not {n_kept} different ones"
            )
        return samples[rows]

    def features_of(self, items: np.ndarray) -> np.ndarray:
        """Features (N, D) of items (N, ...)."""
        return items.reshape(len(items), -1).astype(np.float64) if self.features is None else self.features(items)

    def features_of_real(self, real: np.ndarray) -> np.ndarray:
        """The same of the real data, computed once."""
        if self._real is not real:
            kept = self.features is not None and hasattr(self.features, "name")
            self._real, self._features = real, cached(self.features, real) if kept else self.features_of(real)
        return self._features


class _Drawn:
    """See `iterative_retraining.interfaces.Candidates`; each thing is computed when it is asked for."""

    def __init__(self, selection: Selection, items: np.ndarray, real: np.ndarray, model: Any) -> None:
        self.items, self._selection, self._real, self._model = items, selection, real, model

    @cached_property
    def features(self) -> np.ndarray:
        """(N, D)."""
        return self._selection.features_of(self.items)

    @cached_property
    def real_features(self) -> np.ndarray:
        """(M, D)."""
        return self._selection.features_of_real(self._real)

    def probabilities(self) -> np.ndarray:
        """(N, n_classes)."""
        return self._selection.features.probabilities(self.features)

    def log_prob(self) -> np.ndarray:
        """(N,)."""
        return self._model.log_prob(self.items)

    def target_log_prob(self) -> np.ndarray:
        """(N,)."""
        return self._selection.target(self.items)
