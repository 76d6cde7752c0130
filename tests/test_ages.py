"""The ages of a mix: their weights, and when the effects of a mix are those of its ages."""

import numpy as np
import pytest
from scipy.special import psi

from iterative_retraining.studies.theory.ages import (
    age_weights,
    aged,
    mix_of_a_linear_error,
    statistical_constant,
)


@pytest.mark.parametrize("lam", [0.1, 1.0, 5.0])
def test_weights_add_up_have_their_mean_and_are_those_of_labels_followed_through_the_loop(lam):
    t, share = 12, lam / (1 + lam)
    weights = age_weights(lam, t)
    assert weights.sum() == pytest.approx(1)
    assert weights @ np.arange(t + 1) == pytest.approx(lam * (1 - share**t))
    shares = np.zeros(t + 1)
    shares[0] = 1.0  # D_0 is real
    for _ in range(t):  # a sample is one model older than what its model learnt from
        shares = np.eye(t + 1)[0] / (1 + lam) + share * np.roll(shares, 1)
    np.testing.assert_allclose(weights, shares, atol=1e-14)


@pytest.mark.parametrize("error", [0.1, -0.05])
@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_an_error_that_acts_linearly_follows_the_ages_exactly(lam, error):
    values = mix_of_a_linear_error(lam, error, 15)
    by_age = (1 + error) ** np.arange(16)
    np.testing.assert_allclose(values, [age_weights(lam, t) @ by_age[: t + 1] for t in range(16)], rtol=1e-12)


def test_the_mean_over_the_second_half():
    by_age = np.array([0.0, 1.0, 4.0])
    assert aged(1.0, by_age) == pytest.approx(((1 / 2) * 1 + (1 / 4) * 1 + (1 / 4) * 4) / 2)


@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_a_statistical_error_has_another_constant_at_every_lam(lam):
    """Maximum likelihood of one Gaussian, by its sufficient statistics: E[log sigma^2] of the mix over its ages."""
    n, generations, chains, rng = 100, 40, 200_000, np.random.default_rng(0)
    m = int(lam * n)
    real_squares = rng.chisquare(n - 1, chains)  # the real mean is 0: the loop does not see where the origin is
    mean, var = np.zeros(chains), real_squares / n
    for _ in range(generations):
        drawn = mean + np.sqrt(var / m) * rng.standard_normal(chains)
        squares = real_squares + var * rng.chisquare(m - 1, chains) + n * m / (n + m) * drawn**2
        mean, var = m * drawn / (n + m), squares / (n + m)
    change = np.log(var * n / real_squares)
    a_retraining = psi((n - 1) / 2) - np.log(n / 2)  # of the fully synthetic loop, exactly
    predicted = a_retraining * (age_weights(lam, generations) @ np.arange(generations + 1))
    found, error = change.mean() / predicted, change.std() / np.sqrt(chains) / abs(predicted)
    assert abs(found - statistical_constant(lam)) < 4 * error + 3 / n  # first order in 1/n
    assert found < 0.7 if lam == 0.5 else found < 0.3
