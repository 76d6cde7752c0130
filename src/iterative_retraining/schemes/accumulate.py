"""The scheme that throws nothing away (Gerstgrasser et al. 2024)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.schemes.base import BaseScheme, first_rows
from iterative_retraining.training_set import TrainingSet


@dataclass(frozen=True)
class Accumulate(BaseScheme):
    """D_t is all n real data and n samples of each of the generations 0..t-1."""

    name = "accumulate"
    label = "accumulate"
    order = 2e6
    style: ClassVar[Mapping[str, Any]] = {"color": "#332288", "linestyle": "-.", "marker": "s"}
    history_length = None

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        parts = pool(real, history)
        return TrainingSet(parts, tuple(first_rows(part, len(real)) for part in parts))


def pool(real: np.ndarray, history: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The real data and the samples of every generation, by index."""
    return (real, *(history[generation] for generation in range(len(history))))
