"""Retraining a Gaussian on samples that were filtered or chosen: moments, fixed points and chains, exactly.

One dimension, maximum likelihood. Maps and fixed points are of infinitely many samples, chains of finitely many, from
their exact distribution and not from the engine; tests compare them with `retrain`.

Filter: a sample x is kept with a probability in proportion to w(x) = exp(-(x - centre)^2 / (2 width^2)), so what is
kept has the density p w, up to a constant: a Gaussian again.
Choice: of two samples, x is kept with probability 1 / (1 + exp(-beta (x - y))): the K-choice model of Ferbach et al.
2024 (arXiv 2407.09499) for K = 2 and the reward r(x) = beta x.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from iterative_retraining.seeding import generator
from iterative_retraining.studies.theory.gaussian_chains import _draw_statistics

Number = float | np.ndarray
NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)
REACH = 12.0  # standard deviations of the quadrature


def filtered(mean: Number, variance: Number, width: float, centre: float = 0.0) -> tuple[Number, Number]:
    """Mean and variance of the density in proportion to N(mean, variance) w: a product of Gaussians."""
    share = variance / (variance + width**2)
    return mean + share * (centre - mean), variance * (1 - share)


def mixed(
    mean: Number, variance: Number, lam: float, real_mean: float = 0.0, real_variance: float = 1.0
) -> tuple[Number, Number]:
    """Mean and variance of 1 part of real data and ``lam`` parts of samples with these moments."""
    share, gap = lam / (1 + lam), mean - real_mean
    return real_mean + share * gap, (1 - share) * real_variance + share * variance + share * (1 - share) * gap**2


def moments_by_generation(
    kept: Callable[[float, float], tuple[float, float]], generations: int, lam: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (generations + 1,) of a Gaussian that starts at the real N(0, 1) and is retrained on what
    ``kept`` makes of its own moments, alone (None) or mixed with ``lam`` : 1 real data; infinitely many of both."""
    moments = [(0.0, 1.0)]
    for _ in range(generations):
        chosen_moments = kept(*moments[-1])
        moments.append(chosen_moments if lam is None else mixed(*chosen_moments, lam))
    means, variances = np.array(moments).T
    return means, variances


def filtered_variance(width: float, generation: Number, variance0: float = 1.0) -> Number:
    """Variance after ``generation`` retrainings on filtered samples alone: 1 / (1 / variance0 + generation / width^2).

    The precision grows by that of w every time, so the model collapses to the centre, as width^2 / t.
    """
    return 1 / (1 / variance0 + np.asarray(generation) / width**2)


def filtered_fixed_point(
    lam: float, width: float, centre: float = 0.0, real_variance: float = 1.0
) -> tuple[float, float]:
    """Mean and variance of the fixed point of the mix with filtered samples; real data are N(0, real_variance).

    With the centre at 0 the mean is 0, and v solves (1 + lam) v^2 + (width^2 - real_variance) v - real_variance width^2
    = 0. Else, given v, the mean is lam centre v / ((1 + lam) (v + width^2) - lam width^2), and v the root of one
    equation. Raises ValueError for a width or variance that is not above 0, or a lam below 0.
    """
    w, r = width**2, real_variance
    if not (width > 0 and r > 0 and lam >= 0):
        raise ValueError(f"width = {width}, real_variance = {r}, lam = {lam}: both first above 0, lam not below")
    if centre == 0:
        return 0.0, float((r - w + np.sqrt((w - r) ** 2 + 4 * (1 + lam) * r * w)) / (2 * (1 + lam)))

    def mean_of(v: float) -> float:
        return lam * centre * v / ((1 + lam) * (v + w) - lam * w)

    def gap(v: float) -> float:
        return mixed(*filtered(mean_of(v), v, width, centre), lam, 0.0, r)[1] - v

    v = float(brentq(gap, 1e-12 * r, 4 * (r + centre**2 + w), xtol=1e-15, rtol=1e-14))
    return mean_of(v), v


