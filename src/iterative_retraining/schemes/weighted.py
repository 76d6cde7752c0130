"""Retraining with weights on the losses instead of on the numbers of data (He, Xu and Cheng 2025)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.errors import shown
from iterative_retraining.schemes.base import LamScheme, first_rows
from iterative_retraining.training_set import TrainingSet


@dataclass(frozen=True)
class Weighted(LamScheme):
    """D_t is all n real data, of total weight w, and floor(lam n) samples of generation t-1, of total weight 1 - w.

    w is ``real_weight``; 1 / (1 + lam) makes it the mix. At lam = 1 and with new real data every time the best w is
    1 over the golden ratio, 0.618 (He, Xu and Cheng 2025); here the real data stay the same.
    For flow matching take the coupling "independent" with it: a weight counts an item's noise too, which is Gaussian on
    the whole only where it does not depend on the item.
    Raises ValueError for parameters that are not allowed.
    """

    name = "weighted"
    style: ClassVar[Mapping[str, Any]] = {"color": "#222222", "linestyle": ":", "marker": "P"}
    lam: float = 1.0
    real_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        w = self.real_weight
        if isinstance(w, bool) or not isinstance(w, Real) or not 0 < w <= 1:
            raise ValueError(
                f"real_weight = {shown(w)} is not allowed: the share of all weight on the real data, above 0 and at "
                "most 1 (for synthetic data alone, take scheme 'fully_synthetic')"
            )
        object.__setattr__(self, "real_weight", float(w))

    @property
    def label(self) -> str:
        return f"weighted, w = {self.real_weight:g}, λ = {self.lam:g}"

    @property
    def order(self) -> float:
        return 5e6 + self.lam + self.real_weight / 1000

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        n, n_synthetic, w = len(real), self.n_samples(len(real)), self.real_weight
        if n_synthetic == 0:
            return TrainingSet.of(real)
        samples = history[-1]
        rows = (np.arange(n), first_rows(samples, n_synthetic))
        return TrainingSet((real, samples), rows, weights=(w / n, (1 - w) / n_synthetic))
