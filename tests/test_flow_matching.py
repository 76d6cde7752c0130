from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
from torchcfm.optimal_transport import OTPlanSampler

from iterative_retraining.models.flow_matching import FlowMatching, couple
from iterative_retraining.models.solvers import Field
from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS

from conftest import exact_velocity

TARGET = DISTRIBUTIONS["eight_gaussians"]
PLAIN = FlowMatching(time_scale=1.0, coupling="independent")


def velocity(x, t):
    return exact_velocity(TARGET, x, t)


def gaussians(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_3_t_squared_is_integrated_to_t_cubed(solver):
    start = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    process = replace(PLAIN, solver=solver, n_steps=3, tolerance=1e-9)
    end = process.integrate(Field.of_velocity(lambda x, t: 3 * t**2 + 0 * x), lambda k: start)
    torch.testing.assert_close(end, start + 1, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"n_steps": 40}, 1e-4),
        ({"solver": "dopri5", "tolerance": 1e-7}, 1e-5),
        ({"solver": "dpmpp_3m", "spacing": "karras", "n_steps": 100, "start_data_std": 0.2}, 1e-3),
    ],
)
def test_a_gaussian_is_transported_point_by_point(how, error):
    def velocity(x, t):  # exact for N(0, 0.2^2)
        t = t.double().view(-1, 1)
        return (0.04 * t - (1 - t)) / (0.04 * t**2 + (1 - t) ** 2) * x.double()

    noise = gaussians(0, 50, 2)
    x = replace(PLAIN, **how).sample(velocity, lambda k: noise)
    torch.testing.assert_close(x, 0.2 * noise, atol=error, rtol=0)


@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_exact_velocity_takes_noise_to_the_distribution(solver):
    noise = gaussians(0, 20_000, 2)
    x = replace(PLAIN, n_steps=60, solver=solver).sample(velocity, lambda k: noise).numpy()
    means = np.array(TARGET.means)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - means.mean(axis=0)), 4 * x.std(axis=0) / np.sqrt(len(x)))
    expected = means.var(axis=0) + TARGET.std**2
    np.testing.assert_array_less(np.abs(x.var(axis=0) - expected), 4 * (x**2).std(axis=0) / np.sqrt(len(x)))


def test_the_loss_is_least_at_the_exact_velocity():
    x, noise, level_noise = torch.from_numpy(TARGET.sample(20_000, seed=2)), gaussians(1, 20_000, 2), torch.tensor(0.25)
    numbers = level_noise.double().expand(20_000)
    best = PLAIN.loss_terms(velocity, x, numbers, noise).mean()
    for shift in (-0.3, 0.3):
        worse = PLAIN.loss_terms(lambda p, s, shift=shift: velocity(p, s) + shift, x, numbers, noise).mean()
        torch.testing.assert_close(worse - best, torch.tensor(0.09).double(), atol=0.02, rtol=0)


def test_paths_and_targets_are_those_of_torchcfm():
    x, noise, level_noise = gaussians(2, 6, 3, 4, 4), gaussians(3, 6, 3, 4, 4), gaussians(4, 6)
    seen = {}

    def net(x_t, level):
        seen["x_t"], seen["level"] = x_t, level
        return torch.zeros_like(x_t)

    errors = replace(PLAIN, time_scale=1000.0).loss_terms(net, x, level_noise, noise)
    t = torch.special.ndtr(level_noise)
    _, x_t, target = ConditionalFlowMatcher(sigma=0.0).sample_location_and_conditional_flow(noise, x, t)
    torch.testing.assert_close(seen["x_t"], x_t)
    torch.testing.assert_close(seen["level"], 1000 * t)
    torch.testing.assert_close(errors, target.square())


def test_the_coupling_is_the_best_of_all_permutations():
    x, noise = gaussians(5, 6, 2), gaussians(6, 6, 2)
    best = min(((x - noise[list(order)]) ** 2).sum().item() for order in permutations(range(6)))
    coupled = couple(x[None], noise[None])[0]
    assert ((x - coupled) ** 2).sum().item() == pytest.approx(best, rel=1e-12)
    assert sorted(map(tuple, coupled.tolist())) == sorted(map(tuple, noise.tolist()))


def test_the_coupling_is_the_plan_of_torchcfm():
    x, noise = gaussians(7, 32, 1, 4, 4), gaussians(8, 32, 1, 4, 4)
    plan = torch.from_numpy(OTPlanSampler(method="exact").get_map(noise, x))  # (noise, x), 1 / 32 where paired
    torch.testing.assert_close(
        torch.tensordot(plan.T * 32, noise, dims=1), FlowMatching().couple_noise(x[None], noise[None])[0]
    )
    assert PLAIN.couple_noise(x, noise) is noise


def test_groups_are_coupled_apart_and_one_that_is_not_finite_stays_as_it_is():
    x, noise = gaussians(9, 3, 8, 2), gaussians(10, 3, 8, 2)
    x[1, 0, 0] = torch.nan
    coupled = couple(x, noise)
    assert coupled[1].equal(noise[1])
    for group in (0, 2):
        assert coupled[group].equal(couple(x[[group]], noise[[group]])[0])
        assert not coupled[group].equal(noise[group])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coupling": "exact"}, "coupling = 'exact' is not allowed; allowed: optimal_transport, independent"),
        ({"solver": "euler"}, "solver = 'euler' is not allowed; allowed: heun, dpmpp_2m, "),
        (
            {"solver": "heun"},
            "solver = 'heun' is not allowed with spacing = 'time', .* allowed: rk4, dopri5, or spacing",
        ),
        ({"spacing": "uniform"}, "spacing = 'uniform' is not allowed; allowed: time, karras"),
        ({"sigma_max": 0.001}, "sigma_max = 0.001"),
        ({"tolerance": 0.0}, "tolerance = 0.0 is not allowed: it must be above 0"),
        ({"n_steps": True}, "n_steps = True is not allowed: it must be of type int"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **change)
