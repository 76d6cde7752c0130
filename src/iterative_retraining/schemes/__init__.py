"""How the training set D_t of a generation is made of real data and of what earlier generations sampled."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from iterative_retraining.interfaces import Scheme
from iterative_retraining.training_set import TrainingSet

# The rows of `candidates` to keep, in order; a scheme takes as many of them as it needs.
Select = Callable[[np.ndarray], np.ndarray]


def _first(samples: np.ndarray, n: int, select: Select | None) -> np.ndarray:
    """The first ``n`` rows that ``select`` keeps: samples are i.i.d. by index, so the first n are a fair draw."""
    rows = np.arange(len(samples)) if select is None else np.asarray(select(samples))
    if len(rows) < n:
        raise ValueError(f"the scheme needs {n} samples, {len(rows)} of {len(samples)} are at hand")
    return rows[:n]


@dataclass(frozen=True)
class Mix:
    """Algorithm 1: D_t is all n real data and floor(lam * n) samples of generation t-1.

    ``lam`` is the ratio synthetic : real; the synthetic share of D_t is lam / (1 + lam).
    """

    lam: float
    select: Select | None = None
    history_length: int | None = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lam) and self.lam >= 0):
            raise ValueError(f"lam = {self.lam!r} is not allowed: it is the ratio synthetic : real, a number >= 0")

    def n_samples(self, n_real: int) -> int:
        return math.floor(self.lam * n_real)

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        n_synthetic = self.n_samples(len(real))
        if n_synthetic == 0:
            return TrainingSet.of(real)
        samples = history[-1]
        return TrainingSet((real, samples), (np.arange(len(real)), _first(samples, n_synthetic, self.select)))


@dataclass(frozen=True)
class FullySynthetic:
    """The real data are dropped after theta_0: D_t is n samples of generation t-1. A scheme, not a value of lambda."""

    select: Select | None = None
    history_length: int | None = 1

    def n_samples(self, n_real: int) -> int:
        return n_real

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        samples = history[-1]
        return TrainingSet((real, samples), (np.arange(0), _first(samples, len(real), self.select)))


SCHEMES = ("mix", "fully_synthetic")


def build_scheme(name: str, lam: float) -> Scheme:
    """The scheme called ``name``; ``lam`` counts for the mix alone. Raises ValueError for another name."""
    if name == "mix":
        return Mix(lam)
    if name == "fully_synthetic":
        return FullySynthetic()
    raise ValueError(f"unknown scheme {name!r}; allowed: {', '.join(SCHEMES)}")
