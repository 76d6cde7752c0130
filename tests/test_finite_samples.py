import matplotlib.pyplot as plt
import numpy as np
import pytest

from iterative_retraining.studies import plots
from iterative_retraining.studies.theory.finite_samples import (
    SCHEMES,
    contraction_rate,
    mean_variance,
    optimal_weight,
    seeds_needed,
    simulate_means,
    stationary_excess,
)

CHAINS = 40_000


def assert_variances(path, expected):
    """Sample variances within 4 standard errors of the exact ones."""
    found = (path**2).mean(axis=1)
    np.testing.assert_array_less(np.abs(found / expected - 1), 4 * np.sqrt(2 / path.shape[1]))


@pytest.mark.parametrize("scheme", SCHEMES[:4])
@pytest.mark.parametrize("lam", [0.1, 1.0, 5.0])
def test_simulated_variances_are_the_exact_ones(scheme, lam):
    path = simulate_means(scheme, 200, 12, CHAINS, seed=3, lam=lam)
    assert path.shape == (13, CHAINS)
    assert_variances(path, mean_variance(scheme, 12, lam=lam))


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_a_retraining_that_stops_early_contracts_less_and_fluctuates_less(fraction):
    path = simulate_means("mix", 100, 60, CHAINS, seed=4, lam=1.0, fraction=fraction)
    assert_variances(path, mean_variance("mix", 60, lam=1.0, fraction=fraction))
    assert stationary_excess(1.0, fraction) < stationary_excess(1.0)
    assert contraction_rate(1.0, fraction) > contraction_rate(1.0)
    np.testing.assert_allclose(mean_variance("mix", 2000, fraction=fraction)[-1], 1 + stationary_excess(1.0, fraction))


def test_the_same_by_drawing_every_sample():
    rng, n, m = np.random.default_rng(0), 20, 10
    real = rng.standard_normal((5000, n))
    mu = real.mean(axis=1)
    for _ in range(8):
        synthetic = mu[:, None] + rng.standard_normal((5000, m))
        mu = np.concatenate([real, synthetic], axis=1).mean(axis=1)
    assert_variances(mu[None] * np.sqrt(n), mean_variance("mix", 8, lam=0.5)[-1:])


def test_known_limits():
    np.testing.assert_allclose(stationary_excess(1.0), 1 / 3)
    assert max(stationary_excess(lam) for lam in np.geomspace(1e-3, 1e6, 50)) < 0.5
    np.testing.assert_allclose(mean_variance("accumulate", 100_000)[-1], np.pi**2 / 6, rtol=1e-4)
    np.testing.assert_allclose(mean_variance("fresh", 500, lam=2.0)[-1], 3 / 5)
    np.testing.assert_allclose(mean_variance("fully_synthetic", 3), [1, 2, 3, 4])


def test_subsampling_the_pool_follows_its_recursion():
    path = simulate_means("accumulate_subsample", 20, 12, 10_000, seed=5)
    assert_variances(path, mean_variance("accumulate_subsample", 12, n=20))
    late = mean_variance("accumulate_subsample", 100, n=20)[-1]
    assert mean_variance("accumulate", 100)[-1] < late < 0.1 * mean_variance("fully_synthetic", 100)[-1]


@pytest.mark.parametrize("lam", [0.5, 1.0, 4.0])
def test_the_best_weight_has_the_least_variance_which_it_equals(lam):
    best = optimal_weight(lam)
    limits = {w: mean_variance("fresh", 2000, lam=lam, weight=w)[-1] for w in (best - 0.01, best, best + 0.01)}
    assert min(limits, key=limits.get) == best
    np.testing.assert_allclose(limits[best], best, rtol=1e-10)
    path = simulate_means("fresh", 100, 10, CHAINS, seed=7, lam=lam, weight=best)
    assert_variances(path, mean_variance("fresh", 10, lam=lam, weight=best))
    figure = plots.variance_by_weight(np.array([0.5, 1.0]), {"a": (np.ones(2), [1.0, 1.0], best)})
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == f"a: best {best:.3f}"
    plt.close(figure)


def test_the_best_weight_at_equal_numbers_is_the_golden_ratio():
    np.testing.assert_allclose(optimal_weight(1.0), 2 / (1 + np.sqrt(5)))
    assert optimal_weight(0.0) == 1.0
    np.testing.assert_allclose(mean_variance("fresh", 5, lam=0.0), 1.0)


def test_the_power_calculation_has_the_power_it_says():
    runs, repetitions = round(seeds_needed(5.0, power=0.8)), 2000
    rng = np.random.default_rng(6)
    control = np.log(rng.chisquare(runs - 1, repetitions))
    arm = np.log(rng.chisquare(runs - 1, repetitions) * (1 + stationary_excess(5.0)))
    detected = np.abs(arm - control) > 1.96 * np.sqrt(4 / (runs - 1))
    assert abs(detected.mean() - 0.8) < 0.05
    assert seeds_needed(0.001) > 1e7


def test_figures_of_variances():
    figure = plots.variances_over_time({"a": np.ones(3), "b": np.ones(3)}, {"a": np.ones(3)}, {"a": 1.0}, log=True)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["a", "b"]
    figure = plots.variance_by_lam(np.ones(2), np.ones(2), {"c": (np.ones(1), np.ones(1), np.ones(1))})
    assert figure.axes[0].get_xscale() == "log"
    plt.close("all")


def test_bad_input_is_refused_with_the_number():
    with pytest.raises(ValueError, match="lam = -1 is not allowed"):
        stationary_excess(-1)
    with pytest.raises(ValueError, match="fraction = 0 is not allowed"):
        mean_variance("mix", 3, fraction=0)
    with pytest.raises(ValueError, match="unknown scheme 'replace'; allowed: fully_synthetic"):
        simulate_means("replace", 10, 2, 5, seed=0)
    with pytest.raises(ValueError, match=r"weight = 1\.5 is not allowed"):
        mean_variance("fresh", 3, weight=1.5)
    with pytest.raises(ValueError, match="unknown scheme 'accumulate_subsample', or one that needs n"):
        mean_variance("accumulate_subsample", 3)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        seeds_needed(0.5, 0.5)
