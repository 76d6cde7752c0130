"""Kernel (Inception) distance (Bińkowski et al. 2018)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from iterative_retraining.metrics.metric import FeatureMetric, Value
from iterative_retraining.metrics.pairs import Rows, tiles
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values
from iterative_retraining.seeding import generator


@dataclass(frozen=True)
class KID(FeatureMetric):
    """Kernel (Inception) distance (Bińkowski et al. 2018, arXiv 1801.01401) of feature sets (N, D) and (M, D).

    kid: unbiased squared MMD with the kernel (x.y / D + 1)^3, over all pairs, not over subsets as in the paper; it may
    be negative, and its mean does not depend on N or M. kid_standard_error: delete-a-group jackknife over ``n_groups``
    groups of both sets, drawn by ``seed`` and the place of a point in its set.
    Raises ValueError for fewer than 4 images in a set.
    """

    n_groups: int = 20
    seed: int = 0

    name: ClassVar = "kid"
    values: ClassVar = {
        "kid": Value("KID", -1, ("noise", "collapse")),
        "kid_standard_error": Value("standard error of KID"),
    }

    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        """See `FeatureMetric.measure`."""
        n, m = len(generated), len(reference.real)
        if min(n, m) < 4:
            raise ValueError(f"kid needs at least 4 images in each set, got {n} generated and {m} real")
        groups = min(self.n_groups, min(n, m) // 2)
        rng = generator(self.seed)
        member1, member2 = (np.eye(groups)[rng.permutation(np.arange(count) % groups)] for count in (n, m))
        a, b = (Rows(x, device=reference.device) for x in (generated, reference.real))
        key = ("kid", self.seed, groups, n)  # the groups of the real points are drawn after those of n others
        sums = [
            _kernel_sums(a, member1),
            reference.once(key, lambda: _kernel_sums(b, member2)),
            _kernel_sums(a, member1, b, member2),
        ]
        whole = _mmd(*(s.sum() for s in sums), n, m)
        without = [s.sum() - s.sum(axis=0) - s.sum(axis=1) + np.diag(s) for s in sums]
        left_out = _mmd(*without, n - member1.sum(axis=0), m - member2.sum(axis=0))
        error = np.sqrt((groups - 1) * left_out.var())
        found = {"kid": float(whole), "kid_standard_error": float(error)}
        return Values(found, n_generated=n, n_real=m, kernel="(x.y / D + 1)^3", n_groups=groups)


def _kernel_sums(
    a: Rows, member_a: np.ndarray, b: Rows | None = None, member_b: np.ndarray | None = None
) -> np.ndarray:
    """Sums of the kernel over pairs of groups, (G, G); membership one-hot, (N, G). Of ``a`` with itself, less the
    diagonal, where no ``b`` is given."""
    groups_a = torch.from_numpy(member_a).to(a.device)
    groups_b = groups_a if member_b is None else torch.from_numpy(member_b).to(a.device)
    sums = groups_a.new_zeros((groups_a.shape[1], groups_a.shape[1]))
    for i in tiles(len(a)):
        block = a[i]
        for j in tiles(len(a if b is None else b)):
            if b is None and j.start < i.start:
                continue  # symmetric: the tile above the diagonal counts for both
            kernel = (block @ (a if b is None else b)[j].T).div_(block.shape[1]).add_(1)
            kernel = kernel * kernel * kernel
            if b is None and i.start == j.start:
                kernel.fill_diagonal_(0)
            part = groups_a[i].T @ kernel @ groups_b[j]
            sums += part + part.T if b is None and i.start != j.start else part
    return sums.cpu().numpy()


def _mmd(within1: np.ndarray, within2: np.ndarray, between: np.ndarray, n: np.ndarray, m: np.ndarray) -> np.ndarray:
    return within1 / (n * (n - 1)) + within2 / (m * (m - 1)) - 2 * between / (n * m)
