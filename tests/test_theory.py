import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from scipy import integrate, stats

from iterative_retraining.studies import plots
from iterative_retraining.studies.theory.families import (
    GaussianFamily,
    LocationScale,
    Points,
    SharedVarianceMixture,
    sigma_points,
)
from iterative_retraining.studies.theory.fixed_point import (
    NotAMaximumError,
    constants,
    curvatures,
    hessian,
    jacobian,
    lipschitz,
    maximise,
    observed_rate,
    rate_exact,
    rate_ferbach,
    rate_theorem1,
    ratios,
    retrain_exactly,
    strong_concavity,
    wasserstein1_of_points,
)


def vector(values):
    return torch.tensor(values, dtype=torch.float64)


LAMS = (0.1, 1.0, 10.0)
SKEWED = Points.of_density(stats.skewnorm(6).pdf, centre=0.5)
BIMODAL = Points.of_density(lambda x: 0.7 * stats.norm(-2, 0.7).pdf(x) + 0.3 * stats.norm(2, 0.5).pdf(x))
FAMILIES = [LocationScale("normal"), LocationScale("logistic"), LocationScale("student", 3.0), SharedVarianceMixture(2)]


def start(family):
    return vector([-1.0, 1.0, 0.0] if isinstance(family, SharedVarianceMixture) else [0.5, 0.0])


def gaussian(coordinates, dim=3):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(dim, dim))
    family = GaussianFamily(dim, coordinates)
    return family, family.pack(rng.normal(size=dim), root @ root.T + np.eye(dim))


def test_quadrature_integrates_moments_of_known_distributions():
    for real, centre in ((stats.norm(2, 0.3), 2.0), (stats.logistic(), 0.0), (stats.skewnorm(6), 0.5)):
        points = Points.of_density(real.pdf, centre=centre)
        mean = points.mean(points.x[:, 0])
        variance = points.mean((points.x[:, 0] - mean) ** 2)
        np.testing.assert_allclose([mean, variance], real.stats("mv"), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="the density integrates to 2, not 1"):
        Points.of_density(lambda x: 2 * stats.norm.pdf(x))


