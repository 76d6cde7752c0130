"""The candidates of which a classifier is sure."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.errors import shown
from iterative_retraining.interfaces import Candidates
from iterative_retraining.selectors.base import ScoredSelector


@dataclass(frozen=True)
class Confidence(ScoredSelector):
    """Score: the probability of the likeliest class by the classifier of the feature space, or that of ``of_class``.

    Raises ValueError for a class that there is not; -1 is the likeliest.
    """

    of_class: int = -1
    name = "confidence"
    style: ClassVar[Mapping[str, Any]] = {"color": "#cc78bc", "marker": "v"}
    needs = frozenset({"classes"})

    def __post_init__(self) -> None:
        super().__post_init__()
        c = self.of_class
        if isinstance(c, bool) or not isinstance(c, Integral) or not -1 <= c < 2**63:
            raise ValueError(f"of_class = {shown(c)} is not allowed: a class from 0 on, or -1 for the likeliest")
        object.__setattr__(self, "of_class", int(c))

    def check(self, *, keep_rate: float, n_real: int, n_classes: int | None) -> None:
        """Raises ValueError for a class that the classifier does not know."""
        if n_classes is not None and self.of_class >= n_classes:
            raise ValueError(f"of_class = {self.of_class} is not allowed: the classes are 0 to {n_classes - 1}")

    def score(self, candidates: Candidates) -> np.ndarray:
        """See `Confidence`."""
        found = candidates.probabilities()
        return found.max(axis=1) if self.of_class == -1 else found[:, self.of_class]
