"""Squared distances between feature sets, tile by tile in float64: memory does not grow with the number of points.

Distances come from |a|^2 + |b|^2 - 2 a.b, which is fast, after centring. Its rounding error is undone where it matters:
points nearer than 1e-6 of their distance from the centre count as one point (distance exactly 0), and a point lies
inside a ball only if its squared distance is below the squared radius by more than one part in 1e9, so that a tie lies
outside.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

TILE = 2048
COINCIDENT = 1e-12
INSIDE = 1 - 1e-9
TIE_RULE = "a point on the edge of a ball is outside (strict <); points nearer than 1e-6 of their norm are one point"


def check_features(**sets: np.ndarray) -> None:
    """Refuses feature sets that are not finite float arrays (N, D) of one D. Raises ValueError or TypeError by name."""
    dims = {}
    for name, x in sets.items():
        if not isinstance(x, np.ndarray) or not np.issubdtype(x.dtype, np.floating):
            kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
            raise TypeError(f"{name} must be a floating-point NumPy array of features (N, D), got {kind}")
        if x.ndim != 2 or len(x) == 0:
            raise ValueError(f"{name} must have shape (N, D) with N >= 1, got {x.shape}")
        bad = np.flatnonzero([not np.isfinite(x[rows]).all() for rows in tiles(len(x))])
        if len(bad):
            row = bad[0] * TILE + np.flatnonzero(~np.isfinite(x[bad[0] * TILE :][:TILE]).all(axis=1))[0]
            raise ValueError(f"{name} holds a value that is not finite, first in row {row}")
        dims[name] = x.shape[1]
    if len(set(dims.values())) > 1:
        listed = ", ".join(f"{name} has D = {dim}" for name, dim in dims.items())
        raise ValueError(f"features of different spaces cannot be compared: {listed}")


def tiles(n: int, size: int = 0) -> list[slice]:
    """0..n cut into slices of at most ``size`` (TILE)."""
    size = size or TILE
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


@dataclass(frozen=True)
class Rows:
    """``features`` (N, D) less ``centre`` over ``scale`` (D,): rows as float64 tensors on ``device`` when asked for.

    A GPU is sent the features once, as they are, and calculates there.
    """

    features: np.ndarray
    centre: np.ndarray | float = 0.0
    device: str = "cpu"
    scale: np.ndarray | float = 1.0

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice) -> Tensor:
        if self.device != "cpu":
            features, centre, scale = self._sent
            return (features[rows].double() - centre) / scale
        shifted = self.features[rows].astype(np.float64)
        shifted -= self.centre
        shifted /= self.scale
        return torch.from_numpy(shifted)

    @cached_property
    def _sent(self) -> tuple[Tensor, Tensor, Tensor]:
        """Features, centre and scale on the device."""
        centre, scale = (torch.as_tensor(x, dtype=torch.float64, device=self.device) for x in (self.centre, self.scale))
        return torch.tensor(self.features, device=self.device), centre, scale


def mean(features: np.ndarray) -> np.ndarray:
    """The mean of features (N, D) in float64, (D,), without a float64 copy of all of them."""
    return sum(features[rows].astype(np.float64).sum(axis=0) for rows in tiles(len(features))) / len(features)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """All squared distances of centred rows a (N, D) and b (M, D), (N, M); exactly 0 for coincident points."""
    norms = (a * a).sum(dim=1, keepdim=True)
    squared = torch.addmm((b * b).sum(dim=1), a, b.T, alpha=-2).add_(norms)
    return squared.masked_fill_(squared < 2 * COINCIDENT * norms, 0.0)


def nearest_others(features: np.ndarray, k: int, *, device: str = "cpu") -> np.ndarray:
    """Squared distances from every row of features (N, D) to its k nearest other rows, ascending, (N, k).

    Raises ValueError unless 1 <= k < N.
    """
    check_features(features=features)
    n = len(features)
    if not 1 <= k < n:
        raise ValueError(f"k = {k} is not allowed with {n} images: it must lie in 1..{n - 1}")
    rows = Rows(features, mean(features), device)
    best = torch.full((n, k), torch.inf, dtype=torch.float64, device=device)

    def keep(part: slice, squared: Tensor) -> None:
        found = squared.topk(min(k, squared.shape[1]), largest=False).values
        best[part] = torch.cat([best[part], found], dim=1).topk(k, largest=False).values

    parts = tiles(n)
    for i, first in enumerate(parts):
        a = rows[first]
        for second in parts[i:]:  # the matrix is symmetric: half of its tiles tell all
            squared = squared_distances(a, a if second is first else rows[second])
            if second is first:
                squared.fill_diagonal_(torch.inf)
            else:
                keep(second, squared.T)
            keep(first, squared)
    return best.sort(dim=1).values.cpu().numpy()


def cross_tiles(
    generated: np.ndarray, real: np.ndarray, *, device: str = "cpu"
) -> Iterator[tuple[slice, slice, Tensor]]:
    """All squared distances of ``generated`` (N, D) to ``real`` (M, D): (rows, columns, tile), rows outermost."""
    centre = mean(real)
    a, b = Rows(generated, centre, device), Rows(real, centre, device)
    for rows in tiles(len(generated)):
        block = a[rows]
        for columns in tiles(len(real)):
            yield rows, columns, squared_distances(block, b[columns])
