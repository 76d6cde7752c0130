"""Distances between two sets of features (N, D): Frechet distance and its limit, kernel distance, class entropy.

The metrics of nearest neighbours and of likelihood live in modules of their own and can be imported from here too.
"""

import numpy as np
import torch
from scipy import stats
from scipy.linalg import blas, lapack

from iterative_retraining.metrics.likelihood import fld
from iterative_retraining.metrics.neighbours import density_coverage, knn_radii, memorisation, precision_recall
from iterative_retraining.metrics.pairs import Rows, check_features, mean, tiles
from iterative_retraining.metrics.values import Values
from iterative_retraining.seeding import generator

__all__ = [
    "class_entropy",
    "density_coverage",
    "fid",
    "fid_infinity",
    "fld",
    "frechet_distance",
    "kid",
    "knn_radii",
    "memorisation",
    "moments",
    "precision_recall",
]


def moments(features: np.ndarray, *, device: str = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), float64.

    Raises ValueError for fewer than 2 rows or a value that is not finite.
    """
    check_features(features=features)
    if len(features) < 2:
        raise ValueError(f"a covariance needs at least 2 images, got {len(features)}")
    centre = mean(features)
    rows, dim = Rows(features, centre, device), features.shape[1]
    scatter = torch.zeros((dim, dim), dtype=torch.float64, device=device)
    for part in tiles(len(features)):
        block = rows[part]
        scatter.addmm_(block.T, block)
    cov = scatter.cpu().numpy() / (len(features) - 1)
    constant = np.diag(cov) <= (1e-13 * centre) ** 2  # all that rounding of the mean leaves
    cov[constant], cov[:, constant] = 0.0, 0.0
    return centre, cov


def covariance_factor(cov: np.ndarray) -> np.ndarray:
    """F (D, r) with F F^T = cov, by pivoted Cholesky; r is the numerical rank (LAPACK's tolerance, D eps max diag)."""
    lower, order, rank = _cholesky(cov)
    factor = np.empty((len(cov), rank))
    factor[order] = np.tril(lower)[:, :rank]
    return factor


def _cholesky(cov: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """L (D, D), whose lower triangle counts and is 0 beyond the rank, order p (D,), and rank: cov[p][:, p] = L L^T."""
    lower, pivots, rank, _ = lapack.dpstrf(cov.T, lower=1)  # symmetric: transposed, LAPACK need not reorder it
    lower[:, rank:] = 0.0
    return lower, pivots - 1, rank


def frechet_distance(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    """The squared 2-Wasserstein distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    means (D,), symmetric covariances (D, D), of any rank. With S1 = F F^T and S2 = G G^T, tr (S1 S2)^(1/2) is the sum
    of the singular values of F^T G: no complex numbers, no matrix square root, whatever the ranks.
    Raises ValueError if shapes disagree, a value is not finite or a covariance is not symmetric.
    """
    return _frechet(*(np.asarray(a, dtype=np.float64) for a in (mean1, cov1, mean2, cov2)))[0]


def _frechet(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> tuple[float, int, int]:
    """The distance and the two ranks."""
    dim = mean1.size
    if mean1.shape != (dim,) or mean2.shape != (dim,) or cov1.shape != (dim, dim) or cov2.shape != (dim, dim):
        raise ValueError(f"shapes disagree: means {mean1.shape}, {mean2.shape}, covariances {cov1.shape}, {cov2.shape}")
    if not all(np.isfinite(a).all() for a in (mean1, mean2, cov1, cov2)):
        raise ValueError("a mean or covariance is not finite")
    for cov in (cov1, cov2):
        if np.abs(cov - cov.T).max(initial=0) > 1e-8 * np.abs(cov).max(initial=0):
            raise ValueError("a covariance is not symmetric")
    lower1, order1, rank1 = _cholesky(cov1)
    factor2 = covariance_factor(cov2)
    rank2 = factor2.shape[1]
    cross = blas.dtrmm(1.0, lower1, factor2[order1], trans_a=1, lower=1, overwrite_b=1)[:rank1]  # F^T G
    gram = cross @ cross.T if rank1 <= rank2 else cross.T @ cross
    overlap = np.sqrt(np.linalg.eigvalsh(gram).clip(min=0)).sum()
    distance = ((mean1 - mean2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2 * overlap
    return float(max(distance, 0.0)), rank1, rank2


def fid(
    generated: np.ndarray,
    *,
    real: np.ndarray,
    real_moments: tuple[np.ndarray, np.ndarray] | None = None,
    device: str = "cpu",
) -> Values:
    """Frechet (Inception) distance (Heusel et al. 2017) of feature sets (N, D) and (M, D), biased upwards as 1/N.

    ``about`` has the counts and the numerical ranks of both covariances: with fewer points than dimensions, or after a
    collapse, they are deficient, which is no error. ``real_moments``: `moments(real)`, if at hand.
    """
    check_features(generated=generated, real=real)
    mean2, cov2 = moments(real, device=device) if real_moments is None else real_moments
    distance, rank, rank_real = _frechet(*moments(generated, device=device), mean2, cov2)
    counts = {"n_generated": len(generated), "n_real": len(real)}
    return Values({"fid": distance}, **counts, rank_generated=rank, rank_real=rank_real)


def fid_infinity(
    generated: np.ndarray, *, real: np.ndarray, n_sizes: int = 10, seed: int = 0, device: str = "cpu"
) -> Values:
    """FID extrapolated to infinitely many generated points (Chong and Forsyth 2020): intercept of FID against 1/N.

    FID of ``n_sizes`` random subsets of sizes from N/10 to N, equally spaced in 1/N; real (M, D) stays whole, so its
    own bias stays. fid_infinity_standard_error is that of the line alone: the subsets overlap. ``about`` has the points
    of the line. Raises ValueError unless N >= 20 and n_sizes >= 3.
    """
    n = len(generated)
    if n < 20 or n_sizes < 3:
        raise ValueError(f"{n} generated images and n_sizes = {n_sizes} are too few: at least 20 and 3")
    rng, real_moments = generator(seed), moments(real, device=device)
    sizes = np.rint(1 / np.linspace(10 / n, 1 / n, n_sizes)).astype(int)
    subsets = [generated[np.sort(rng.choice(n, size, replace=False))] for size in sizes]
    fids = [fid(subset, real=real, real_moments=real_moments, device=device)["fid"] for subset in subsets]
    line = stats.linregress(1 / sizes, fids)
    values = {"fid_infinity": float(line.intercept), "fid_infinity_standard_error": float(line.intercept_stderr)}
    return Values(values, sizes=sizes.tolist(), fids=fids, slope=float(line.slope), n_real=len(real), seed=seed)


def kid(generated: np.ndarray, *, real: np.ndarray, n_groups: int = 20, seed: int = 0, device: str = "cpu") -> Values:
    """Kernel distance (Binkowski et al. 2018): unbiased squared MMD of features (N, D), (M, D), over all pairs.

    Kernel (x.y / D + 1)^3. kid may be negative. kid_standard_error: delete-a-group jackknife over ``n_groups`` random
    groups of both sets. Raises ValueError for fewer than 4 images in a set.
    """
    check_features(generated=generated, real=real)
    n, m = len(generated), len(real)
    if min(n, m) < 4:
        raise ValueError(f"kid needs at least 4 images in each set, got {n} generated and {m} real")
    groups = min(n_groups, min(n, m) // 2)
    rng = generator(seed)
    member1, member2 = (np.eye(groups)[rng.permutation(np.arange(count) % groups)] for count in (n, m))
    a, b = (Rows(x, device=device) for x in (generated, real))
    sums = [_kernel_sums(a, member1), _kernel_sums(b, member2), _kernel_sums(a, member1, b, member2)]
    whole = _mmd(*(s.sum() for s in sums), n, m)
    without = [s.sum() - s.sum(axis=0) - s.sum(axis=1) + np.diag(s) for s in sums]
    left_out = _mmd(*without, n - member1.sum(axis=0), m - member2.sum(axis=0))
    error = np.sqrt((groups - 1) * left_out.var())
    values = {"kid": float(whole), "kid_standard_error": float(error)}
    return Values(values, n_generated=n, n_real=m, kernel="(x.y / D + 1)^3", n_groups=groups)


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


def class_entropy(classes: np.ndarray, n_classes: int) -> Values:
    """Entropy, in nats, of the histogram of predicted classes (N,), integers below ``n_classes``; at most ln n_classes.

    Raises ValueError for a class outside 0..n_classes-1 or no images.
    """
    classes = np.asarray(classes)
    if classes.ndim != 1 or len(classes) == 0 or classes.min() < 0 or classes.max() >= n_classes:
        raise ValueError(f"classes must be (N,) integers in 0..{n_classes - 1}, N >= 1, got shape {classes.shape}")
    histogram = np.bincount(classes, minlength=n_classes)
    return Values({"class_entropy": float(stats.entropy(histogram))}, n_classes=n_classes, n_generated=len(classes))
