"""The Gaussian warm-up: a model fitted by maximum likelihood, and the exact law of its retraining (Proposition 1)."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from scipy.special import gammaln, psi

from iterative_retraining.models.family import PlainFamily
from iterative_retraining.schemes.ratio import synthetic_count
from iterative_retraining.seeding import generator, noise_by_index
from iterative_retraining.training_set import TrainingSet, to_uint8, to_unit


class Gaussian:
    """A multivariate Gaussian with the sample mean and the unbiased covariance (divisor N - 1).

    Where items have weights w, both are weighted and the divisor is sum w - sum w^2 / sum w: still unbiased for data of
    one distribution (reliability weights).
    Takes vectors (N, D) of floats, or uint8 images, which it treats as vectors of pixels in [-1, 1].
    """

    def __init__(self, mean: np.ndarray | None = None, cov: np.ndarray | None = None) -> None:
        self.mean = None if mean is None else np.asarray(mean, dtype=np.float64)
        self.cov = None if cov is None else np.asarray(cov, dtype=np.float64)
        self.item_shape = () if mean is None else self.mean.shape
        self.is_image = False

    def fit(self, data: TrainingSet, *, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> Self:
        """Sample mean and unbiased covariance. ``seed`` draws nothing: the estimate has no randomness of its own.

        Raises ValueError with fewer than two data of a weight above 0.
        """
        items, weights = data.array(), None if data.weights is None else data.item_weights(np.arange(len(data)))
        n_counted = len(items) if weights is None else np.count_nonzero(weights)
        if n_counted < 2:
            raise ValueError(f"a covariance needs at least 2 data, got {n_counted}")
        self.is_image, self.item_shape = items.dtype == np.uint8, items.shape[1:]
        x = (to_unit(items) if self.is_image else items).reshape(len(items), -1).astype(np.float64)
        self.mean = x.mean(axis=0) if weights is None else np.average(x, axis=0, weights=weights)
        self.cov = np.atleast_2d(np.cov(x, rowvar=False, aweights=weights))
        if progress is not None:
            progress(len(items), len(items))
        return self

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` items shaped and typed like the data; row i depends on ``(seed, i)`` and the parameters alone."""
        eigenvalues, vectors = np.linalg.eigh(self.cov)
        root = vectors * np.sqrt(eigenvalues.clip(min=0))
        x = self.mean + noise_by_index(seed, range(n), self.mean.shape, np.float64) @ root.T
        x = x.reshape(n, *self.item_shape)
        return to_uint8(x) if self.is_image else x

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log density in nats at ``x`` (N, D), float64 (N,). Raises ValueError if the covariance is singular."""
        try:
            factor = np.linalg.cholesky(self.cov)
        except np.linalg.LinAlgError as error:
            raise ValueError("the covariance is singular: this Gaussian has no density") from error
        z = np.linalg.solve(factor, (x - self.mean).T)
        log_det = 2 * np.log(np.diagonal(factor)).sum()
        return -0.5 * ((z**2).sum(axis=0) + log_det + self.mean.size * np.log(2 * np.pi))

    def state_bytes(self, item_shape: tuple[int, ...]) -> int:
        """The size of `state_dict` for items of ``item_shape``: mean and covariance, float64."""
        dim = int(np.prod(item_shape))
        return 8 * dim * (dim + 1)

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that `sample` needs, as arrays."""
        shape, flag = np.array(self.item_shape, dtype=np.int64), np.array([self.is_image], dtype=np.uint8)
        return {"mean": self.mean, "cov": self.cov, "item_shape": shape, "is_image": flag}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state_dict`."""
        self.mean, self.cov = state["mean"], state["cov"]
        self.item_shape, self.is_image = tuple(int(n) for n in state["item_shape"]), bool(state["is_image"][0])


GAUSSIAN_FAMILY = PlainFamily("gaussian", "Gaussian", Gaussian, has_density=True)


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
    """Means and standard deviations (generations + 1, n_chains) of retrained 1-D Gaussians, drawn from their exact law.

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
    triangle: chi(n-1-i) on the diagonal, unit Gaussians below. The exact law in O(dim^3) a step.
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
