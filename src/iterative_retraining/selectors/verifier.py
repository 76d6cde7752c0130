"""A perfect verifier: rejection by the exact odds, where target and model have a density."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Candidates
from iterative_retraining.selectors.base import BaseSelector, draw_by_weight


@dataclass(frozen=True)
class Verifier(BaseSelector):
    """Keeps a candidate x with a probability in proportion to target(x) / model(x): the discriminator without an error.

    Where no probability would exceed 1 what is kept follows the target itself; see `draw_by_weight`.
    """

    name = "verifier"
    style: ClassVar[Mapping[str, Any]] = {"color": "#000000", "marker": "*"}
    needs = frozenset({"density", "target"})

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Selector`."""
        return draw_by_weight(candidates.target_log_prob() - candidates.log_prob(), n_kept, seed=seed)
