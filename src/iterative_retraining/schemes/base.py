"""What schemes have in common, so that the file of one holds its definition alone."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.schemes.ratio import check_lam, synthetic_count
from iterative_retraining.training_set import TrainingSet


class BaseScheme:
    """A scheme that reads one generation back, asks nothing of a run, and fits theta_0 to all real data."""

    name: ClassVar[str]
    history_length: int | None = 1
    style: ClassVar[Mapping[str, Any]] = {}

    @property
    def id_part(self) -> str:
        """Its name, lam if it has one, and what is not as by default: "mix-lam0.5"."""
        own = [f.name for f in fields(self) if f.name == "lam" or getattr(self, f.name) != f.default]
        return "-".join([self.name, *(f"{key}{_short(getattr(self, key))}" for key in own)])

    def n_samples(self, n_real: int) -> int:
        """As many as there are real data."""
        return n_real

    def check(self, n_real: int, n_retrain: int) -> None:
        """Any run will do."""

    def notice(self, n_real: int) -> str:
        """Nothing to say."""
        return ""

    def initial_set(self, real: np.ndarray) -> TrainingSet:
        """All real data."""
        return TrainingSet.of(real)


class LamScheme(BaseScheme):
    """A scheme with a ratio ``lam`` = synthetic : real. Raises ValueError for one that is not allowed."""

    lam: float

    def __post_init__(self) -> None:
        check_lam(self.lam)

    def n_in_use(self, n_real: int) -> int:
        """The number n of real data in a training set: all of them."""
        return n_real

    def n_samples(self, n_real: int) -> int:
        """floor(lam n)."""
        return synthetic_count(self.lam, self.n_in_use(n_real))

    def notice(self, n_real: int) -> str:
        """Says so where a lam above 0 is too small for a single sample."""
        if self.lam == 0 or self.n_samples(n_real):
            return ""
        return f"no synthetic data: floor(lam n) = 0 for lam = {self.lam:g} and n = {self.n_in_use(n_real)}"


def first_rows(samples: np.ndarray, n: int) -> np.ndarray:
    """The rows 0..n-1: samples are i.i.d. by index, so the first n are a fair draw. Raises ValueError for too few."""
    if len(samples) < n:
        raise ValueError(f"the scheme needs {n} samples of a generation, {len(samples)} are at hand")
    return np.arange(n)


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
