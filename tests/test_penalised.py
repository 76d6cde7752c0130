import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import stats
from torch.func import grad

from iterative_retraining.studies import plots
from iterative_retraining.studies.theory.families import LocationScale, Points
from iterative_retraining.studies.theory.fixed_point import (
    NotAMaximumError,
    curvatures,
    jacobian,
    lipschitz,
    maximise,
    mean_rate,
    rate_exact,
    ratios,
    retrain_exactly,
)
from iterative_retraining.studies.theory.flows import FlowFamily, points_of_plane
from iterative_retraining.studies.theory.penalised import PenalisedRetraining, lipschitz_at_least
from iterative_retraining.studies.toy2d.distributions import ARC

SKEWED = Points.of_density(stats.skewnorm(6).pdf, centre=0.5)
LOGISTIC = LocationScale("logistic")
START = torch.tensor([0.5, 0.0], dtype=torch.float64)
PLANE = points_of_plane(ARC.density, -5.5, 5.5, 0.25)


@pytest.fixture(scope="module")
def network():
    flow = FlowFamily(hidden=4)
    found = PenalisedRetraining(flow, PLANE, decay=0.02)
    return flow, found, found.fixed_point(flow.start)


def test_without_a_penalty_it_is_the_theory_of_small_families():
    plain = PenalisedRetraining(LOGISTIC, SKEWED)
    theta = plain.fixed_point(START)
    np.testing.assert_allclose(theta, maximise(LOGISTIC, START, SKEWED), atol=1e-6)
    found = plain.retrain(theta + 0.05, 0.7)
    np.testing.assert_allclose(found, retrain_exactly(LOGISTIC, theta + 0.05, 0.7, 1, data=SKEWED)[1], atol=1e-6)
    exact = maximise(LOGISTIC, START, SKEWED)
    observed, linear = plain.paths(exact, 0.7, 2, seeds=[0], size=1e-3)
    np.testing.assert_allclose(observed, linear, rtol=0.01)
    j = jacobian(LOGISTIC, exact, 0.7, data=SKEWED)
    gap = 1e-3 * torch.from_numpy(np.random.Generator(np.random.Philox(0)).standard_normal(2))
    _, b = curvatures(LOGISTIC, exact, data=SKEWED)
    np.testing.assert_allclose(linear[0, 1], (-(j @ gap) @ b @ (j @ gap)).sqrt(), rtol=1e-8)


def test_a_flow_is_a_density_whose_quadrature_and_samples_agree(network):
    flow, _, theta = network
    plane = points_of_plane(lambda x: torch.exp(flow.log_prob(theta, x)), -8, 8, 0.1)
    own = flow.points(theta)
    moments = torch.cat([own.mean(own.x), own.mean(own.x**2)])
    np.testing.assert_allclose(moments, torch.cat([plane.mean(plane.x), plane.mean(plane.x**2)]), atol=1e-6)
    score = grad(lambda th: own.mean(flow.log_prob(th, own.x)))(theta)
    assert score.norm() < 1e-6  # E of the score under the model itself
    drawn = flow.sample(theta, 20_000, seed=0)
    np.testing.assert_array_less((drawn.mean(dim=0) - moments[:2]).abs(), 4 * drawn.std(dim=0) / np.sqrt(20_000))
    with pytest.raises(ValueError, match=r"the density integrates to .*, not 1, over"):
        points_of_plane(ARC.density, -1, 1, 0.1)


def test_the_fixed_point_is_one_and_the_jacobian_says_how_fast_outputs_return(network):
    _, found, theta = network
    assert (found.retrain(theta, 1.0) - theta).norm() < 1e-3
    m = ratios(*found.curvatures(theta))
    assert (m > -1e-6).all()
    observed, linear = found.paths(theta, 1.0, 3, seeds=[0, 1], size=0.005)
    np.testing.assert_allclose(observed, linear, rtol=0.15)
    assert (linear[:, 1:] <= linear[:, :-1] * rate_exact(m, 1.0).max() * (1 + 1e-9)).all()  # Fisher's norm only falls
    assert mean_rate(linear).startswith("0.")
    figure = plots.output_distances({"λ = 1": (observed, linear)}, {"λ = 1": 0.5})
    assert len(figure.axes[0].lines) == 5
    plt.close(figure)


def test_products_with_the_hessian_are_finite_differences_of_the_gradient(network):
    flow, found, theta = network
    a, _ = found.curvatures(theta)
    v = torch.from_numpy(np.random.default_rng(1).standard_normal(len(theta)))

    def slope(th):
        return grad(lambda t: PLANE.mean(flow.log_prob(t, PLANE.x)))(th) - 0.02 * th

    numeric = (slope(theta + 1e-5 * v) - slope(theta - 1e-5 * v)) / 2e-5
    np.testing.assert_allclose(a @ v, numeric, atol=1e-5, rtol=1e-5)


def test_the_lower_bound_of_l_is_met_where_l_is_known():
    theta = maximise(LOGISTIC, START, SKEWED)
    low, high = lipschitz(LOGISTIC, theta, -4.0, 4.0)
    x = torch.linspace(-4, 4, 801, dtype=torch.float64)[:, None]
    found = lipschitz_at_least(LOGISTIC, theta, x, n_steps=40)
    assert 0.999 * low < found <= high


def test_what_has_no_maximum_is_refused():
    flat = Points(torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    with pytest.raises(NotAMaximumError, match="no maximum found"):
        PenalisedRetraining(LOGISTIC, flat).fixed_point(START)  # one point: the scale goes to 0
    with pytest.raises(ValueError, match="lam = -1 is not allowed"):
        PenalisedRetraining(LOGISTIC, SKEWED).retrain(START, -1)