@pytest.mark.parametrize("family", FAMILIES[:3], ids=lambda f: f.base)
def test_log_densities_are_those_of_scipy(family):
    real = {"normal": stats.norm, "logistic": stats.logistic, "student": stats.t(3)}[family.base]
    x = np.linspace(-4, 5, 20)
    expected = real.logpdf((x - 0.4) / np.exp(-0.3)) + 0.3
    found = family.log_prob(vector([0.4, -0.3]), torch.from_numpy(x)[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("coordinates", ["moments", "natural"])
def test_gaussian_log_density_is_that_of_scipy_and_packing_is_undone(coordinates):
    family, theta = gaussian(coordinates)
    mean, cov = (a.numpy() for a in family.unpack(theta))
    x = np.random.default_rng(1).normal(size=(6, 3))
    expected = stats.multivariate_normal(mean, cov).logpdf(x)
    np.testing.assert_allclose(family.log_prob(theta, torch.from_numpy(x)), expected, rtol=1e-10)
    np.testing.assert_allclose(family.pack(mean, cov), theta, rtol=1e-10)


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("coordinates", ["moments", "natural"])
def test_jacobian_of_the_well_specified_gaussian_is_closed_form(coordinates, lam):
    family, theta = gaussian(coordinates)
    found = jacobian(family, theta, lam, data=family.points(theta))
    np.testing.assert_allclose(found, lam / (1 + lam) * np.eye(9), atol=1e-10)


@pytest.mark.parametrize("lam", LAMS)
@pytest.mark.parametrize("family", FAMILIES[:3], ids=lambda f: f.base)
def test_jacobian_of_any_well_specified_family_is_lam_over_one_plus_lam(family, lam):
    theta = vector([0.4, -0.3])
    found = jacobian(family, theta, lam, data=family.points(theta))
    np.testing.assert_allclose(found, lam / (1 + lam) * np.eye(2), atol=1e-10)


@pytest.mark.parametrize("data", [SKEWED, BIMODAL], ids=["skewed", "bimodal"])
def test_a_gaussian_fitted_to_any_law_has_ratios_one_and_the_laws_moments(data):
    """An exponential family: the Hessian in natural parameters does not depend on x."""
    family = LocationScale("normal")
    theta = maximise(family, start(family), data)
    mean = data.mean(data.x[:, 0])
    std = data.mean((data.x[:, 0] - mean) ** 2).sqrt()
    np.testing.assert_allclose(theta, [mean, std.log()], atol=1e-10)
    np.testing.assert_allclose(ratios(*curvatures(family, theta, data=data)), 1, atol=1e-10)


def test_ratios_of_a_student_location_fit_equal_integrals_by_scipy():
    """E (d^2 log p / d mu^2) under the data and under the model, by adaptive quadrature."""
    family, real = LocationScale("student", 3.0), stats.skewnorm(6)
    theta = maximise(family, start(family), SKEWED)
    mu, sigma = theta[0].item(), theta[1].exp().item()

    def second(x):
        z = (x - mu) / sigma
        return -4 * (3 - z * z) / (3 + z * z) ** 2 / sigma**2

    a, b = curvatures(family, theta, data=SKEWED)
    expected_a = integrate.quad(lambda x: second(x) * real.pdf(x), -2, 8, epsabs=1e-12)[0]
    np.testing.assert_allclose(a[0, 0], expected_a, rtol=1e-8)
    np.testing.assert_allclose(b[0, 0], -(3 + 1) / (3 + 3) / sigma**2, rtol=1e-9)  # minus the Fisher information


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: getattr(f, "base", "mixture"))
def test_automatic_derivatives_equal_finite_differences(family):
    theta, x = start(family) + 0.1, torch.tensor([[0.7]]).double()

    def value(th):
        return family.log_prob(th, x)[0]

    h, eye = 1e-4, torch.eye(len(theta)).double()
    numeric = [
        [
            (
                value(theta + h * (a + b))
                - value(theta + h * (a - b))
                - value(theta - h * (a - b))
                + value(theta - h * (a + b))
            )
            / (4 * h * h)
            for b in eye
        ]
        for a in eye
    ]
    np.testing.assert_allclose(hessian(value)(theta), np.array(numeric), atol=1e-6)


@pytest.mark.parametrize(
    ("family", "data"),
    [
        (FAMILIES[1], SKEWED),
        (FAMILIES[1], BIMODAL),
        (FAMILIES[2], SKEWED),
        (FAMILIES[2], BIMODAL),
        (FAMILIES[3], BIMODAL),
    ],
)
def test_the_contraction_observed_is_the_largest_eigenvalue(family, data):
    theta = maximise(family, start(family), data)
    m = ratios(*curvatures(family, theta, data=data))
    assert np.abs(m - 1).max() > 0.01  # misspecified
    for lam in (0.3, 2.0):
        path = retrain_exactly(family, theta + 1e-2, lam, 8, data=data)
        gaps = (path - theta).norm(dim=1).numpy()
        assert gaps[-1] < gaps[0]
        slowest = rate_exact(m, lam).max()
        np.testing.assert_allclose((gaps[-1] / gaps[-4]) ** (1 / 3), slowest, rtol=0.05)
        j = jacobian(family, theta, lam, data=data)
        np.testing.assert_allclose(np.sort(torch.linalg.eigvals(j).real), rate_exact(m, lam), atol=1e-10)


def test_jacobian_is_the_derivative_of_one_retraining():
    family = LocationScale("student", 3.0)
    theta = maximise(family, start(family), BIMODAL)
    j, h = jacobian(family, theta, 0.7, data=BIMODAL), 1e-4
    for i in range(2):
        step = h * torch.eye(2).double()[i]
        up, down = (retrain_exactly(family, theta + s, 0.7, 1, data=BIMODAL)[1] for s in (step, -step))
        np.testing.assert_allclose((up - down) / (2 * h), j[:, i], atol=1e-6)


def test_theorem_1_bounds_what_is_observed_and_ferbach_is_between():
    family = LocationScale("logistic")
    theta = maximise(family, start(family), SKEWED)
    a, b = curvatures(family, theta, data=SKEWED)
    alpha, eps, L = (
        strong_concavity(a),
        wasserstein1_of_points(family.points(theta), SKEWED),
        lipschitz(family, theta, -50, 50)[1],
    )
    assert torch.linalg.matrix_norm(a - b, ord=2) <= L * eps  # the step of the proof, by Kantorovich's duality
    for lam in (0.05, 0.2, 0.3):
        norm = torch.linalg.matrix_norm(jacobian(family, theta, lam, data=SKEWED), ord=2)
        assert norm <= rate_ferbach(lam, alpha, L, eps) <= rate_theorem1(lam, alpha, L, eps) < 1


def test_constants_and_the_observed_rate_of_a_known_case():
    """A normal in (mu, s): m = 1; alpha and eps by hand; L on the ball as in the closed form, scaled by the fit."""
    family = LocationScale("normal")
    found = constants(family, vector([0.5, 0.0]), (-3.0, 3.0), data=BIMODAL)
    precision = torch.exp(-2 * found.theta[1]).item()
    np.testing.assert_allclose(found.alpha, min(2.0, precision), rtol=1e-8)
    np.testing.assert_allclose(found.eps, wasserstein1_of_points(family.points(found.theta), BIMODAL))
    assert 0 < found.largest_lam < 0.5
    rate_theorem1(0.999 * found.largest_lam, found.alpha, found.lipschitz, found.eps)
    with pytest.raises(ValueError, match="is not below 1/2"):
        rate_theorem1(1.001 * found.largest_lam, found.alpha, found.lipschitz, found.eps)
    for lam in (0.1, 10.0):
        np.testing.assert_allclose(observed_rate(family, found.theta, lam, data=BIMODAL), lam / (1 + lam), rtol=1e-3)


def test_figures_of_rates():
    lams = np.array([0.1, 1.0])
    figure = plots.rate_panels({"a": {"Theorem 1": (lams, lams)}, "b": {"observed": (lams, lams / 2)}})
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    figure = plots.distances_over_time({"x": np.array([2.0, 1.0])}, 0.5)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [1.0, 0.5])
    plt.close("all")


