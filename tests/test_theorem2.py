import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import stats

from iterative_retraining.studies import plots
from iterative_retraining.studies.theory.families import LocationScale, Points
from iterative_retraining.studies.theory.fixed_point import NotAMaximumError, maximise
from iterative_retraining.studies.theory.theorem2 import (
    Bound,
    Study,
    Tail,
    ascend_chains,
    fit_chains,
    fit_tail,
    quantiles,
    tail,
    three_errors,
    worst_tail,
)

SKEWED = stats.skewnorm(6)
DATA = Points.of_density(SKEWED.pdf, centre=0.5)
NORMAL, LOGISTIC, STUDENT = LocationScale("normal"), LocationScale("logistic"), LocationScale("student", 3.0)


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


def test_maxima_of_many_chains_are_closed_form_for_normals_and_those_of_scipy_for_others():
    x = SKEWED.rvs(size=(5, 60), random_state=0)
    start = vector([[0.5, -0.5]]).expand(5, 2)
    found = fit_chains(NORMAL, start, torch.from_numpy(x))
    np.testing.assert_allclose(found, np.stack([x.mean(axis=1), np.log(x.std(axis=1))], axis=1), atol=1e-10)
    found = fit_chains(LOGISTIC, start, torch.from_numpy(x))
    expected = np.array([stats.logistic.fit(row) for row in x])
    np.testing.assert_allclose(found, np.stack([expected[:, 0], np.log(expected[:, 1])], axis=1), atol=1e-3)
    with pytest.raises(NotAMaximumError, match="no maximum found for chain 1: its gradient"):
        fit_chains(NORMAL, start[:2], torch.stack([torch.from_numpy(x[0]), torch.zeros(60).double()]))


@pytest.mark.parametrize("family", [NORMAL, LOGISTIC, STUDENT], ids=lambda f: f.base)
def test_draws_of_a_family_follow_its_distribution(family):
    theta = vector([[0.4, -0.3], [-1.0, 0.5]])
    x = family.sample(theta, 4000, np.random.default_rng(1)).numpy()
    real = {"normal": stats.norm, "logistic": stats.logistic, "student": stats.t(3)}[family.base]
    for row, (mu, s) in zip(x, theta.numpy(), strict=True):
        assert stats.kstest((row - mu) / np.exp(s), real.cdf).pvalue > 1e-3


def test_gradient_ascent_ends_at_the_maximum_and_earlier_on_the_way_to_it():
    x = torch.from_numpy(SKEWED.rvs(size=(4, 80), random_state=2))
    start = vector([[0.2, 0.2]]).expand(4, 2)
    maximum = fit_chains(LOGISTIC, start, x)
    gaps = [
        (ascend_chains(LOGISTIC, start, x, n_steps=k, step_size=0.1) - maximum).norm(dim=1) for k in (0, 5, 50, 2000)
    ]
    assert all((later < earlier).all() for earlier, later in itertools.pairwise(gaps))
    assert gaps[-1].max() < 1e-6


def test_deviations_of_a_normal_without_synthetic_data_have_the_exact_distribution():
    """mu_hat is Gaussian and (n exp(2 s_hat)) / sigma^2 is chi-square with n - 1 degrees, independently."""
    n, draws, real = 40, 20_000, stats.norm(0.3, 2.0)
    study = Study(NORMAL, Points.of_density(real.pdf, centre=0.3, scale=2.0), real, lam=0.0)
    found = study.deviations(vector([0.0, 0.0]), n, draws, seed=3)
    rng = np.random.default_rng(4)
    mu, s = 2 / np.sqrt(n) * rng.standard_normal(draws), 0.5 * np.log(rng.chisquare(n - 1, draws) / n)
    assert stats.ks_2samp(found, np.hypot(mu, s)).pvalue > 1e-3


def test_the_fit_of_a_and_b_gives_back_an_exact_tail_and_covers_any_other():
    deltas = np.geomspace(0.01, 0.5, 8)
    a, b = fit_tail(tail(1.3, 2.5, 1, deltas), deltas)
    np.testing.assert_allclose([a, b], [1.3, 2.5], rtol=1e-10)
    norms = np.abs(np.random.default_rng(0).standard_normal(5000)) + 0.2
    scaled, low, high = quantiles(norms, deltas)
    assert (low <= scaled).all()
    assert (scaled <= high).all()
    np.testing.assert_allclose(scaled, np.quantile(norms, 1 - deltas), rtol=0.02)
    assert (tail(*fit_tail(scaled, deltas), 1, deltas) >= scaled - 1e-12).all()
    with pytest.raises(ValueError, match="the quantiles do not grow as delta falls: slope"):
        fit_tail(np.linspace(1, 2, 8), deltas)


def test_assumption_3_scales_as_one_over_root_n():
    study = Study(LOGISTIC, DATA, SKEWED, lam=0.2)
    theta = maximise(LOGISTIC, vector([0.5, 0.0]), DATA)
    deltas = np.geomspace(0.02, 0.5, 6)
    found = worst_tail(study, theta, 0.1, (200, 800), 1500, deltas, seed=0)
    assert isinstance(found, Tail)
    assert found.quantiles.shape == (2, 6)
    assert found.spread < 0.1
    assert (tail(found.a, found.b, 1, deltas) >= found.quantiles - 1e-9).all()
    figure = plots.tail_panels({"logistic": found}, deltas)
    assert figure.axes[0].get_title() == "logistic"
    plt.close(figure)


def test_the_bound_of_theorem_2_by_hand():
    terms = Bound(a=2.0, b=3.0, n=100, delta=0.1, rho=0.5, eps_opt=0.01).terms(3, 0.8)
    np.testing.assert_allclose(terms["iterative"], [0.8, 0.4, 0.2, 0.1])
    np.testing.assert_allclose(terms["optimisation"], [0.0, 0.015, 0.0175, 0.01875])
    expected = [0.0] + [0.2 * np.sqrt(np.log(3 * t / 0.1)) * (2 - 0.5**t) for t in (1, 2, 3)]
    np.testing.assert_allclose(terms["statistical"], expected)


def test_three_errors_bound_the_total_and_vanish_one_by_one():
    study = Study(LOGISTIC, DATA, SKEWED, lam=0.5)
    theta = maximise(LOGISTIC, vector([0.5, 0.0]), DATA)
    of = {"n": 200, "n_retrain": 4, "n_chains": 50, "step_size": 0.3, "seed": 1}
    short = three_errors(study, theta + 0.1, theta, **of, n_steps=3)
    parts = short["iterative"] + short["statistical"] + short["optimisation"]
    assert (short["total"] <= parts + 1e-12).all()  # the triangle inequality
    assert short["eps_opt"][1:].min() > 0
    np.testing.assert_allclose(short["iterative"][0], 0.1 * np.sqrt(2))
    trained = three_errors(study, theta + 0.1, theta, **of, n_steps=400)
    assert trained["optimisation"].max() < 1e-6
    np.testing.assert_allclose(trained["statistical"], short["statistical"])
    many = three_errors(study, theta, theta, **(of | {"n": 20_000, "n_chains": 3}), n_steps=400)
    assert many["iterative"].max() < 1e-9
    assert many["total"].max() < 0.05
    level = {name: values.mean(axis=1) for name, values in short.items()}
    figure = plots.stacked_errors({"measured": level}, level["total"])
    assert figure.axes[0].get_title() == "measured"
    plt.close(figure)
