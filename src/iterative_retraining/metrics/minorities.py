"""What becomes of minorities: the rarest class, and the tenth of the real points where they are rarest."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.metrics.metric import FeatureMetric, PairMetric, Value
from iterative_retraining.metrics.pairs import INSIDE, TIE_RULE
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values


@dataclass(frozen=True)
class RarestTenth(PairMetric):
    """The share of generated points (N, D) that stand for the rarest tenth of the real ones (M, D).

    The rarest: the real points farthest from their ``k_rare``-th nearest other one, ceil(M / 10) of them; of equal
    ones the first. A generated point stands for its nearest real point if it lies strictly within the k_rare-th
    neighbour of that, so noise stands for none. Neither more nor less is better: what fresh real data give is, about a
    tenth less those that stand for none; the floor has it. Raises ValueError unless 1 <= k_rare < M.
    """

    k_rare: int = 5

    name: ClassVar = "rarest_tenth"
    values: ClassVar = {"rarest_tenth": Value("rarest tenth")}

    @property
    def n_neighbours(self) -> int:
        return self.k_rare

    def scan(self, generated: np.ndarray, reference: Reference) -> "_Scan":
        return _Scan(self.k_rare, generated, reference)


class _Scan:
    """The nearest real point of every generated one."""

    def __init__(self, k: int, generated: np.ndarray, reference: Reference) -> None:
        self.k, n, device = k, len(generated), reference.device
        radii = reference.nearest(k)[:, -1]
        rare = np.argsort(-radii, kind="stable")[: -(-len(radii) // 10)]
        self.radii = torch.tensor(radii, device=device) * INSIDE
        self.rare = torch.zeros(len(radii), dtype=torch.bool, device=device)
        self.rare[torch.from_numpy(rare).to(device)] = True
        self.squared = torch.full((n,), torch.inf, dtype=torch.float64, device=device)
        self.index = torch.zeros(n, dtype=torch.int64, device=device)

    def update(self, rows: slice, columns: slice, tile: Tensor) -> None:
        found, where = tile.min(dim=1)
        nearer = found < self.squared[rows]
        self.squared[rows] = torch.where(nearer, found, self.squared[rows])
        self.index[rows] = torch.where(nearer, where + columns.start, self.index[rows])

    def values(self) -> Values:
        """See `metric.Scan.values`."""
        stands = self.rare[self.index] & (self.squared < self.radii[self.index])
        about = {"k_rare": self.k, "n_generated": len(stands), "n_real": len(self.radii)}
        return Values({"rarest_tenth": stands.double().mean().item()}, **about, tie_rule=TIE_RULE)


@dataclass(frozen=True)
class RarestClass(FeatureMetric):
    """The share of generated points (N, D) in the class that the classifier finds rarest among the real ones (M, D).

    Of equally rare classes the first; a class that no real point is in does not count. Neither more nor less is better:
    that of the real data is, see ``about``, where it is ``rarest_class_of_real``.
    """

    name: ClassVar = "rarest_class"
    values: ClassVar = {"rarest_class": Value("rarest class")}
    needs: ClassVar = frozenset({"classes"})

    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        classes = reference.classifier.classes

        def rarest() -> tuple[int, float]:
            counts = np.bincount(np.asarray(classes(reference.real)))
            there = np.flatnonzero(counts)
            rare = int(there[np.argmin(counts[there])])
            return rare, float(counts[rare] / counts.sum())

        rare, of_real = reference.once("rarest class", rarest)
        about = {"n_generated": len(generated), "n_real": len(reference.real), "rarest_class_of_real": of_real}
        return Values({"rarest_class": float((np.asarray(classes(generated)) == rare).mean())}, **about)
