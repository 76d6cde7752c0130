"""Retraining with new real data every time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.errors import shown
from iterative_retraining.schemes.base import LamScheme, first_rows
from iterative_retraining.seeding import generator
from iterative_retraining.training_set import TrainingSet


@dataclass(frozen=True)
class Fresh(LamScheme):
    """D_t is n *new* real data and floor(lam n) samples of generation t-1.

    The real data are cut into ``n_blocks`` disjoint blocks of n = floor(n_real / n_blocks), at random but the same for
    every seed: data sets are sorted in their own ways. theta_0 is fitted to block 0, D_t has block t, so there can be
    n_blocks - 1 retrainings. Weights of theta_0 that are handed in may have seen any of the real data.
    Raises ValueError for parameters that are not allowed.
    """

    name = "fresh"
    style: ClassVar[Mapping[str, Any]] = {"color": "#999933", "linestyle": "--", "marker": "v"}
    lam: float = 1.0
    n_blocks: int = 11

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.n_blocks, bool) or not isinstance(self.n_blocks, Integral) or not 1 <= self.n_blocks < 2**63:
            raise ValueError(
                f"n_blocks = {shown(self.n_blocks)} is not allowed: it counts disjoint blocks of the real data, one a "
                "generation; take n_retrain + 1 or more"
            )
        object.__setattr__(self, "n_blocks", int(self.n_blocks))

    @property
    def label(self) -> str:
        blocks = "" if self.n_blocks == Fresh.n_blocks else f", {self.n_blocks} blocks"
        return f"fresh, λ = {self.lam:g}{blocks}"

    @property
    def order(self) -> float:
        return 4e6 + self.lam

    def n_in_use(self, n_real: int) -> int:
        """The size n of a block."""
        return n_real // self.n_blocks

    def check(self, n_real: int, n_retrain: int) -> None:
        """Raises ValueError unless every generation has new real data."""
        if n_retrain >= self.n_blocks:
            raise ValueError(
                f"n_retrain = {n_retrain} is not allowed with n_blocks = {self.n_blocks}: every generation needs a "
                f"block of real data of its own; take n_blocks = {n_retrain + 1}, or n_retrain = {self.n_blocks - 1}"
            )
        if n_real < self.n_blocks:
            raise ValueError(
                f"n_blocks = {self.n_blocks} is not allowed: there are {n_real} real data to share out; take fewer"
            )

    def _block(self, n_real: int, generation: int) -> np.ndarray:
        self.check(n_real, generation)
        n = self.n_in_use(n_real)
        return np.sort(generator(0).permutation(n_real)[generation * n : (generation + 1) * n])

    def initial_set(self, real: np.ndarray) -> TrainingSet:
        """Block 0."""
        return TrainingSet((real,), (self._block(len(real), 0),))

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        rows, n_synthetic = self._block(len(real), len(history)), self.n_samples(len(real))
        if n_synthetic == 0:
            return TrainingSet((real,), (rows,))
        samples = history[-1]
        return TrainingSet((real, samples), (rows, first_rows(samples, n_synthetic)))
