"""Accumulation with a training set that does not grow (Kazdan et al. 2024)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.schemes.accumulate import pool
from iterative_retraining.schemes.base import BaseScheme, first_rows
from iterative_retraining.seeding import generator
from iterative_retraining.training_set import TrainingSet


@dataclass(frozen=True)
class AccumulateSubsample(BaseScheme):
    """D_t is n items drawn without replacement from all n real data and n samples of each generation so far."""

    name = "accumulate_subsample"
    label = "accumulate, subsampled"
    order = 3e6
    style: ClassVar[Mapping[str, Any]] = {"color": "#882255", "linestyle": ":", "marker": "D"}
    history_length = None

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        parts, n = pool(real, history), len(real)
        picked = np.sort(generator(seed).choice(n * len(parts), n, replace=False))
        rows = (first_rows(part, n)[picked[picked // n == p] - p * n] for p, part in enumerate(parts))
        return TrainingSet(parts, tuple(rows))
