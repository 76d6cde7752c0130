"""Distances between two sets of features: Frechet distance, improved precision and recall. Closed forms in float64."""

import numpy as np
from scipy.spatial.distance import cdist

CHUNK_BYTES = 64 * 2**20  # of one block of pairwise distances


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """The squared 2-Wasserstein distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    means (D,), symmetric covariances (D, D), of any rank. tr (S1 S2)^(1/2) is the sum of the square roots of the
    eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric: no complex numbers, whatever the rank.
    Raises ValueError if shapes disagree or a value is not finite.
    """
    mean1, mean2, cov1, cov2 = (np.asarray(a, dtype=np.float64) for a in (mean1, mean2, cov1, cov2))
    dim = mean1.size
    if mean1.shape != (dim,) or mean2.shape != (dim,) or cov1.shape != (dim, dim) or cov2.shape != (dim, dim):
        raise ValueError(f"shapes disagree: means {mean1.shape}, {mean2.shape}, covariances {cov1.shape}, {cov2.shape}")
    if not all(np.isfinite(a).all() for a in (mean1, mean2, cov1, cov2)):
        raise ValueError("a mean or covariance is not finite")
    values, vectors = np.linalg.eigh(cov1)
    root1 = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root1 @ cov2 @ root1).clip(min=0)).sum()
    distance = ((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * cross
    return float(max(distance, 0.0))


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), float64. Raises ValueError for fewer than 2 rows."""
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {len(features)}")
    x = features.astype(np.float64)
    return x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))


def _distances(a: np.ndarray, b: np.ndarray):
    """Blocks of Euclidean distances: pairs (rows of a, block (len(rows), len(b))), float64."""
    rows = max(1, CHUNK_BYTES // (8 * len(b)))
    for start in range(0, len(a), rows):
        part = slice(start, start + rows)
        yield part, cdist(a[part], b)


def knn_radii(features: np.ndarray, k: int) -> np.ndarray:
    """Distance of every row to its k-th nearest other row, (N,). Raises ValueError unless 1 <= k < N."""
    if not 1 <= k < len(features):
        raise ValueError(f"k = {k} is not allowed with {len(features)} images: it must lie in 1..{len(features) - 1}")
    radii = np.empty(len(features))
    for part, block in _distances(features, features):
        radii[part] = np.partition(block, k, axis=1)[:, k]  # column 0 is the row itself
    return radii


def _covered(points: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> float:
    """The share of points strictly inside at least one ball."""
    inside = [(block < radii).any(axis=1) for _, block in _distances(points, centres)]
    return float(np.concatenate(inside).mean())


def precision_recall(
    generated: np.ndarray, *, real: np.ndarray, k: int = 3, real_radii: np.ndarray | None = None
) -> dict[str, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019) of feature sets (N, D) and (M, D).

    precision: share of generated points strictly inside a real point's ball, whose radius is the distance to its k-th
    nearest other real point; recall: the same with the roles exchanged. Strict: points that all coincide have radius
    0, so a generator that repeats one point has recall 0. ``real_radii``: `knn_radii(real, k)`, if at hand.
    """
    real_radii = knn_radii(real, k) if real_radii is None else real_radii
    return {
        "precision": _covered(generated, real, real_radii),
        "recall": _covered(real, generated, knn_radii(generated, k)),
    }
