"""The candidates that are least likely copies, by the Feature Likelihood Divergence (Jiralerspong et al. 2023)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Candidates
from iterative_retraining.metrics.likelihood import sample_memorisation
from iterative_retraining.selectors.base import ScoredSelector


@dataclass(frozen=True)
class FLDMemorisation(ScoredSelector):
    """Score: less the log-density that a candidate's own Gaussian, fitted to the real points, gives the nearest.

    The top are the candidates that copy least. Features are scaled by those of the real points.
    """

    name = "fld_memorisation"
    style: ClassVar[Mapping[str, Any]] = {"color": "#de8f05", "marker": "D"}

    def check(self, *, keep_rate: float, n_real: int, n_classes: int | None) -> None:
        """Raises ValueError for fewer than 2 real data."""
        if n_real < 2:
            raise ValueError(f"n_real = {n_real} is not allowed with selector 'fld_memorisation': it needs 2 or more")

    def score(self, candidates: Candidates) -> np.ndarray:
        """See `FLDMemorisation`."""
        real = candidates.real_features
        return -sample_memorisation(candidates.features, real=real, test=real)
