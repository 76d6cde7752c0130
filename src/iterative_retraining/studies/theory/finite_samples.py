"""Retraining with finitely many data where everything is exact: the mean of a Gaussian whose variance is known.

A simulation of the estimates' distribution by sufficient statistics, not a run of `retrain`, whose estimates have the
same distribution (tested): no sample is drawn but where a scheme draws again from its own samples.
Errors are in units of sigma^2 / n, the variance of the maximum-likelihood estimate from the real data alone. All closed
forms are derived in the chapter on finite samples.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

from iterative_retraining.schemes.ratio import check_lam, synthetic_count
from iterative_retraining.seeding import generator

SCHEMES = ("fully_synthetic", "mix", "fresh", "accumulate", "accumulate_subsample")


def optimal_weight(lam: float = 1.0) -> float:
    """The weight on n fresh real data, against lam n synthetic ones, of the least stationary variance; which it equals.

    The root of w^2 = (1 - w) / lam (derived): 1 over the golden ratio at lam = 1 (He, Xu and Cheng 2025).
    Raises ValueError for lam < 0.
    """
    _check(lam, 1.0)
    return (math.sqrt(1 + 4 * lam) - 1) / (2 * lam) if lam else 1.0


def stationary_excess(lam: float, fraction: float = 1.0) -> float:
    """The stationary variance around the real data's estimate: f lam / (2 (1 + lam) - f), in units of sigma^2 / n.

    fraction: how far a retraining goes from the old estimate to the new maximum, 0 < f <= 1; at 1, lam / (1 + 2 lam).
    Raises ValueError for lam < 0 or another fraction.
    """
    _check(lam, fraction)
    return fraction * lam / (2 * (1 + lam) - fraction)


def contraction_rate(lam: float, fraction: float = 1.0) -> float:
    """The factor of a retraining on the expected distance to the real data's estimate: 1 - f / (1 + lam)."""
    _check(lam, fraction)
    return 1 - fraction / (1 + lam)


def _check(lam: float, fraction: float, weight: float | None = None) -> None:
    if weight is not None and not 0 < weight <= 1:
        raise ValueError(f"weight = {weight} is not allowed: the share of the real data's mean, above 0 and at most 1")
    check_lam(lam)
    if not 0 < fraction <= 1:
        raise ValueError(
            f"fraction = {fraction} is not allowed: a retraining goes more than 0 and at most all of the way"
        )


def mean_variance(
    scheme: str,
    generations: int,
    *,
    n: int | None = None,
    lam: float = 1.0,
    fraction: float = 1.0,
    weight: float | None = None,
) -> np.ndarray:
    """n Var(mu_t) / sigma^2 for t = 0..generations, exactly, (generations + 1,); see `simulate_means` for the schemes.

    ``n`` matters to accumulate_subsample alone. Raises ValueError for an unknown scheme.
    """
    _check(lam, fraction, weight)
    t = np.arange(generations + 1)
    if scheme == "fully_synthetic":
        return 1.0 + t
    if scheme == "mix":
        return 1 + stationary_excess(lam, fraction) * (1 - contraction_rate(lam, fraction) ** (2 * t))
    if scheme == "accumulate":
        return np.cumsum(1 / (1.0 + t) ** 2)
    if scheme == "fresh":
        real = 1 / (1 + lam) if weight is None else weight
        own = 1 - real
        limit = (real**2 + (own**2 / lam if lam else 0.0)) / (1 - own**2)
        return limit + (1 - limit) * own ** (2 * t)
    if scheme == "accumulate_subsample" and n:
        return _subsampled_variance(n, generations)
    raise ValueError(f"unknown scheme {scheme!r}, or one that needs n; allowed: {', '.join(SCHEMES)}")


def _subsampled_variance(n: int, generations: int) -> np.ndarray:
    """The recursion of the pool's mean and sum of squares (derived in the chapter on the neighbours)."""
    pool, model, squares, path = 1 / n, 1 / n, float(n), [1.0]  # E M^2, E mu^2, E sum x^2; variance 1
    for t in range(1, generations + 1):
        size = n * (t + 1)
        # The old pool's mean M and n new samples of mean mu + noise; E M mu = E M^2, as mu is drawn from the old pool.
        pool, squares = (t * t * pool + model + 2 * t * pool + 1 / n) / (t + 1) ** 2, squares + n * (1 + model)
        spread = (squares - size * pool) / (size - 1)
        model = pool + spread / n * (1 - n / size)
        path.append(n * model)
    return np.array(path)


