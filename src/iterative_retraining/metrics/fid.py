"""Fréchet (Inception) distance (Heusel et al. 2017), and its limit for many generated points."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import stats
from scipy.linalg import blas, lapack

from iterative_retraining.metrics.metric import FeatureMetric, Value
from iterative_retraining.metrics.reference import Reference, moments
from iterative_retraining.metrics.values import Values
from iterative_retraining.seeding import generator


@dataclass(frozen=True)
class FID(FeatureMetric):
    """Fréchet (Inception) distance (Heusel et al. 2017, arXiv 1706.08500) of feature sets (N, D) and (M, D).

    fid: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means and unbiased covariances, in float64; biased upwards
    as 1/N and 1/M, so compare at equal numbers. rank: numerical rank of the generated covariance. With fewer points
    than dimensions, or after a collapse, it is deficient, which is no error; ``about`` has both ranks.
    Raises ValueError for fewer than 2 points.
    """

    name: ClassVar = "fid"
    values: ClassVar = {
        "fid": Value("FID", -1, ("noise", "collapse")),
        "rank": Value("rank of the covariance"),
    }

    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        own = moments(generated, device=reference.device)
        distance, rank, rank_real = _frechet(*own, *reference.moments)
        about = {"n_generated": len(generated), "n_real": len(reference.real)}
        return Values({"fid": distance, "rank": float(rank)}, **about, rank_generated=rank, rank_real=rank_real)


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
    reference = Reference(real, device=device)
    reference.check(generated)
    rng = generator(seed)
    sizes = np.rint(1 / np.linspace(10 / n, 1 / n, n_sizes)).astype(int)
    subsets = [generated[np.sort(rng.choice(n, size, replace=False))] for size in sizes]
    fids = [FID().measure(subset, reference)["fid"] for subset in subsets]
    line = stats.linregress(1 / sizes, fids)
    found = {"fid_infinity": float(line.intercept), "fid_infinity_standard_error": float(line.intercept_stderr)}
    return Values(found, sizes=sizes.tolist(), fids=fids, slope=float(line.slope), n_real=len(real), seed=seed)
