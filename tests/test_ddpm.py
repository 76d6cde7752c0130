from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from iterative_retraining.models.ddpm import DDPM, signal_levels
from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS

TARGET = DISTRIBUTIONS["eight_gaussians"]
SHAPE = (3, 1, 4, 4)


def gaussians(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def smooth_net(x, t):
    """Some function of x (B, ...) and the level (B,)."""
    return torch.tanh(x * (1 + t.view(-1, *[1] * (x.ndim - 1)) / 500) + 0.3)


def exact_net(process):
    """E[noise | x_t] for the mixture, from the exact score at the noise level sqrt((1 - a) / a) of x_t / sqrt(a)."""
    levels = process.levels()

    def net(x, t):
        a = levels[int(t[0])].item()
        score = TARGET.score(x.double() / a**0.5, ((1 - a) / a) ** 0.5) / a**0.5
        return -((1 - a) ** 0.5) * score

    return net


@pytest.mark.parametrize("clip", [False, True])
def test_ddim_is_that_of_diffusers_step_by_step(clip):
    process, steps = DDPM(n_steps=20, spacing="uniform", clip=clip), []
    theirs = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=clip, timestep_spacing="leading")
    theirs.set_timesteps(20)
    noise = gaussians(0, *SHAPE)
    ours = process.sample(lambda x, t: steps.append(x) or smooth_net(x, t), lambda k: noise)
    x, expected = noise, []
    for t in theirs.timesteps:
        expected.append(x)
        eps = smooth_net(x.float(), t.expand(len(x))).double()
        x = theirs.step(eps, t, x, use_clipped_model_output=True).prev_sample.double()
    np.testing.assert_array_equal(theirs.timesteps.numpy(), process.visited())
    for own, other in zip([*steps, ours], [*expected, x], strict=True):
        torch.testing.assert_close(own.double(), other.double(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(("variance", "name"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
def test_ancestral_sampling_is_that_of_diffusers_step_by_step(variance, name, clip, monkeypatch):
    process, steps = DDPM(n_steps=50, spacing="uniform", solver=f"ancestral_{variance}", clip=clip), []
    theirs = DDPMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=clip, variance_type=name)
    theirs.set_timesteps(50)
    draws = gaussians(1, 51, *SHAPE)
    ours = process.sample(lambda x, t: steps.append(x) or smooth_net(x, t), lambda k: draws[k])
    given = iter(draws[1:])
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda shape, **kwargs: next(given).to(kwargs["dtype"])
    )
    x, expected = draws[0], []
    for t in theirs.timesteps:
        expected.append(x)
        x = theirs.step(smooth_net(x.float(), t.expand(len(x))).double(), t, x).prev_sample.double()
    for own, other in zip([*steps, ours], [*expected, x], strict=True):
        torch.testing.assert_close(own.double(), other.double(), atol=2e-5, rtol=2e-5)


def test_noised_items_are_those_of_diffusers():
    process, theirs = DDPM(), DDPMScheduler(beta_start=1e-4, beta_end=0.02)
    x, noise, level_noise = gaussians(2, *SHAPE), gaussians(3, *SHAPE), torch.tensor([-8.0, 0.1, 8.0]).double()
    seen = {}

    def net(x_t, t):
        seen["x_t"], seen["t"] = x_t, t
        return torch.zeros_like(x_t)

    errors = process.loss_terms(net, x, level_noise, noise)
    np.testing.assert_array_equal(seen["t"], [0, 539, 999])
    torch.testing.assert_close(seen["x_t"], theirs.add_noise(x, noise, seen["t"].long()), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(errors, noise.square())


def test_signal_levels_by_hand():
    torch.testing.assert_close(signal_levels(2, 0.1, 0.3), torch.tensor([0.9, 0.63], dtype=torch.float64))


@pytest.mark.parametrize("solver", ["ddim", "ancestral_posterior", "dpmpp_3m"])
def test_the_exact_score_takes_noise_to_the_distribution(solver):
    process = DDPM(n_steps=200, solver=solver, clip=False)
    x = process.sample(exact_net(process), lambda k: gaussians(k, 20_000, 2)).numpy()
    means = np.array(TARGET.means)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - means.mean(axis=0)), 4 * x.std(axis=0) / np.sqrt(len(x)))
    expected = means.var(axis=0) + TARGET.std**2
    np.testing.assert_array_less(np.abs(x.var(axis=0) - expected), 4 * (x**2).std(axis=0) / np.sqrt(len(x)))


def test_quadratic_spacing_goes_from_the_last_level_to_the_first_and_is_densest_there():
    visited = DDPM(n_steps=100).visited()
    assert (visited[0], visited[-1]) == (999, 0)
    steps = -np.diff(visited)
    assert steps[0] == 20
    assert steps[-1] == 1
    assert len(visited) <= 100


def test_quadratic_spacing_of_the_published_code_by_hand():
    # ten steps: 800 (k / 9)^2, rounded down
    visited = DDPM(n_steps=10, spacing="quadratic_0.8").visited()
    np.testing.assert_array_equal(visited, [800, 632, 483, 355, 246, 158, 88, 39, 9, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spacing": "linear"}, "spacing = 'linear' is not allowed; allowed: quadratic, quadratic_0.8, uniform"),
        ({"n_steps": 1001}, "n_steps = 1001 is not allowed: there are n_levels = 1000 levels"),
        ({"solver": "dopri5"}, "solver = 'dopri5' is not allowed; allowed: heun, dpmpp_2m, dpmpp_3m, ddim, ancestral_"),
        ({"beta_last": 1.0}, "beta_last = 1.0 is not allowed"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(DDPM(), **change)
