"""Metrics of nearest neighbours: precision, recall, density, coverage, authenticity, copies. One pass gives all."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.metrics.pairs import INSIDE, TIE_RULE, check_features, cross_tiles, nearest_others
from iterative_retraining.metrics.values import Values

COPY_RATIO = 1 / 3


def knn_radii(features: np.ndarray, k: int, *, device: str = "cpu") -> np.ndarray:
    """Distance of every row of features (N, D) to its k-th nearest other row, (N,).

    Raises ValueError unless 1 <= k < N.
    """
    return np.sqrt(nearest_others(features, k, device=device)[:, k - 1])


def precision_recall(generated: np.ndarray, *, real: np.ndarray, k: int = 3, device: str = "cpu") -> Values:
    """Improved precision and recall (Kynkaanniemi et al. 2019) of feature sets (N, D) and (M, D).

    precision: share of generated points strictly inside a real point's ball, whose radius is the distance to its k-th
    nearest other real point; recall: the same with the roles exchanged. Points that all coincide have balls of radius
    0, so a generator that repeats one point has recall 0. Raises ValueError for bad features, or unless k < N, M.
    """
    check_features(generated=generated, real=real)
    found = _cross(
        generated,
        real,
        device,
        precision=nearest_others(real, k, device=device)[:, -1],
        recall=nearest_others(generated, k, device=device)[:, -1],
    )
    return _about({name: found[name] for name in ("precision", "recall")}, generated, real, k=k)


def density_coverage(generated: np.ndarray, *, real: np.ndarray, k: int = 5, device: str = "cpu") -> Values:
    """Density and coverage (Naeem et al. 2020) of feature sets (N, D) and (M, D).

    density: the number of real balls (radius: distance to the k-th nearest other real point) around a generated point,
    divided by k, on average; it may exceed 1. coverage: share of real balls with a generated point strictly inside.
    Raises ValueError for bad features, or unless k < M.
    """
    check_features(generated=generated, real=real)
    found = _cross(generated, real, device, density=nearest_others(real, k, device=device)[:, -1])
    return _about({"density": found["balls"] / k, "coverage": found["coverage"]}, generated, real, k_density=k)


def memorisation(generated: np.ndarray, *, real: np.ndarray, device: str = "cpu") -> Values:
    """Authenticity (Alaa et al. 2022) and the share of copies, of feature sets (N, D) and (M, D); real: training data.

    authenticity: share of generated points that lie farther from their nearest real point than that one lies from its
    own nearest other real point. copied: share of generated points nearer to their nearest real point than a third of
    the distance to the second nearest, or coincident with it (the rule of Yoon et al. 2023, here in feature space).
    """
    check_features(generated=generated, real=real)
    own = nearest_others(real, 1, device=device)[:, 0]
    found = _cross(generated, real, device, own_nearest=own)
    return _about({name: found[name] for name in ("authenticity", "copied")}, generated, real, copy_ratio=COPY_RATIO)


def neighbour_metrics(
    generated: np.ndarray,
    *,
    real: np.ndarray,
    k: int = 3,
    k_density: int = 5,
    real_nearest: np.ndarray | None = None,
    device: str = "cpu",
) -> Values:
    """`precision_recall`, `density_coverage` and `memorisation` together, from one pass over the distances.

    ``real_nearest``: `nearest_others(real, max(k, k_density))`, if at hand.
    """
    check_features(generated=generated, real=real)
    if real_nearest is None:
        real_nearest = nearest_others(real, max(k, k_density), device=device)
    found = _cross(
        generated,
        real,
        device,
        precision=real_nearest[:, k - 1],
        recall=nearest_others(generated, k, device=device)[:, -1],
        density=real_nearest[:, k_density - 1],
        own_nearest=real_nearest[:, 0],
    )
    found["density"] = found.pop("balls") / k_density
    names = ("precision", "recall", "density", "coverage", "authenticity", "copied")
    values = {name: found[name] for name in names}
    return _about(values, generated, real, k=k, k_density=k_density, copy_ratio=COPY_RATIO)


def _about(values: Mapping[str, float], generated: np.ndarray, real: np.ndarray, **settings: float) -> Values:
    return Values(values, **settings, n_generated=len(generated), n_real=len(real), tie_rule=TIE_RULE)


def _cross(generated: np.ndarray, real: np.ndarray, device: str, **squared: np.ndarray) -> dict[str, float]:
    """One pass over all distances. ``squared`` names what to find, by the squared distances that it compares with.

    precision, density (real radii, (M,)), recall (generated radii, (N,)), own_nearest (real to nearest other, (M,)).
    """
    given = {name: torch.from_numpy(np.ascontiguousarray(values)).to(device) for name, values in squared.items()}
    radii = {name: values * INSIDE for name, values in given.items()}

    def flags(n: int) -> Tensor:
        return torch.zeros(n, dtype=torch.bool, device=device)

    precise, recalled, covered = flags(len(generated)), flags(len(real)), flags(len(real))
    balls = torch.zeros((), dtype=torch.int64, device=device)
    nearest = _Nearest(len(generated), device)
    for rows, columns, tile in cross_tiles(generated, real, device=device):
        if "precision" in radii:
            precise[rows] |= (tile < radii["precision"][columns]).any(dim=1)
        if "recall" in radii:
            recalled[columns] |= (tile < radii["recall"][rows, None]).any(dim=0)
        if "density" in radii:
            inside = tile < radii["density"][columns]
            balls += inside.sum()
            covered[columns] |= inside.any(dim=0)
        if "own_nearest" in radii:
            nearest.update(rows, columns, tile)
    found = {
        "precision": precise.double().mean().item(),
        "recall": recalled.double().mean().item(),
        "coverage": covered.double().mean().item(),
        "balls": balls.item() / len(generated),
    }
    return found | (nearest.shares(given["own_nearest"]) if "own_nearest" in given else {})


class _Nearest:
    """The squared distances to the two nearest real points of every generated one, and which is the nearest."""

    def __init__(self, n: int, device: str) -> None:
        self.squared = torch.full((n, 2), torch.inf, dtype=torch.float64, device=device)
        self.index = torch.zeros((n, 2), dtype=torch.int64, device=device)

    def update(self, rows: slice, columns: slice, tile: Tensor) -> None:
        found, where = tile.topk(min(2, tile.shape[1]), largest=False)
        squared = torch.cat([self.squared[rows], found], dim=1)
        index = torch.cat([self.index[rows], where + columns.start], dim=1)
        self.squared[rows], order = squared.topk(2, largest=False)
        self.index[rows] = index.gather(1, order)

    def shares(self, own_nearest: Tensor) -> dict[str, float]:
        """authenticity and copied, see `memorisation`; own_nearest (M,)."""
        first, second = self.squared.sort(dim=1).values.T
        which = self.index.gather(1, self.squared.argmin(dim=1, keepdim=True))[:, 0]
        authentic = first * INSIDE > own_nearest[which]
        copied = (first == 0) | (first < COPY_RATIO**2 * second)
        return {"authenticity": authentic.double().mean().item(), "copied": copied.double().mean().item()}
