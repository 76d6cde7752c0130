"""Density and coverage (Naeem et al. 2020)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.metrics.metric import PairMetric, Value
from iterative_retraining.metrics.pairs import INSIDE, TIE_RULE
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values


@dataclass(frozen=True)
class DensityCoverage(PairMetric):
    """Density and coverage (Naeem et al. 2020, arXiv 2002.09797) of feature sets (N, D) and (M, D).

    density: the number of real balls (radius: distance to the k-th nearest other real point) around a generated point,
    divided by k, on average; it may exceed 1. coverage: share of real balls with a generated point strictly inside.
    k = ``k_density`` = 5, as in the paper. A point on the edge of a ball is outside. coverage grows with N / M: compare
    at equal numbers. Raises ValueError unless 1 <= k_density < M.
    """

    k_density: int = 5

    name: ClassVar = "density_coverage"
    values: ClassVar = {
        "density": Value("density", +1, ("noise",)),
        "coverage": Value("coverage", +1, ("noise", "collapse")),
    }

    @property
    def n_neighbours(self) -> int:
        return self.k_density

    def scan(self, generated: np.ndarray, reference: Reference) -> "_Scan":
        return _Scan(self.k_density, generated, reference)


class _Scan:
    def __init__(self, k: int, generated: np.ndarray, reference: Reference) -> None:
        self.k, device = k, reference.device
        self.radii = torch.tensor(reference.nearest(k)[:, -1], device=device) * INSIDE
        self.covered = torch.zeros(len(reference.real), dtype=torch.bool, device=device)
        self.n_balls = torch.zeros((), dtype=torch.int64, device=device)
        self.n_generated = len(generated)

    def update(self, rows: slice, columns: slice, tile: Tensor) -> None:
        inside = tile < self.radii[columns]
        self.n_balls += inside.sum()
        self.covered[columns] |= inside.any(dim=0)

    def values(self) -> Values:
        density = self.n_balls.item() / self.n_generated / self.k
        about = {"k_density": self.k, "n_generated": self.n_generated, "n_real": len(self.covered)}
        found = {"density": density, "coverage": self.covered.double().mean().item()}
        return Values(found, **about, tie_rule=TIE_RULE)