def simulate_means(
    scheme: str,
    n: int,
    generations: int,
    n_chains: int,
    *,
    seed: int,
    lam: float = 1.0,
    fraction: float = 1.0,
    weight: float | None = None,
) -> np.ndarray:
    """sqrt(n) (mu_t - mu) / sigma of retrained Gaussian means, (generations + 1, n_chains).

    Generation 0 is the mean of n real data. Then, at every retraining, with samples of the generation before:
    fully_synthetic: n of them alone; mix: the real data and floor(lam n) of them, of which only ``fraction`` of the way
    to the new mean is gone; fresh: n *new* real data, with ``weight`` (their share of the data, if None), and
    floor(lam n) of them; accumulate: the real data and n samples of each generation so far; accumulate_subsample: n
    drawn without replacement from that pool.
    Raises ValueError for an unknown scheme.
    """
    _check(lam, fraction, weight)
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}; allowed: {', '.join(SCHEMES)}")
    rng = generator(seed)
    if scheme == "accumulate_subsample":
        path = _subsampled(rng, n, generations, n_chains)
    else:
        m = synthetic_count(lam, n)
        real_share = n / (n + m) if weight is None else weight
        path = _by_sufficient_statistics(rng, scheme, n, m, generations, n_chains, fraction, real_share)
    return np.stack(list(path)) * math.sqrt(n)


def _by_sufficient_statistics(
    rng: np.random.Generator,
    scheme: str,
    n: int,
    m: int,
    generations: int,
    n_chains: int,
    fraction: float,
    real_share: float,
) -> Iterator[np.ndarray]:
    """Means by generation. A mean of k samples of N(mu, 1) is mu + N(0, 1/k): no sample is ever drawn."""

    def noise(count: int) -> np.ndarray:
        return rng.standard_normal(n_chains) / math.sqrt(count)

    mu = real = noise(n)
    yield mu
    for t in range(generations):
        if scheme == "fully_synthetic":
            mu = mu + noise(n)
        elif scheme == "accumulate":
            mu = mu + noise(n) / (t + 2)  # the pool's mean is mu itself; n of (t + 2) n data are new
        else:
            real = noise(n) if scheme == "fresh" else real
            share = real_share if scheme == "fresh" else n / (n + m)
            target = share * real + (1 - share) * (mu + noise(m)) if m else real
            mu = mu + (fraction if scheme == "mix" else 1.0) * (target - mu)
        yield mu


def _subsampled(rng: np.random.Generator, n: int, generations: int, n_chains: int) -> Iterator[np.ndarray]:
    """Means by generation, with every sample kept: which of them are drawn again is not decided by their mean."""
    pool = rng.standard_normal((n_chains, n))
    mu = pool.mean(axis=1)
    yield mu
    for _ in range(generations):
        pool = np.concatenate([pool, mu[:, None] + rng.standard_normal((n_chains, n))], axis=1)
        picked = rng.permuted(np.broadcast_to(np.arange(pool.shape[1]), pool.shape), axis=1)[:, :n]
        mu = np.take_along_axis(pool, picked, axis=1).mean(axis=1)
        yield mu


def seeds_needed(lam: float, other: float = 0.0, *, power: float = 0.8, level: float = 0.05) -> float:
    """How many independent runs of each arm tell their stationary variances apart, by a two-sided test of their logs.

    The log of a sample variance has the variance 2 / (runs - 1), so runs = 1 + 4 (z_(1-level/2) + z_power)^2 / gap^2.
    Raises ValueError if both lam are the same.
    """
    gap = math.log1p(stationary_excess(lam)) - math.log1p(stationary_excess(other))
    if gap == 0:
        raise ValueError(f"lam = {lam} in both arms: there is nothing to tell apart")
    z = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power)
    return 1 + 4 * (z / gap) ** 2