def filtered_rate(lam: float, width: float, real_variance: float = 1.0) -> float:
    """The factor by which a small gap to the fixed point with centre 0 shrinks: lam / (1 + lam) (width^2 / (v +
    width^2))^2 of the variance, and without the square of the mean; the larger, that of the mean, is returned."""
    _, v = filtered_fixed_point(lam, width, real_variance=real_variance)
    return lam / (1 + lam) * width**2 / (v + width**2)


def choice_gain(strength: Number) -> Number:
    """g(s) = E[Z tanh(s Z / sqrt(2))] / sqrt(2), Z unit Gaussian: how far the mean of the chosen lies above that of
    all, in standard deviations, for s = beta times the standard deviation.

    Of x and y the mean and the difference d are independent; the chosen is the mean plus half of d, or less it. Its
    mean is E[d tanh(beta d / 2)] / 2 above, with d of variance 2 sigma^2. Rises from s / 2 to 1 / sqrt(pi).
    """
    z = REACH * (NODES + 1) / 2  # of an even function, so that the corner at 0 of a strong one is at the end
    density = WEIGHTS * REACH * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return (density * z * np.tanh(np.multiply.outer(strength, z) / np.sqrt(2))).sum(axis=-1) / np.sqrt(2)


def chosen(mean: Number, variance: Number, beta: float) -> tuple[Number, Number]:
    """Mean and variance of what is chosen of pairs of N(mean, variance): mean + shift, variance - shift^2, exactly.

    The squares add up to those of all: the chosen is the mean of the pair plus or less half of d, whatever the choice.
    """
    std = np.sqrt(variance)
    shift = std * choice_gain(beta * std)
    return mean + shift, variance - shift**2


def chosen_fixed_point(lam: float, beta: float, real_variance: float = 1.0) -> tuple[float, float]:
    """Mean and variance of the fixed point of the mix with chosen samples; real data are N(0, real_variance).

    v = real_variance + lam^2 shift(v)^2 and the mean is lam shift(v): curation does not narrow the mix, it widens it.
    There is one for every beta if lam < sqrt(pi). From there on a strong preference has none, and the model runs off:
    then inf, inf.
    """
    if lam == 0 or beta == 0:
        return 0.0, real_variance

    def gap(log_v: Number) -> Number:  # below 0 at the real variance
        v = np.exp(log_v)
        return v * (1 - (lam * choice_gain(beta * np.sqrt(v))) ** 2) - real_variance

    grid = np.log(real_variance) + np.linspace(0, 60, 3001)
    above = np.flatnonzero(gap(grid) >= 0)
    if len(above) == 0:
        return np.inf, np.inf
    v = float(np.exp(brentq(gap, grid[above[0] - 1], grid[above[0]], xtol=1e-14)))
    return float(lam * np.sqrt(v) * choice_gain(beta * np.sqrt(v))), v


def simulate_filtered(
    n: int,
    generations: int,
    n_chains: int,
    *,
    seed: int,
    width: float,
    centre: float = 0.0,
    lam: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances (generations + 1, n_chains) of Gaussians retrained on filtered samples of themselves.

    theta_0 is fitted to n data of N(0, 1), which stay with a number ``lam``: then lam n filtered samples join them;
    None: n filtered samples alone. Variances divide by the number less 1. What is kept of infinitely many candidates is
    a draw of a Gaussian, so the sufficient statistics are drawn and no sample is.
    """
    rng, zeros = generator(seed), np.zeros(n_chains)
    real_mean, real_squares = _draw_statistics(rng, zeros, zeros + 1.0, n)
    mean, variance = np.empty((2, generations + 1, n_chains))
    mean[0], variance[0] = real_mean, real_squares / (n - 1)
    n_synthetic = n if lam is None else round(lam * n)
    for t in range(generations):
        kept_mean, kept_variance = filtered(mean[t], variance[t], width, centre)
        new_mean, squares = _draw_statistics(rng, kept_mean, np.sqrt(kept_variance), n_synthetic)
        total = n_synthetic
        if lam is not None:
            total = n + n_synthetic
            squares += real_squares + n * n_synthetic / total * (real_mean - new_mean) ** 2
            new_mean = (n * real_mean + n_synthetic * new_mean) / total
        mean[t + 1], variance[t + 1] = new_mean, squares / (total - 1)
    return mean, variance
