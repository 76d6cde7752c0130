import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.retrain import retrain
from iterative_retraining.schemes import FullySynthetic, Mix
from iterative_retraining.studies.theory.gaussian_chains import (
    contraction,
    expected_std,
    log_std_drift,
    simulate_cov_factors,
    simulate_std,
)
from iterative_retraining.training_set import TrainingSet


@pytest.mark.parametrize("n", [2, 3, 10, 100, 10_000])
def test_contraction_is_the_mean_of_the_chi_distribution(n):
    np.testing.assert_allclose(contraction(n), stats.chi(n - 1).mean() / np.sqrt(n - 1), rtol=1e-10)


def test_contraction_is_about_one_minus_a_quarter_over_n():
    np.testing.assert_allclose(contraction(1000), 1 - 1 / 4000, atol=1e-6)


def test_expected_std_is_a_power():
    assert expected_std(100, 0, std0=2.0) == 2.0
    np.testing.assert_allclose(expected_std(100, 3), contraction(100) ** 3, rtol=1e-14)
    assert expected_std(50, np.arange(4)).shape == (4,)


@pytest.mark.parametrize("n", [3, 20])
def test_drift_is_the_mean_log_of_the_chi_square_distribution(n):
    mean_log, _ = integrate.quad(lambda x: np.log(x) * stats.chi2.pdf(x, n - 1), 0, np.inf)
    np.testing.assert_allclose(log_std_drift(n), (mean_log - np.log(n - 1)) / 2, atol=1e-7)


@pytest.mark.parametrize(
    "call", [lambda: contraction(1), lambda: log_std_drift(3, 3), lambda: simulate_cov_factors(3, [1], 1, 3, seed=0)]
)
def test_too_few_data_are_refused(call):
    with pytest.raises(ValueError, match="is not allowed"):
        call()


def test_simulated_chains_follow_the_three_exact_rates():
    n, steps, chains = 20, 10, 200_000
    mean, std = simulate_std(n, steps, chains, seed=1)
    for values, exact in (
        (std[-1], expected_std(n, steps)),
        (std[-1] ** 2, 1.0),
        (np.log(std[-1]), steps * log_std_drift(n)),
        (mean[-1], 0.0),
        (mean[-1] ** 2, steps / n),  # each step adds E sigma^2 / n = 1 / n
    ):
        assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(chains)


@pytest.mark.parametrize("lam", [None, 0.5, 2.0])
def test_exact_law_equals_algorithm_1_on_samples(lam):
    n, steps, chains = 10, 4, 400
    looped, means = np.empty(chains), np.empty(chains)
    for chain in range(chains):
        start = Gaussian(np.zeros(1), np.eye(1))
        real = start.sample(n, seed=10_000 + chain)
        state = start.state_dict() if lam is None else None  # fully synthetic from the known start
        scheme = FullySynthetic() if lam is None else Mix(lam)
        for _ in retrain(start, real, scheme, [], n_retrain=steps, seed=chain, initial_state=state):
            pass
        looped[chain], means[chain] = np.sqrt(start.cov[0, 0]), start.mean[0]
    exact_means, exact = (path[-1] for path in simulate_std(n, steps, 20_000, seed=3, lam=lam))
    assert stats.ks_2samp(looped, exact).pvalue > 1e-3
    assert stats.ks_2samp(means, exact_means).pvalue > 1e-3


def test_mix_has_the_closed_form_excess_variance():
    # Derived: given the real data the mean fluctuates with variance lam / (1 + 2 lam) / n, so (1 + that) / n in all.
    n, lam, chains = 200, 1.0, 100_000
    mean = simulate_std(n, 40, chains, seed=2, lam=lam)[0][-1]
    excess = n * mean**2
    assert abs(excess.mean() - (1 + lam / (1 + 2 * lam))) < 4 * excess.std() / np.sqrt(chains) + 0.01  # O(1/n) bias


def test_wishart_factors_follow_wishart_moments():
    n, dim, chains = 12, 3, 100_000
    factors = simulate_cov_factors(n, [1], chains, dim, seed=0)[0]
    cov = factors @ factors.transpose(0, 2, 1)
    for i, j, mean, variance in ((0, 0, 1, 2 / (n - 1)), (2, 2, 1, 2 / (n - 1)), (1, 2, 0, 1 / (n - 1))):
        entry = cov[:, i, j]
        assert abs(entry.mean() - mean) < 4 * entry.std() / np.sqrt(chains)
        np.testing.assert_allclose(entry.var(), variance, rtol=0.05)


