"""The scheme of the paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from iterative_retraining.schemes.base import LamScheme, first_rows
from iterative_retraining.training_set import TrainingSet

# By lam: seaborn's palette "colorblind"; between two of them their blend, beyond the last one nothing but the last.
COLOURS = {
    0.0: "#949494",
    0.01: "#56b4e9",
    0.1: "#cc78bc",
    0.5: "#0173b2",
    1.0: "#029e73",
    2.0: "#de8f05",
    10.0: "#4d3000",
}


@dataclass(frozen=True)
class Mix(LamScheme):
    """Algorithm 1: D_t is all n real data and floor(lam n) samples of generation t-1.

    ``lam`` is the ratio synthetic : real; the synthetic share of D_t is lam / (1 + lam).
    """

    name = "mix"
    lam: float = 0.5

    @property
    def label(self) -> str:
        return "λ = 0 (real only)" if self.lam == 0 else f"λ = {self.lam:g}"

    @property
    def order(self) -> float:
        return float(self.lam)

    @property
    def style(self) -> Mapping[str, Any]:
        return {"color": _colour(self.lam), "linestyle": "-", "marker": "o"}

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        n_synthetic = self.n_samples(len(real))
        if n_synthetic == 0:
            return TrainingSet.of(real)
        samples = history[-1]
        return TrainingSet((real, samples), (np.arange(len(real)), first_rows(samples, n_synthetic)))


def _colour(lam: float) -> str:
    """The colour of ``lam`` as hexadecimal digits."""
    for low, high in pairwise(COLOURS):
        if low <= lam <= high:
            share = (lam - low) / (high - low)
            ends = zip(bytes.fromhex(COLOURS[low][1:]), bytes.fromhex(COLOURS[high][1:]), strict=True)
            return "#" + bytes(round(a + share * (b - a)) for a, b in ends).hex()
    return COLOURS[high]
