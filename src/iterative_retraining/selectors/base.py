"""What selectors have in common: the highest scores, and draws by weight that keep a number exactly."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.errors import shown
from iterative_retraining.interfaces import Candidates
from iterative_retraining.seeding import generator

ENDS = ("top", "bottom")
LEAST_LOG_WEIGHT = -600.0  # below the largest; exp of it is still above 0, so that any number can be kept
CERTAIN = 1 - 1e-9  # an inclusion probability from here on is 1


class BaseSelector:
    """A selector that asks nothing of a run; a subclass is a frozen dataclass whose fields are its options."""

    name: ClassVar[str]
    style: ClassVar[Mapping[str, Any]] = {}
    needs: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """Its name, spaced, and what is not as by default."""
        own = [f"{key.replace('_', ' ')} {value}" for key, value in self._own().items()]
        return ", ".join([self.name.replace("_", " "), *own])

    @property
    def id_part(self) -> str:
        """Its name and what is not as by default: "likelihood-endbottom"."""
        return "-".join([self.name, *(f"{key}{value}" for key, value in self._own().items())])

    def _own(self) -> dict[str, str]:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {key: f"{v:g}" if isinstance(v, int | float) else str(v) for key, v in given.items()}

    def check(self, *, keep_rate: float, n_real: int, n_classes: int | None) -> None:
        """Any run will do."""


@dataclass(frozen=True)
class ScoredSelector(BaseSelector):
    """Keeps the candidates with the highest score, or with the lowest (``end`` = "bottom").

    Raises ValueError for another end.
    """

    end: str = "top"

    def __post_init__(self) -> None:
        if not isinstance(self.end, str) or self.end not in ENDS:
            raise ValueError(f"end = {shown(self.end)} is not allowed; allowed: {', '.join(ENDS)}")

    def score(self, candidates: Candidates) -> np.ndarray:
        """The score of every candidate, (N,)."""
        raise NotImplementedError

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Selector`."""
        score = self.score(candidates)
        return highest(score if self.end == "top" else -score, n_kept)


def highest(score: np.ndarray, n: int) -> np.ndarray:
    """The rows of the ``n`` highest scores (N,), rising; of equal ones the first. Raises FloatingPointError for NaN."""
    if np.isnan(score).any():
        raise FloatingPointError(f"the score of candidate {int(np.isnan(score).argmax())} is not a number")
    return np.sort(np.argsort(-score, kind="stable")[:n])


def inclusion_probabilities(log_weights: np.ndarray, n: int) -> np.ndarray:
    """min(1, c w_i) with the c for which they add up to ``n``, (N,), of log w_i (N,).

    Rejection sampling with the acceptance rate n / N, where what would be accepted more than once is accepted.
    """
    if np.isnan(log_weights).any():
        raise FloatingPointError(f"the weight of candidate {int(np.isnan(log_weights).argmax())} is not a number")
    weights = np.exp(np.maximum(log_weights - log_weights.max(), LEAST_LOG_WEIGHT))
    order = np.argsort(-weights, kind="stable")
    falling = weights[order]
    rest = np.cumsum(falling[::-1])[::-1]  # of this weight and all below it
    left = n - np.arange(len(falling))
    n_certain = int(np.argmax(np.append(falling * left < CERTAIN * rest, True)))
    found = np.ones(len(falling))
    if n_certain < len(falling):
        found[n_certain:] = falling[n_certain:] * (left[n_certain] / rest[n_certain])
    return found[np.argsort(order)]


def draw_by_weight(log_weights: np.ndarray, n: int, *, seed: int) -> np.ndarray:
    """Exactly ``n`` rows, rising, each kept with its `inclusion_probabilities`: systematic sampling (Madow 1949), in
    random order."""
    probabilities, rng = inclusion_probabilities(log_weights, n), generator(seed)
    certain = np.flatnonzero(probabilities == 1)
    others = rng.permutation(np.flatnonzero(probabilities < 1))
    n_left = n - len(certain)
    if n_left == 0:
        return certain
    reached = np.cumsum(probabilities[others])
    reached *= n_left / reached[-1]  # exactly, at the end
    picked = np.searchsorted(reached, rng.uniform() + np.arange(n_left), side="right")
    return np.sort(np.concatenate([certain, others[picked]]))
