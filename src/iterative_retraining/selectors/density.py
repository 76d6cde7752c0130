"""The candidates where real features are dense."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch

from iterative_retraining.errors import shown
from iterative_retraining.interfaces import Candidates
from iterative_retraining.metrics.pairs import cross_tiles
from iterative_retraining.selectors.base import ScoredSelector


@dataclass(frozen=True)
class FeatureDensity(ScoredSelector):
    """Score: less the distance to the ``k``-th nearest real point in feature space: how dense real points are there.

    Raises ValueError unless k is 1 or more, and at most the number of real data.
    """

    k: int = 5
    name = "density"
    style: ClassVar[Mapping[str, Any]] = {"color": "#029e73", "marker": "^"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.k, bool) or not isinstance(self.k, Integral) or not 1 <= self.k < 2**63:
            raise ValueError(f"k = {shown(self.k)} is not allowed: it counts neighbours, 1 or more")
        object.__setattr__(self, "k", int(self.k))

    def check(self, *, keep_rate: float, n_real: int, n_classes: int | None) -> None:
        """Raises ValueError for fewer than k real data."""
        if self.k > n_real:
            raise ValueError(f"k = {self.k} is not allowed with {n_real} real data: it counts neighbours among them")

    def score(self, candidates: Candidates) -> np.ndarray:
        """See `FeatureDensity`."""
        features = candidates.features
        nearest = torch.full((len(features), self.k), torch.inf, dtype=torch.float64)
        for rows, _, tile in cross_tiles(features, candidates.real_features):
            both = torch.cat([nearest[rows], tile], dim=1)
            nearest[rows] = both.topk(self.k, largest=False).values
        return -nearest.max(dim=1).values.sqrt().numpy()
