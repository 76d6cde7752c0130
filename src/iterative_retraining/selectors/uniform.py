"""The control: candidates kept at random."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Candidates
from iterative_retraining.seeding import generator
from iterative_retraining.selectors.base import BaseSelector


@dataclass(frozen=True)
class Uniform(BaseSelector):
    """Any candidates, all sets of them equally likely: what drawing more and keeping fewer does by itself, nothing."""

    name = "random"
    style: ClassVar[Mapping[str, Any]] = {"color": "#7f7f7f", "marker": "o"}

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Selector`."""
        return np.sort(generator(seed).choice(len(candidates.items), n_kept, replace=False))