def test_fit_is_numpy_mean_and_unbiased_covariance():
    x = np.random.default_rng(0).normal(size=(50, 3)) @ np.diag([1.0, 2.0, 0.1]) + 5
    model = Gaussian().fit(TrainingSet.of(x))
    np.testing.assert_allclose(model.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(model.cov, np.cov(x.T), rtol=1e-12)
    np.testing.assert_allclose(
        model.log_prob(x), stats.multivariate_normal(model.mean, model.cov).logpdf(x), rtol=1e-10
    )


def test_a_weighted_fit_is_the_weighted_mean_and_the_unbiased_covariance():
    rng = np.random.default_rng(0)
    parts, rows = (rng.normal(size=(30, 3)), rng.normal(2.0, size=(20, 3))), (np.arange(30), np.arange(20))
    x, w = np.concatenate(parts), np.repeat([0.7, 2.5], [30, 20])
    model = Gaussian().fit(TrainingSet(parts, rows, weights=(0.7, 2.5)))
    mean = (w[:, None] * x).sum(axis=0) / w.sum()
    squares = ((x - mean).T * w) @ (x - mean)
    np.testing.assert_allclose(model.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(model.cov, squares / (w.sum() - (w**2).sum() / w.sum()), rtol=1e-12)
    np.testing.assert_allclose(model.cov, np.cov(x.T, aweights=w), rtol=1e-12)
    for equal in ((1.0, 1.0), (0.3, 0.3)):
        model, plain = Gaussian().fit(TrainingSet(parts, rows, weights=equal)), Gaussian().fit(TrainingSet(parts, rows))
        np.testing.assert_allclose(model.mean, plain.mean, rtol=1e-13)
        np.testing.assert_allclose(model.cov, plain.cov, rtol=1e-12)
    alone = Gaussian().fit(TrainingSet(parts, rows, weights=(0.0, 3.0)))
    np.testing.assert_allclose(alone.mean, parts[1].mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(alone.cov, np.cov(parts[1].T), rtol=1e-12)


def test_the_weighted_covariance_is_unbiased():
    n, m, w = 4, 3, (1.0, 5.0)
    x = np.random.default_rng(1).normal(size=(4000, n + m, 1))
    rows = (np.arange(n), np.arange(m))
    found = np.array([Gaussian().fit(TrainingSet((own[:n], own[n:]), rows, weights=w)).cov[0, 0] for own in x])
    assert abs(found.mean() - 1) < 4 * found.std() / np.sqrt(len(found))


def test_samples_have_the_models_law_and_do_not_depend_on_their_number():
    model = Gaussian(np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 1.0]]))
    x = model.sample(20_000, seed=0)
    np.testing.assert_array_equal(model.sample(10, seed=0), x[:10])
    np.testing.assert_allclose(x.mean(axis=0), model.mean, atol=4 * np.sqrt(2 / 20_000))
    np.testing.assert_allclose(np.cov(x.T), model.cov, atol=0.1)


def test_images_are_vectors_of_pixels(digits):
    model = Gaussian().fit(TrainingSet.of(digits))
    samples = model.sample(30, seed=0)
    assert (samples.shape, samples.dtype) == ((30, 8, 8, 1), np.uint8)
    other = Gaussian()
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.sample(30, seed=0), samples)


def test_one_datum_and_a_singular_covariance_are_refused():
    with pytest.raises(ValueError, match="at least 2 data, got 1"):
        Gaussian().fit(TrainingSet.of(np.zeros((1, 2))))
    with pytest.raises(ValueError, match="at least 2 data, got 1"):
        Gaussian().fit(
            TrainingSet((np.zeros((1, 2)), np.ones((3, 2))), (np.arange(1), np.arange(3)), weights=(1.0, 0.0))
        )
    with pytest.raises(ValueError, match="singular"):
        Gaussian(np.zeros(2), np.zeros((2, 2))).log_prob(np.zeros((1, 2)))


@given(st.integers(3, 50), st.integers(1, 2))
def test_more_dimensions_drift_faster(n, dim):
    assert log_std_drift(n + 1, dim + 1) < log_std_drift(n + 1, dim) < 0


def test_factors_start_at_the_identity_and_only_kept_generations_are_returned():
    factors = simulate_cov_factors(10, [0, 2], 3, 2, seed=0)
    np.testing.assert_array_equal(factors[0], np.tile(np.eye(2), (3, 1, 1)))
    np.testing.assert_array_equal(simulate_cov_factors(10, [1, 2], 3, 2, seed=0)[1], factors[1])
    with pytest.raises(ValueError, match=r"keep = \[2, 1\] is not allowed"):
        simulate_cov_factors(10, [2, 1], 3, 2, seed=0)
