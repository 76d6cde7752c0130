"""Several models that feed each other: Algorithm 1 for k models, each retrained on real data and on samples of all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.interfaces import Metric, Model, Run
from iterative_retraining.retrain import GenerationRecord, Progress, retrain
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.schemes.base import BaseScheme, first_rows
from iterative_retraining.schemes.ratio import check_lam, synthetic_count
from iterative_retraining.seeding import stage_seed
from iterative_retraining.training_set import TrainingSet


@dataclass(frozen=True)
class Ecosystem:
    """Who learns from whom: D_t of model i holds all n real data, unless ``real`` is False, and floor(lam[i][j] n)
    samples of model j of generation t-1.

    lam: k rows of k ratios >= 0. One model alone with lam = ((l,),) is the scheme `Mix`; the identity matrix without
    real data is k times the scheme `FullySynthetic`. Raises ValueError for a matrix that is not allowed.
    """

    lam: tuple[tuple[float, ...], ...]
    real: bool = True

    def __post_init__(self) -> None:
        k = len(self.lam)
        if k == 0 or any(len(row) != k for row in self.lam):
            lengths = [len(row) for row in self.lam]
            raise ValueError(f"lam has {k} rows of {lengths} entries; allowed: k rows of k, one a model, k >= 1")
        for row in self.lam:
            for entry in row:
                check_lam(entry)
            if not self.real and sum(row) == 0:
                raise ValueError(f"lam has the row {list(row)} and no real data: this model would learn from nothing")

    def schemes(self, runs: Sequence[Run]) -> "list[Fed]":
        """The scheme of each model, which reads the histories of ``runs``, one a model. Raises ValueError."""
        if len(runs) != len(self.lam):
            raise ValueError(f"{len(runs)} runs for {len(self.lam)} models: give one each")
        asked = [max(row[j] for row in self.lam) for j in range(len(self.lam))]
        return [Fed(row, self.real, most, tuple(runs)) for row, most in zip(self.lam, asked, strict=True)]


@dataclass(frozen=True, eq=False)
class Fed(BaseScheme):
    """The scheme of one model of an `Ecosystem`: ``lam`` by model, and how many times n others ask of its samples."""

    lam: tuple[float, ...]
    real: bool
    most: float
    runs: tuple[Run, ...]

    name: ClassVar[str] = "fed"
    history_length: int | None = 2  # a model that is one generation ahead keeps what the others have still to read

    def n_samples(self, n_real: int) -> int:
        return synthetic_count(self.most, n_real)

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        before = len(history) - 1
        counts = [synthetic_count(ratio, len(real)) for ratio in self.lam]
        taken = [(run.history[before], n) for run, n in zip(self.runs, counts, strict=True) if n]
        parts = (real, *(samples for samples, _ in taken))
        return TrainingSet(parts, (np.arange(len(real) if self.real else 0), *(first_rows(s, n) for s, n in taken)))


def retrain_ecosystem(
    models: Sequence[Model],
    real: np.ndarray,
    ecosystem: Ecosystem,
    metrics: Sequence[Metric],
    *,
    n_retrain: int,
    seed: int,
    runs: Sequence[Run] | None = None,
    initial_states: Sequence[Mapping[str, np.ndarray] | None] | None = None,
    progress: Progress | None = None,
) -> Iterator[tuple[int, GenerationRecord]]:
    """Algorithm 1 for all ``models`` in lockstep: index and record of every model, generation by generation.

    Each is retrained by `iterative_retraining.retrain.retrain` with a seed of its own, so that no two draw the same.
    With ``runs`` on a disk a killed ecosystem goes on where it stood: all of them have to be given again.
    Raises ValueError where models, matrix and runs do not belong together, and what `retrain` raises.
    """
    runs = [MemoryRun() for _ in models] if runs is None else runs
    schemes = ecosystem.schemes(runs)
    if len(models) != len(schemes):
        raise ValueError(f"{len(models)} models for a matrix of {len(schemes)} rows: give one each")
    states: Sequence[Any] = [None] * len(models) if initial_states is None else initial_states
    with ExitStack() as stack:
        loops = []
        for i, (model, scheme, run, state) in enumerate(zip(models, schemes, runs, states, strict=True)):
            asked = {"n_retrain": n_retrain, "seed": stage_seed(seed, i, "member"), "progress": progress}
            loop = retrain(model, real, scheme, metrics, run=run, initial_state=state, **asked)
            loops.append(stack.enter_context(closing(loop)))
        for _ in range(n_retrain + 1):
            for i, loop in enumerate(loops):
                yield i, next(loop)
