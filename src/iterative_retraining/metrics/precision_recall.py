"""Improved precision and recall (Kynkäänniemi et al. 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.metrics.metric import PairMetric, Value
from iterative_retraining.metrics.pairs import INSIDE, TIE_RULE, nearest_others
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values


@dataclass(frozen=True)
class PrecisionRecall(PairMetric):
    """Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991) of feature sets (N, D) and (M, D).

    precision: share of generated points strictly inside a real point's ball, whose radius is the distance to its k-th
    nearest other real point; recall: the same with the roles exchanged. k = 3, as in the paper and in the authors'
    metric. A point on the edge of a ball is outside, so points that all coincide have balls of radius 0 and a generator
    that repeats one point has recall 0. Both depend on N and M: compare at equal numbers.
    Raises ValueError unless 1 <= k < N, M.
    """

    k: int = 3

    name: ClassVar = "precision_recall"
    values: ClassVar = {
        "precision": Value("precision", +1, ("noise",)),
        "recall": Value("recall", +1, ("collapse",)),
    }

    @property
    def n_neighbours(self) -> int:
        return self.k

    def scan(self, generated: np.ndarray, reference: Reference) -> "_Scan":
        return _Scan(self.k, generated, reference)


class _Scan:
    def __init__(self, k: int, generated: np.ndarray, reference: Reference) -> None:
        device = reference.device
        of_real, of_generated = reference.nearest(k)[:, -1], nearest_others(generated, k, device=device)[:, -1]
        self.radii_real = torch.tensor(of_real, device=device) * INSIDE
        self.radii_generated = torch.tensor(of_generated, device=device) * INSIDE
        self.precise = torch.zeros(len(generated), dtype=torch.bool, device=device)
        self.recalled = torch.zeros(len(reference.real), dtype=torch.bool, device=device)
        self.about = {"k": k, "n_generated": len(generated), "n_real": len(reference.real), "tie_rule": TIE_RULE}

    def update(self, rows: slice, columns: slice, tile: Tensor) -> None:
        self.precise[rows] |= (tile < self.radii_real[columns]).any(dim=1)
        self.recalled[columns] |= (tile < self.radii_generated[rows, None]).any(dim=0)

    def values(self) -> Values:
        shares = {"precision": self.precise, "recall": self.recalled}
        return Values({name: flags.double().mean().item() for name, flags in shares.items()}, **self.about)
