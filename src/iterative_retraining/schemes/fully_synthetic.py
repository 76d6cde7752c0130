"""The scheme that collapses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.schemes.base import BaseScheme, first_rows
from iterative_retraining.training_set import TrainingSet


@dataclass(frozen=True)
class FullySynthetic(BaseScheme):
    """The real data are dropped after theta_0: D_t is n samples of generation t-1. A scheme, not a value of lambda."""

    name = "fully_synthetic"
    label = "fully synthetic"
    order = -1.0
    style: ClassVar[Mapping[str, Any]] = {
        "color": "#d55e00",
        "linestyle": "--",
        "marker": "^",
    }  # dashed red with triangles, as in the paper

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        samples = history[-1]
        return TrainingSet((real, samples), (np.arange(0), first_rows(samples, len(real))))
