"""Proposition 1, exactly: retrained Gaussians simulated by their sufficient statistics, without a sample.

This is the distribution of what Algorithm 1 does with the Gaussian model, not the engine; a test compares the two.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.special import gammaln, psi

from iterative_retraining.schemes.ratio import synthetic_count
from iterative_retraining.seeding import generator


def contraction(n: int) -> float:
    """The constant of Proposition 1 in one dimension, exactly: alpha(n) = sqrt(2/(n-1)) Gamma(n/2) / Gamma((n-1)/2).

    It is E[s] / sigma for the unbiased sample standard deviation s of n Gaussian data; about 1 - 1/(4n).
    Raises ValueError for n < 2.
    """
    if n < 2:
        raise ValueError(f"n = {n} is not allowed: a variance needs at least 2 data")
    return float(np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2)))


def expected_std(n: int, generation: int | np.ndarray, std0: float = 1.0) -> float | np.ndarray:
    """E[sigma_t] = alpha(n)^t sigma_0 for a 1-D Gaussian retrained on n of its own samples (Proposition 1, exact).

    ``generation`` counts refits on synthetic data, from the known start sigma_0 = ``std0``; any array shape.
    """
    return contraction(n) ** generation * std0


def log_std_drift(n: int, dim: int = 1) -> float:
    """E[log sigma_(t+1) - log sigma_t], where sigma^(2 dim) = det Sigma: derived here from Bartlett's decomposition.

    det Sigma is multiplied at each refit by independent chi-square(n-1-i) / (n-1), i = 0..dim-1. The geometric mean
    of sigma_t is exactly exp(t * drift), and so is its median up to a factor that does not grow with t.
    Raises ValueError unless n > dim (the covariance would be singular).
    """
    if n <= dim:
        raise ValueError(f"n = {n} is not allowed in dimension {dim}: the covariance is singular unless n > {dim}")
    degrees = n - 1 - np.arange(dim)
    return float((psi(degrees / 2) - np.log((n - 1) / 2)).sum() / (2 * dim))


def simulate_std(
    n: int, generations: int, n_chains: int, *, seed: int, lam: float | None = None, std0: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (generations + 1, n_chains) of retrained 1-D Gaussians, from their distribution.

    ``lam=None`` is fully synthetic from the known start N(0, std0^2). With a number, generation 0 is fitted to n real
    data, which stay, and floor(lam n) samples join them at each refit. No sample is ever drawn: the sample mean is
    N(mu, sigma^2/m) and the sum of squares sigma^2 chi-square(m-1), independent (Cochran), and two sets are pooled by
    the parallel-axis formula, so a generation costs two numbers a chain whatever n.
    """
    rng = generator(seed)
    mean, std = np.empty((generations + 1, n_chains)), np.empty((generations + 1, n_chains))
    mean[0], std[0] = 0.0, std0
    if lam is not None:
        real_mean, real_squares = _draw_statistics(rng, mean[0], std[0], n)
        mean[0], std[0] = real_mean, np.sqrt(real_squares / (n - 1))
    n_synthetic = n if lam is None else synthetic_count(lam, n)
    for t in range(generations):
        if n_synthetic == 0:
            mean[t + 1], std[t + 1] = mean[0], std[0]
            continue
        new_mean, squares = _draw_statistics(rng, mean[t], std[t], n_synthetic)
        total = n_synthetic
        if lam is not None:
            total = n + n_synthetic
            squares += real_squares + n * n_synthetic / total * (real_mean - new_mean) ** 2
            new_mean = (n * real_mean + n_synthetic * new_mean) / total
        mean[t + 1], std[t + 1] = new_mean, np.sqrt(squares / (total - 1))
    return mean, std


def _draw_statistics(
    rng: np.random.Generator, mean: np.ndarray, std: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sum of squared deviations of n draws of N(mean, std^2), one pair a chain."""
    squares = std**2 * rng.chisquare(n - 1, mean.shape) if n > 1 else np.zeros_like(std)
    return mean + std / np.sqrt(n) * rng.standard_normal(mean.shape), squares


def simulate_cov_factors(n: int, keep: Sequence[int], n_chains: int, dim: int, *, seed: int) -> np.ndarray:
    """Cholesky factors (len(keep), n_chains, dim, dim) of fully synthetic covariances at the generations ``keep``.

    From Sigma_0 = I. (n-1) Sigma_(t+1) is Wishart(Sigma_t, n-1), so L_(t+1) = L_t T / sqrt(n-1) with T Bartlett's
    triangle: chi(n-1-i) on the diagonal, unit Gaussians below. The exact distribution in O(dim^3) a step.
    Raises ValueError unless n > dim and ``keep`` increases from 0 or above.
    """
    if n <= dim:
        raise ValueError(f"n = {n} is not allowed in dimension {dim}: the covariance is singular unless n > {dim}")
    if len(keep) == 0 or keep[0] < 0 or any(b <= a for a, b in pairwise(keep)):
        raise ValueError(f"keep = {list(keep)} is not allowed: generations must increase from 0 or above")
    rng, diagonal = generator(seed), np.arange(dim)
    factor, kept = np.broadcast_to(np.eye(dim), (n_chains, dim, dim)), []
    for t in range(keep[-1] + 1):
        if t in keep:
            kept.append(factor)
        triangle = np.tril(rng.standard_normal((n_chains, dim, dim)), -1)
        triangle[:, diagonal, diagonal] = np.sqrt(rng.chisquare(n - 1 - diagonal, (n_chains, dim)))
        factor = factor @ triangle / np.sqrt(n - 1)
    return np.stack(kept)
