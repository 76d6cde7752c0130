"""Authenticity (Alaa et al. 2022) and the share of copies (Yoon et al. 2023)."""

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
class Memorisation(PairMetric):
    """Authenticity (Alaa et al. 2022, arXiv 2102.08921) and the share of copies; real (M, D): the training data.

    authenticity: share of generated points (N, D) that lie farther from their nearest real point than that one lies
    from its own nearest other real point (k = 1); a tie is not authentic. copied: share of generated points nearer to
    their nearest real point than ``copy_ratio`` = 1/3 of the distance to the second nearest, or coincident with it (the
    rule of Yoon et al. 2023, here in feature space). Both measure novelty alone: noise is authentic. They depend on M.
    Raises ValueError unless M >= 2.
    """

    copy_ratio: float = 1 / 3

    name: ClassVar = "memorisation"
    values: ClassVar = {
        "authenticity": Value("authenticity", +1, ("copies",)),
        "copied": Value("copied", -1, ("copies",)),
    }
    n_neighbours: ClassVar = 1

    def scan(self, generated: np.ndarray, reference: Reference) -> "_Scan":
        return _Scan(self.copy_ratio, generated, reference)


class _Scan:
    """The squared distances to the two nearest real points of every generated one, and which is the nearest."""

    def __init__(self, copy_ratio: float, generated: np.ndarray, reference: Reference) -> None:
        n, device = len(generated), reference.device
        self.copy_ratio = copy_ratio
        self.own_nearest = torch.tensor(reference.nearest(1)[:, 0], device=device)
        self.squared = torch.full((n, 2), torch.inf, dtype=torch.float64, device=device)
        self.index = torch.zeros((n, 2), dtype=torch.int64, device=device)

    def update(self, rows: slice, columns: slice, tile: Tensor) -> None:
        found, where = tile.topk(min(2, tile.shape[1]), largest=False)
        squared = torch.cat([self.squared[rows], found], dim=1)
        index = torch.cat([self.index[rows], where + columns.start], dim=1)
        self.squared[rows], order = squared.topk(2, largest=False)
        self.index[rows] = index.gather(1, order)

    def values(self) -> Values:
        """See `metric.Scan.values`."""
        first, second = self.squared.sort(dim=1).values.T
        which = self.index.gather(1, self.squared.argmin(dim=1, keepdim=True))[:, 0]
        shares = {
            "authenticity": first * INSIDE > self.own_nearest[which],
            "copied": (first == 0) | (first < self.copy_ratio**2 * second),
        }
        about = {"copy_ratio": self.copy_ratio, "n_generated": len(first), "n_real": len(self.own_nearest)}
        found = {name: flags.double().mean().item() for name, flags in shares.items()}
        return Values(found, **about, tie_rule=TIE_RULE)
