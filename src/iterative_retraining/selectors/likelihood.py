"""The candidates that the model itself finds likeliest, or least likely."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Candidates
from iterative_retraining.selectors.base import ScoredSelector


@dataclass(frozen=True)
class Likelihood(ScoredSelector):
    """Score: the exact log-density of the model that drew the candidate; ``end`` = "bottom" keeps the least likely."""

    name = "likelihood"
    style: ClassVar[Mapping[str, Any]] = {"color": "#d55e00", "marker": ">"}
    needs = frozenset({"density"})

    def score(self, candidates: Candidates) -> np.ndarray:
        """See `Likelihood`."""
        return candidates.log_prob()