def test_rates_where_the_truth_is_known():
    np.testing.assert_allclose(rate_theorem1(0.25, alpha=2.0, L=0.0, eps=1.0), 1 / 3)
    np.testing.assert_allclose(rate_ferbach(0.25, alpha=2.0, L=0.0, eps=1.0), 0.2)
    np.testing.assert_allclose(rate_exact(np.array([1.0, 3.0]), 1.0), [0.5, 0.75])
    with pytest.raises(ValueError, match=r"lam \(1 \+ L eps / alpha\) = 0\.6 is not below 1/2"):
        rate_theorem1(0.4, alpha=2.0, L=1.0, eps=1.0)
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="it is the ratio synthetic : real"):
            rate_exact(np.ones(2), bad)


def test_lipschitz_constant_of_a_normal_location_scale_is_closed_form():
    """theta = (mu, s) at (0, 0): d/dx of the Hessian is [[0, -2], [-2, -4 x]], whose norm grows with |x|."""
    low, high = lipschitz(LocationScale("normal"), torch.zeros(2).double(), -3.0, 3.0)
    expected = np.linalg.norm([[0.0, -2.0], [-2.0, -12.0]], 2)
    np.testing.assert_allclose(low, expected, rtol=1e-10)
    assert low <= high < low + 0.01
    assert lipschitz(GaussianFamily(1, "natural"), vector([0.0, -0.5]), -3.0, 3.0) == (0.0, 0.0)


def test_wasserstein_distance_of_a_shift_and_of_a_scale():
    family = LocationScale("normal")
    origin, shifted, wide = (family.points(vector(t)) for t in ([0.0, 0.0], [0.3, 0.0], [0.0, np.log(2)]))
    np.testing.assert_allclose(wasserstein1_of_points(origin, shifted), 0.3, rtol=1e-9)
    np.testing.assert_allclose(wasserstein1_of_points(origin, wide), np.sqrt(2 / np.pi), rtol=1e-3)


def test_what_is_no_maximum_is_refused_with_the_number():
    family = LocationScale("normal")
    with pytest.raises(NotAMaximumError, match="the gradient of the expected log-likelihood has norm"):
        curvatures(family, torch.zeros(2).double(), data=BIMODAL)
    with pytest.raises(ValueError, match=r"base = 'cauchy' with .* is not allowed: normal, logistic or student"):
        LocationScale("cauchy")
    with pytest.raises(ValueError, match="coordinates = 'canonical' is not allowed: moments or natural"):
        GaussianFamily(2, "canonical")
    two = SharedVarianceMixture(2)  # both means on one point: a saddle
    mean = BIMODAL.mean(BIMODAL.x[:, 0])
    std = BIMODAL.mean((BIMODAL.x[:, 0] - mean) ** 2).sqrt()
    with pytest.raises(NotAMaximumError, match=r"A has the eigenvalue \d"):
        curvatures(two, torch.stack([mean, mean, std.log()]), data=BIMODAL)
    merged = maximise(two, start(two), SKEWED)  # two components where one would do as well: A is singular
    with pytest.raises(NotAMaximumError, match=r"A has the eigenvalue -\d"):
        curvatures(two, merged, data=SKEWED)
    with pytest.raises(ValueError, match="the covariance is singular: its smallest eigenvalue is"):
        sigma_points(torch.zeros(2).double(), torch.ones(2, 2).double())
