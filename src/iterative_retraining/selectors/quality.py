"""The candidates of the highest quality by the Feature Likelihood Divergence (Jiralerspong et al. 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Candidates
from iterative_retraining.metrics.likelihood import sample_quality
from iterative_retraining.seeding import generator
from iterative_retraining.selectors.base import ScoredSelector


@dataclass(frozen=True)
class FLDQuality(ScoredSelector):
    """Score: log-density of the features under Gaussians on half of the real points, fitted to the other half.

    The published score has held-out images in the place of the first half; they are left for the metrics here, which
    must not be measured on what a filter has seen. The price: copies of training images of that half score high. The
    halves are the same in all generations and seeds.
    """

    name = "fld_quality"
    style: ClassVar[Mapping[str, Any]] = {"color": "#0173b2", "marker": "s"}

    def check(self, *, keep_rate: float, n_real: int, n_classes: int | None) -> None:
        """Raises ValueError for fewer than 4 real data."""
        if n_real < 4:
            raise ValueError(f"n_real = {n_real} is not allowed with selector 'fld_quality': it halves 4 or more")

    def score(self, candidates: Candidates) -> np.ndarray:
        """See `FLDQuality`."""
        real = candidates.real_features
        first, second = np.array_split(real[generator(0).permutation(len(real))], 2)
        return sample_quality(candidates.features, real=second, test=first)
