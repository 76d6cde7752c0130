"""The exact simulations of the chapters are `retrain` with the Gaussian and the registered schemes, in distribution.

`simulate_means` supposes a known variance, so here the Gaussian is told it after every fit. The coordinates of one run
are chains of their own, but those of accumulate_subsample share what is drawn: standard errors are over runs.
"""

import numpy as np
import pytest
from scipy import stats

from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.retrain import retrain
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.schemes import build_scheme
from iterative_retraining.studies.theory.finite_samples import mean_variance, simulate_means

N, STEPS, RUNS, COORDINATES = 12, 4, 500, 10
ARMS = {  # name, lam, options
    "fully_synthetic": (None, {}),
    "mix": (0.5, {}),
    "accumulate": (None, {}),
    "accumulate_subsample": (None, {}),
    "fresh": (0.5, {"n_blocks": STEPS + 1}),
}


class KnownVariance(Gaussian):
    """A Gaussian whose covariance is the identity: only its mean is fitted."""

    def fit(self, data, *, seed=0, progress=None):
        super().fit(data, seed=seed, progress=progress)
        self.cov = np.eye(len(self.mean))
        return self


def chains(model_of, scheme, n_real):
    """Means and variances of every generation, (STEPS + 1, RUNS, COORDINATES), the truth being N(0, I)."""
    means, variances = (np.empty((STEPS + 1, RUNS, COORDINATES)) for _ in range(2))
    for run in range(RUNS):
        real = np.random.default_rng([run, n_real]).standard_normal((n_real, COORDINATES))
        model = model_of()
        for record in retrain(model, real, scheme, [], n_retrain=STEPS, seed=run, run=MemoryRun()):
            means[record.generation, run] = model.mean
            variances[record.generation, run] = np.diagonal(model.cov)
    return means, variances


def assert_means(values, expected):
    """Means over runs and coordinates of values (T, RUNS, COORDINATES) within 4 standard errors, over runs."""
    by_run = values.mean(axis=2)
    errors = by_run.std(axis=1, ddof=1) / np.sqrt(RUNS)
    np.testing.assert_array_less(np.abs(by_run.mean(axis=1) - expected), 4 * errors + 1e-12)


@pytest.mark.parametrize("name", ARMS)
def test_simulated_means_are_those_of_algorithm_1(name):
    lam, options = ARMS[name]
    scheme = build_scheme(name, lam, options)
    n_real = N * options.get("n_blocks", 1)
    means = np.sqrt(N) * chains(KnownVariance, scheme, n_real)[0]
    of_lam = {} if lam is None else {"lam": lam}
    assert_means(means, 0)
    assert_means(means**2, mean_variance(name, STEPS, n=N, **of_lam))
    simulated = simulate_means(name, N, STEPS, 50_000, seed=1, **of_lam)
    for t in (1, STEPS):
        assert stats.ks_2samp(means[t, :, 0], simulated[t]).pvalue > 1e-3
    for t in range(STEPS):  # not only each generation, but one chain
        assert_means(means[t] * means[[STEPS]], np.mean(simulated[t] * simulated[STEPS]))


def test_the_weighted_mean_has_the_variance_derived_here():
    """Given the real mean r, mu_t - r is autoregressive with factor a = 1 - w and noise of variance a^2 / (lam n)."""
    lam, w = 0.5, 0.618
    t, a = np.arange(STEPS + 1), 1 - w
    means = np.sqrt(N) * chains(KnownVariance, build_scheme("weighted", lam, {"real_weight": w}), N)[0]
    assert_means(means, 0)
    assert_means(means**2, 1 + a**2 / lam * (1 - a ** (2 * t)) / (1 - a**2))


def test_with_a_fitted_variance_the_known_one_is_exact_for_fully_synthetic_and_nearly_for_accumulate():
    """Fully synthetic: the fitted variance is a martingale, so Var mu_t is as with a known one. Accumulate (derived):
    E sigma_(t+1)^2 = E sigma_t^2 (1 - n / (N (N - 1))) with N = (t + 2) n data, and Var mu_t sums sigma_t^2 noise."""
    means, variances = chains(Gaussian, build_scheme("fully_synthetic"), N)
    assert_means(variances, 1)
    assert_means(N * means**2, mean_variance("fully_synthetic", STEPS))

    sizes = N * (np.arange(STEPS) + 2)
    expected = np.concatenate([[1], np.cumprod(1 - N / (sizes * (sizes - 1)))])
    means, variances = chains(Gaussian, build_scheme("accumulate"), N)
    assert_means(variances, expected)
    steps = expected[:-1] / (np.arange(STEPS) + 2) ** 2
    assert_means(N * means**2, 1 + np.concatenate([[0], np.cumsum(steps)]))
