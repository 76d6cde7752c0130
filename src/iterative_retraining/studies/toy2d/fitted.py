"""The loop in the plane without a network: eight Gaussians fitted by moments, and a sampler that is exact but for its
own steps.

Every mode is sampled around its own fitted mean with its exact score, so it comes out Gaussian, its standard deviation
multiplied by the sampler's gain, and draws from that Gaussian are draws of the sampler. The mode of a point is known.
Sample means and sums of squares are drawn from their exact distribution (Cochran), so n may be as large as one likes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from iterative_retraining.schemes.ratio import synthetic_count
from iterative_retraining.seeding import generator, stage_seed
from iterative_retraining.studies.toy2d.distributions import GaussianMixture

Gain = Callable[[np.ndarray], np.ndarray]  # of standard deviations, see `samplers.gain_by_std`
N_MEASURED = 2000
LEAST_STD = 1e-12  # a mode that is thinner is a point: its coordinates are about 1, and float64 ends at 1e-16


@dataclass(frozen=True)
class Statistics:
    """Of a set with ``count`` points in each of K modes: means (S, K, 2), and sums over both coordinates of squared
    deviations (S, K)."""

    count: int
    mean: np.ndarray
    squares: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """Unbiased variance of a round Gaussian, as a standard deviation a coordinate, (S, K)."""
        return np.sqrt(self.squares / (2 * (self.count - 1)))

    def with_more(self, other: "Statistics") -> "Statistics":
        """Of both sets together (the parallel-axis formula)."""
        if other.count == 0:
            return self
        total = self.count + other.count
        gap = ((self.mean - other.mean) ** 2).sum(axis=-1)
        squares = self.squares + other.squares + self.count * other.count / total * gap
        return Statistics(total, (self.count * self.mean + other.count * other.mean) / total, squares)


def draw_statistics(rng: np.random.Generator, mean: np.ndarray, std: np.ndarray, count: int) -> Statistics:
    """`Statistics` of ``count`` draws of N(mean, std^2 I) in every mode: exactly distributed, without the draws."""
    if count == 0:
        return Statistics(0, mean, np.zeros_like(std))
    squares = std**2 * (rng.chisquare(2 * (count - 1), std.shape) if count > 1 else 0.0)
    return Statistics(count, mean + std[..., None] / np.sqrt(count) * rng.standard_normal(mean.shape), squares)


@dataclass(frozen=True)
class FittedRun:
    """Fitted means (T + 1, S, K, 2), and standard deviations (T + 1, S, K) of what each model samples."""

    target: GaussianMixture
    mean: np.ndarray
    std: np.ndarray

    def measure(self, generation: int, *, seed: int) -> list[dict[str, float]]:
        """spread, modes and log_kl of each seed's samples of a generation, by `N_MEASURED` draws of them."""
        rng, found = generator(stage_seed(seed, generation, "measure")), []
        fresh = self.target.sample(N_MEASURED, seed=stage_seed(seed, 0, "reference"))
        entropy = _log_density(fresh, np.asarray(self.target.means), np.full(len(self.target.means), self.target.std))
        for mean, std in zip(self.mean[generation], self.std[generation], strict=True):
            k = np.arange(N_MEASURED) % len(mean)
            points = mean[k] + std[k, None] * rng.standard_normal((N_MEASURED, 2))
            kl = float((entropy - _log_density(fresh, mean, std)).mean())
            spread, modes = around_modes(points, np.asarray(self.target.means))
            found.append({"spread": spread, "modes": modes, "log_kl": float(np.log(kl)) if kl > 0 else np.nan})
        return found


def around_modes(points: np.ndarray, means: np.ndarray) -> tuple[float, float]:
    """Of points (n, 2): root mean square distance a coordinate from the nearest of ``means`` (K, 2), and the share of
    those that are nearest to at least a quarter of their fair share."""
    gaps = cdist(points, means)
    counts = np.bincount(gaps.argmin(axis=1), minlength=len(means))
    return float(np.sqrt((gaps.min(axis=1) ** 2).mean() / 2)), float((counts >= len(points) / len(means) / 4).mean())


def _log_density(x: np.ndarray, means: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Of equal round Gaussians, means (K, 2), std (K,), at x (N, 2): (N,)."""
    terms = -0.5 * (cdist(x, means) / std) ** 2 - np.log(2 * np.pi * std**2 * len(means))
    return logsumexp(terms, axis=1)


def run_fitted(
    target: GaussianMixture, gain: Gain, lam: float | None, *, n: int, n_retrain: int, seeds: range
) -> FittedRun:
    """Algorithm 1 with fitted Gaussians, n / K points a mode; ``lam`` None is fully synthetic, else the mix.

    theta_0 is fitted to n real data. Raises ValueError unless n is a multiple of the number K of modes, 2 K or more.
    """
    modes = np.asarray(target.means)
    if n % len(modes) or n < 2 * len(modes):
        raise ValueError(f"n = {n} is not allowed: a multiple of the {len(modes)} modes, twice as many or more")
    rng = generator(stage_seed(seeds.start, 0, f"fitted {len(seeds)}"))
    shape, each = (len(seeds), len(modes)), n // len(modes)
    real = draw_statistics(rng, np.broadcast_to(modes, (*shape, 2)), np.full(shape, target.std), each)
    fitted, means, stds = real, [], []
    for generation in range(n_retrain + 1):
        means.append(fitted.mean)
        stds.append(np.maximum(fitted.std * gain(fitted.std), LEAST_STD))
        if generation < n_retrain:
            count = each if lam is None else synthetic_count(lam, each)
            synthetic = draw_statistics(rng, means[-1], stds[-1], count)
            fitted = synthetic if lam is None else real.with_more(synthetic)
    return FittedRun(target, np.stack(means), np.stack(stds))


def recursion(std: float, gain: Gain, n_retrain: int, *, n: float = np.inf, n_modes: int = 1) -> np.ndarray:
    """The spread of fully synthetic samples around the true modes by recursion, without chance: (n_retrain + 1,).

    s_(t+1) = g(s_t) s_t, where a perfect score is passed on and nothing is learnt; with a finite n the squared distance
    of the fitted from the true mean grows beside it by s_t^2 / (n / K). Where the gain does not depend on s it is the
    root of the expected square, exactly. Generation t is of the samples, so s_0 = g(std) std.
    """
    spreads, drift, own = [], std**2 * n_modes / n, std
    for _ in range(n_retrain + 1):
        own = own * float(gain(np.array([own]))[0])
        spreads.append(np.sqrt(own**2 + drift))
        drift += own**2 * n_modes / n
    return np.array(spreads)
