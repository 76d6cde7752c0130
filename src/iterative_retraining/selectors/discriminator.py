"""Rejection by the odds of a discriminator, real against synthetic (Azadi et al. 2019)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Candidates
from iterative_retraining.seeding import generator, stage_seed
from iterative_retraining.selectors.base import BaseSelector, draw_by_weight


@dataclass(frozen=True)
class Discriminator(BaseSelector):
    """Keeps a candidate with a probability in proportion to D / (1 - D), D its probability to be real.

    D: a logistic regression on features, trained on all real points and half of the candidates; each half is judged by
    the one that has not seen it. With the true D and no probability above 1 what is kept follows the distribution of
    the real data (discriminator rejection sampling, arXiv 1810.06758); see `draw_by_weight` for how a number is kept
    exactly.
    """

    name = "discriminator"
    style: ClassVar[Mapping[str, Any]] = {"color": "#ca9161", "marker": "P"}

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Selector`."""
        odds = log_odds(candidates.real_features, candidates.features, seed=stage_seed(seed, 0, "halves"))
        return draw_by_weight(odds, n_kept, seed=stage_seed(seed, 0, "draw"))


def log_odds(real: np.ndarray, generated: np.ndarray, *, seed: int) -> np.ndarray:
    """Log-odds of every generated point (N, D) to be real, up to a constant, by the two regressions; float64 (N,).

    Raises ValueError for fewer than 2 generated points.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(generated) < 2:
        raise ValueError(
            f"a discriminator needs at least 2 candidates, got {len(generated)}: one to train, one to judge"
        )
    halves = np.array_split(generator(seed).permutation(len(generated)), 2)
    found = np.empty(len(generated))
    for seen, judged in (halves, halves[::-1]):
        x = np.concatenate([real, generated[seen]]).astype(np.float64)
        is_real = np.arange(len(x)) < len(real)
        fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, is_real)
        found[judged] = fitted.decision_function(generated[judged].astype(np.float64))
    return found
