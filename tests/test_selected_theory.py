"""Filtering and curation of a Gaussian: closed forms against quadrature, against chains, and against `retrain`."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import integrate, stats

from iterative_retraining import Selection, build_selector, retrain
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.schemes import build_scheme
from iterative_retraining.selectors.base import BaseSelector, ScoredSelector, draw_by_weight
from iterative_retraining.selectors.choice import REWARDS
from iterative_retraining.studies.theory.selected import (
    choice_gain,
    chosen,
    chosen_fixed_point,
    filtered,
    filtered_fixed_point,
    filtered_rate,
    filtered_variance,
    mixed,
    simulate_filtered,
)


def moments(density) -> tuple[float, float]:
    """Mean and variance of an unnormalised density, by quadrature."""
    total, first, second = (integrate.quad(lambda x, k=k: x**k * density(x), -30, 30, limit=400)[0] for k in range(3))
    return first / total, second / total - (first / total) ** 2


def test_filtered_moments_are_those_of_the_product():
    def density(x):
        return stats.norm.pdf(x, 0.4, 1.3) * np.exp(-((x + 1) ** 2) / (2 * 0.7**2))

    np.testing.assert_allclose(filtered(0.4, 1.3**2, 0.7, -1.0), moments(density), rtol=1e-9)


def test_mixed_moments_are_those_of_the_mixture():
    def density(x):
        return stats.norm.pdf(x, 0.0, 1.2) + 2.5 * stats.norm.pdf(x, 0.8, 0.6)

    np.testing.assert_allclose(mixed(0.8, 0.36, 2.5, 0.0, 1.44), moments(density), rtol=1e-9)


def test_on_filtered_samples_alone_the_precision_grows_by_that_of_the_filter():
    mean, variance = 0.5, 1.0
    for t in range(1, 40):
        mean, variance = filtered(mean, variance, 2.0, 3.0)
        assert variance == pytest.approx(filtered_variance(2.0, t), rel=1e-12)
    assert filtered(mean, variance, 2.0, 3.0)[0] == pytest.approx(3.0, abs=0.3)
    assert filtered_variance(2.0, 10_000) * 10_000 == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("width", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("centre", [0.0, 1.5, -3.0])
def test_the_fixed_point_of_the_filter_is_where_retraining_leads(lam, width, centre):
    mean, variance = 0.7, 2.0
    for _ in range(3000):
        mean, variance = mixed(*filtered(mean, variance, width, centre), lam, 0.0, 1.5)
    np.testing.assert_allclose(filtered_fixed_point(lam, width, centre, 1.5), (mean, variance), rtol=1e-10, atol=1e-12)
    stays = mixed(*filtered(mean, variance, width, centre), lam, 0.0, 1.5)
    np.testing.assert_allclose(stays, (mean, variance), rtol=1e-12, atol=1e-14)


def test_limits_of_the_filter():
    """A wide filter chooses nothing: the real variance stays. A sharp one leaves real data and a spike."""
    assert filtered_fixed_point(1.0, 1e6)[1] == pytest.approx(1.0, rel=1e-6)
    assert filtered_fixed_point(1.0, 1e-6)[1] == pytest.approx(1 / 2, rel=1e-6)
    with pytest.raises(ValueError, match="width = 0"):
        filtered_fixed_point(1.0, 0.0)


@pytest.mark.parametrize(("lam", "width"), [(0.5, 1.0), (3.0, 0.6)])
def test_the_rate_of_the_filter_is_the_largest_derivative(lam, width):
    _, v = filtered_fixed_point(lam, width)

    def step(mean, variance):
        return np.array(mixed(*filtered(mean, variance, width), lam))

    h = 1e-6
    jacobian = np.array([(step(h, v) - step(-h, v)) / (2 * h), (step(0, v + h) - step(0, v - h)) / (2 * h)]).T
    rates = np.abs(np.linalg.eigvals(jacobian))
    assert rates.max() == pytest.approx(filtered_rate(lam, width), rel=1e-6)
    assert rates.min() == pytest.approx(lam / (1 + lam) * (width**2 / (v + width**2)) ** 2, rel=1e-6)
    assert rates.max() < lam / (1 + lam)


def test_chains_settle_at_the_fixed_point_as_n_grows():
    gaps = []
    for n in (200, 20_000):
        mean, variance = simulate_filtered(n, 60, 4000, seed=1, width=0.8, centre=0.5, lam=1.0)
        wanted = filtered_fixed_point(1.0, 0.8, 0.5)
        late = mean[-1], variance[-1]
        errors = [x.std() / np.sqrt(4000) for x in late]
        gaps.append([abs(x.mean() - w) / e for x, w, e in zip(late, wanted, errors, strict=True)])
    assert max(gaps[1]) < 4


def test_chains_are_those_of_retraining_with_a_selector():
    """`retrain` with rejection by w, of so many candidates that none is certain, and the exact simulation."""
    width, n, chains = 1.2, 40, 60

    @dataclass(frozen=True)
    class Filter(BaseSelector):
        name = "filter"

        def rows(self, candidates, n_kept, *, seed):
            return draw_by_weight(-(candidates.items[:, 0] ** 2) / (2 * width**2), n_kept, seed=seed)

    ends = []
    for seed in range(chains):
        real = np.random.default_rng(1000 + seed).normal(size=(n, 1))
        model, selection = Gaussian(), Selection(Filter(), 0.1)
        list(retrain(model, real, build_scheme("fully_synthetic"), [], n_retrain=3, seed=seed, selection=selection))
        ends.append((model.mean[0], model.cov[0, 0]))
    _, variance = simulate_filtered(n, 3, 20_000, seed=0, width=width)
    mean, _ = simulate_filtered(n, 3, 20_000, seed=0, width=width)
    for found, exact in zip(np.array(ends).T, (mean[-1], variance[-1]), strict=True):
        assert stats.ks_2samp(found, exact).pvalue > 1e-3


# ---- choice ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "std", "mean"), [(0.5, 1.0, 0.0), (3.0, 0.7, -1.0), (40.0, 2.0, 0.3)])
def test_chosen_moments_are_those_of_the_density_of_the_chosen(beta, std, mean):
    """The density of the chosen is 2 p(x) E_y sigmoid(beta (x - y))."""
    x = mean + std * np.linspace(-9, 9, 2001)
    p = stats.norm.pdf(x, mean, std)
    wins = (p[None, :] / (1 + np.exp(np.clip(-beta * (x[:, None] - x[None, :]), -700, 700)))).sum(axis=1) * (
        x[1] - x[0]
    )
    density = 2 * p * wins
    total, first, second = (np.trapezoid(density * x**k, x) for k in range(3))
    assert total == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(chosen(mean, std**2, beta), (first, second - first**2), rtol=1e-5, atol=1e-7)


def test_the_gain_of_a_choice_rises_from_half_the_strength_to_the_mean_of_the_larger_of_two():
    assert choice_gain(1e-4) == pytest.approx(0.5e-4, rel=1e-6)
    assert choice_gain(1e4) == pytest.approx(1 / np.sqrt(np.pi), rel=1e-3)
    assert (np.diff(choice_gain(np.linspace(0, 20, 50))) > 0).all()


@pytest.mark.parametrize(("lam", "beta"), [(0.0, 2.0), (0.5, 1.0), (1.0, 5.0), (1.7, 50.0), (2.5, 0.3)])
def test_the_fixed_point_of_the_choice_is_where_retraining_leads(lam, beta):
    mean, variance = 0.0, 1.0
    for _ in range(4000):
        mean, variance = mixed(*chosen(mean, variance, beta), lam)
    np.testing.assert_allclose(chosen_fixed_point(lam, beta), (mean, variance), rtol=1e-8, atol=1e-12)
    assert variance >= 1


def test_beyond_the_square_root_of_pi_a_strong_preference_runs_off():
    assert np.isfinite(chosen_fixed_point(1.77, 1e4)).all()
    assert np.isinf(chosen_fixed_point(1.78, 1e4)).all()
    mean, variance = 0.0, 1.0
    for _ in range(500):
        mean, variance = mixed(*chosen(mean, variance, 100.0), 3.0)
    assert variance > 1e6


def test_alone_the_choice_drifts_for_ever_while_the_variance_goes():
    """sigma_t^2 ~ 4 / (beta^2 t), and the mean like (2 / beta) log t."""
    beta, mean, variance, at = 2.0, 0.0, 1.0, {}
    for t in range(1, 20_001):
        mean, variance = chosen(mean, variance, beta)
        at[t] = mean
    assert variance * 20_000 * beta**2 / 4 == pytest.approx(1, abs=0.01)
    assert at[20_000] - at[2_000] == pytest.approx(2 / beta * np.log(10), rel=0.01)


def test_the_engine_chooses_as_the_theory_says(monkeypatch):
    """One retraining on the chosen of pairs, by the selector, has the moments of `chosen`."""

    @dataclass(frozen=True)
    class Linear(ScoredSelector):
        name = "linear"

        def score(self, candidates):
            return candidates.items[:, 0]

    monkeypatch.setitem(REWARDS, "linear", Linear)
    model, n = Gaussian(np.zeros(1), np.array([[1.44]])), 10_000
    selection = Selection(build_selector("choice", {"reward": "linear", "strength": 1.5}), 0.5)
    kept = selection.keep(model.sample(2 * n, seed=0), n, real=np.zeros((2, 1)), model=model, seed=1)[:, 0]
    mean, variance = chosen(0.0, 1.44, 1.5)
    assert kept.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / n))
    assert kept.var() == pytest.approx(variance, abs=4 * variance * np.sqrt(2 / n))
