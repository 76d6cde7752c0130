"""The real side of every metric: its features, and what several metrics need of them, each computed once."""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from iterative_retraining.metrics.pairs import Rows, check_features, mean, nearest_others, tiles

Kept = TypeVar("Kept")


class Classifier(Protocol):
    """Tells the classes of features, such as the network that they come from."""

    n_classes: int

    def classes(self, features: np.ndarray) -> np.ndarray:
        """Predicted classes (N,), integers below ``n_classes``, of features (N, D)."""


def moments(features: np.ndarray, *, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of finite features (N, D), float64.

    Raises ValueError for fewer than 2 rows.
    """
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {len(features)}")
    centre = mean(features)
    rows, dim = Rows(features, centre, device), features.shape[1]
    scatter = torch.zeros((dim, dim), dtype=torch.float64, device=device)
    for part in tiles(len(features)):
        block = rows[part]
        scatter.addmm_(block.T, block)
    cov = scatter.cpu().numpy() / (len(features) - 1)
    constant = np.diag(cov) <= (1e-13 * centre) ** 2  # all that rounding of the mean leaves
    cov[constant], cov[:, constant] = 0.0, 0.0
    return centre, cov


class Reference:
    """Real features ``real`` (M, D), those of the training data, and what generated ones are measured with.

    test: held-out real features (K, D). classifier: of the same feature space. Raises ValueError or TypeError for sets
    that are not finite float arrays of one D.
    """

    def __init__(
        self,
        real: np.ndarray,
        test: np.ndarray | None = None,
        *,
        classifier: Classifier | None = None,
        device: str = "cpu",
    ) -> None:
        check_features(real=real, **({} if test is None else {"test": test}))
        self.real, self.test, self.classifier, self.device = real, test, classifier, device
        self._kept: dict[Hashable, Any] = {}

    @property
    def offers(self) -> frozenset[str]:
        """What a metric may need and finds here: "test" (held-out features), "classes" (a classifier)."""
        there = {"test": self.test is not None, "classes": self.classifier is not None}
        return frozenset(name for name, given in there.items() if given)

    def check(self, generated: np.ndarray) -> None:
        """Refuses generated features that are not finite float arrays (N, D) of the same D."""
        check_features(generated=generated, real=self.real[:1])

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (D,) and covariance (D, D) of the real features."""
        return moments(self.real, device=self.device)

    def nearest(self, k: int) -> np.ndarray:
        """Squared distances of every real point to its k nearest other ones, ascending, (M, k).

        One search serves every smaller k that is asked for later. Raises ValueError unless 1 <= k < M.
        """
        kept = self._kept.get("nearest")
        if kept is None or kept.shape[1] < k:
            kept = self._kept["nearest"] = nearest_others(self.real, k, device=self.device)
        return kept[:, :k]

    def once(self, key: Hashable, compute: Callable[[], Kept]) -> Kept:
        """``compute()``, kept under ``key``: what depends on the real sets and on settings, all named in the key."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]
