"""Curation as preference: of every few candidates one is chosen, by a reward (Ferbach et al. 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.errors import refuse_unknown, shown
from iterative_retraining.interfaces import Candidates
from iterative_retraining.seeding import generator
from iterative_retraining.selectors.base import BaseSelector, ScoredSelector
from iterative_retraining.selectors.confidence import Confidence
from iterative_retraining.selectors.density import FeatureDensity
from iterative_retraining.selectors.likelihood import Likelihood
from iterative_retraining.selectors.quality import FLDQuality
from iterative_retraining.selectors.share import exact_share

LARGEST = 1e9  # of a strength
REWARDS: dict[str, type[ScoredSelector]] = {
    "confidence": Confidence,
    "density": FeatureDensity,
    "fld_quality": FLDQuality,
    "likelihood": Likelihood,
}


@dataclass(frozen=True)
class Choice(BaseSelector):
    """The K-choice model of Ferbach et al. 2024 (arXiv 2407.09499): of K = 1 / keep_rate candidates x_1 .. x_K, x_k is
    kept with probability exp(r(x_k)) / sum_j exp(r(x_j)).

    r = ``strength`` times the score of the selector ``reward`` with its defaults; strength 0 chooses at random, a
    negative one chooses what the score dislikes. With K to infinity what is kept has a density in proportion to
    p(x) exp(r(x)). Raises ValueError for a reward that is not known, a strength that is no number or beyond all
    use, and a keep_rate that is not 1 / K.
    """

    reward: str = "confidence"
    strength: float = 10.0
    name = "choice"
    style: ClassVar[Mapping[str, Any]] = {"color": "#882255", "marker": "h"}

    def __post_init__(self) -> None:
        refuse_unknown("reward", [self.reward], REWARDS)
        s = self.strength
        if isinstance(s, bool) or not isinstance(s, Real) or not -LARGEST <= s <= LARGEST:
            raise ValueError(f"strength = {shown(s)} is not allowed: a number, at most {LARGEST:g} either way")
        object.__setattr__(self, "strength", float(s))

    @property
    def needs(self) -> frozenset[str]:
        """What the reward needs."""
        return REWARDS[self.reward].needs

    def check(self, *, keep_rate: float, n_real: int, n_classes: int | None) -> None:
        """Raises ValueError unless keep_rate is one over a whole number, and what the reward raises."""
        n_choices(keep_rate)
        REWARDS[self.reward]().check(keep_rate=keep_rate, n_real=n_real, n_classes=n_classes)

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Selector`; choice i is among the candidates i K .. i K + K - 1."""
        rewards = self.strength * REWARDS[self.reward]().score(candidates).reshape(n_kept, -1)
        noise = generator(seed).gumbel(size=rewards.shape)  # the largest of r + Gumbel noise is a draw of softmax(r)
        k = rewards.shape[1]
        return np.arange(n_kept) * k + (rewards + noise).argmax(axis=1)


def n_choices(keep_rate: float) -> int:
    """K = 1 / keep_rate. Raises ValueError if that is no whole number."""
    share: Fraction = exact_share(keep_rate)
    if share.numerator != 1:
        raise ValueError(
            f"keep_rate = {keep_rate:g} is not allowed with selector 'choice': one of K candidates is chosen, so it is "
            "1 / K: 0.5, 0.25, 0.2, ..."
        )
    return share.denominator
