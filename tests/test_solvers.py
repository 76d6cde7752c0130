"""Solvers against exact solutions in one dimension, against diffusers, and what they do on every family of paths."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler

from iterative_retraining import TrainingSet, build_model, resolve_options
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.gain import evaluations, gaussian_field
from iterative_retraining.models.paths import SAMPLER_OPTIONS
from iterative_retraining.models.solvers import SOLVERS, Field, karras_levels

MEANS, SHARES, STD = torch.tensor([-1.0, 0.4]).double(), torch.tensor([0.3, 0.7]).double(), 0.3
FAMILIES = {"edm": EDM(), "flow_matching": FlowMatching(spacing="karras", n_steps=18), "ddpm": DDPM(clip=False)}


def mixture(x, sigma):
    """The exact denoiser of a mixture of two Gaussians of one standard deviation; x (B, 1)."""
    variance = STD**2 + sigma**2
    shares = torch.softmax(SHARES.log() - (x - MEANS) ** 2 / (2 * variance), dim=1)
    return (shares * (MEANS * sigma**2 + x * STD**2)).sum(dim=1, keepdim=True) / variance


def transported(x, sigma, sigma_next):
    """Where the flow takes x at sigma: the point of the same cumulative probability, by bisection."""

    def below(x, sigma):
        return (SHARES * torch.special.ndtr((x - MEANS) / math.hypot(STD, sigma))).sum(dim=1, keepdim=True)

    low, high = torch.full_like(x, -500), torch.full_like(x, 500)
    for _ in range(80):
        middle = (low + high) / 2
        high, low = (
            torch.where(below(middle, sigma_next) > below(x, sigma), *o) for o in ((middle, high), (low, middle))
        )
    return low


def latents(n=41):
    return torch.linspace(-2, 2, n, dtype=torch.float64)[:, None]


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2), ("dpmpp_3m", 2), ("rk4", 4)])
def test_the_error_falls_with_the_number_of_steps_as_the_order_says(name, order):
    counts, errors = np.array([100, 200, 400]), []
    exact = transported(20 * latents(), 20.0, 0.02)
    for n in counts:
        levels = karras_levels(n + 1, 0.02, 20.0, 7.0)[:-1].tolist()  # without the step to 0, which has no order
        if SOLVERS[name].in_time:
            times = [1 / (1 + sigma) for sigma in levels]
            x = SOLVERS[name].solve(Field.of_denoiser(mixture).velocity, times[0] * 20 * latents(), times) / times[-1]
        else:
            x = SOLVERS[name].solve(mixture, 20 * latents(), levels)
        errors.append((x - exact).abs().max().item())
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.2)


def test_dopri5_is_as_exact_as_its_tolerance():
    times, velocity = (1 / 21, 1 / 1.02), Field.of_denoiser(lambda x, sigma: mixture(x, sigma.view(-1, 1))).velocity
    x = SOLVERS["dopri5"].solve(velocity, times[0] * 20 * latents(), times, tolerance=1e-8) / times[-1]
    torch.testing.assert_close(x, transported(20 * latents(), 20.0, 0.02), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "order"), [("dpmpp_2m", 2), ("dpmpp_3m", 3)])
def test_multistep_solvers_are_those_of_diffusers_step_by_step(name, order):
    theirs = EDMDPMSolverMultistepScheduler(sigma_min=0.02, sigma_max=20.0, sigma_data=0.5, rho=7.0, solver_order=order)
    theirs.set_timesteps(20)  # with fewer than 15 the last steps are of lower order there
    theirs.sigmas = theirs.sigmas.double()
    seen, expected, x = [], [], theirs.sigmas[0] * latents()
    ours = SOLVERS[name].solve(lambda x, sigma: seen.append(x) or mixture(x, sigma), x, theirs.sigmas.tolist())
    for sigma, t in zip(theirs.sigmas, theirs.timesteps, strict=False):
        expected.append(x)
        c_skip, c_out = 0.25 / (sigma**2 + 0.25), sigma * 0.5 / (sigma**2 + 0.25).sqrt()
        x = theirs.step((mixture(x, sigma.item()) - c_skip * x) / c_out, t, x).prev_sample.double()
    for own, other in zip([*seen, ours], [*expected, x], strict=True):
        torch.testing.assert_close(own, other, atol=2e-6, rtol=2e-6)


def test_ddim_is_euler_and_heun_by_hand():
    torch.testing.assert_close(
        SOLVERS["ddim"].solve(lambda x, s: x / 4, torch.ones(1, 1), [2.0, 1.0]), torch.tensor([[0.625]])
    )
    # d = 3/8; x' = 5/8; d' = 15/32; x = 1 - (3/8 + 15/32) / 2
    torch.testing.assert_close(
        SOLVERS["heun"].solve(lambda x, s: x / 4, torch.ones(1, 1), [2.0, 1.0]), torch.tensor([[0.578125]])
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_brings_gaussians_home_on_every_family_or_is_refused_by_name(solver, family):
    if family == "ddpm" and SOLVERS[solver].in_time:
        with pytest.raises(ValueError, match=f"solver = '{solver}' is not allowed; allowed: heun, "):
            replace(FAMILIES[family], solver=solver)
        return
    process = replace(FAMILIES[family], solver=solver, n_steps=400)
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 4000, 1)))
    x = process.integrate(
        gaussian_field(torch.tensor([0.5]).double()),
        lambda k: z[min(k, 1)] if k < 2 else torch.from_numpy(np.random.default_rng(k).standard_normal((4000, 1))),
    )
    assert x.std().item() == pytest.approx(0.5, rel=0.04)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_families_are_one_denoiser(family):
    """What a network of a family says about a Gaussian is its exact denoiser, so one solver serves all."""
    process, s2 = FAMILIES[family], 0.25

    def net(x, level):
        level = level.double().view(-1, 1)
        if family == "edm":  # c_noise = log(sigma) / 4; D = x at sigma_data = 0.5 makes F vanish
            return torch.zeros_like(x)
        if family == "flow_matching":
            t = level / process.time_scale
            return x * (s2 * t - (1 - t)) / (s2 * t**2 + (1 - t) ** 2)
        a = process.levels()[level.long()]
        return x * (1 - a).sqrt() / (s2 * a + 1 - a)

    field, x = process.field(net), torch.tensor([[0.3], [-2.0]]).double()
    for sigma in process.noise_levels()[:-1:5].tolist():
        torch.testing.assert_close(field.denoise(x, sigma), x * s2 / (s2 + sigma**2), atol=1e-5, rtol=1e-3)


def test_ddpm_has_no_denoiser_between_its_levels():
    with pytest.raises(ValueError, match=r"sigma = 0.0105 is not a level of this DDPM; the nearest is 0.0100"):
        DDPM().field(lambda x, level: x).denoise(torch.ones(1, 1).double(), 0.0105)


def test_the_start_has_the_variance_of_noise_and_data():
    seen = []
    process = EDM(n_steps=1, solver="ddim", start_data_std=60.0)
    process.integrate(Field(lambda x, sigma: seen.append(x) or x, lambda x, t: x), lambda k: torch.ones(1, 1))
    torch.testing.assert_close(seen[0], torch.tensor([[100.0]]).double())
    with pytest.raises(ValueError, match=r"start_data_std = -1.0 is not allowed"):
        EDM(start_data_std=-1.0)


@pytest.mark.parametrize(
    ("process", "count"),
    [(EDM(), 35), (EDM(solver="dpmpp_3m", n_steps=24), 24), (EDM(solver="rk4", n_steps=9), 33),
     (FlowMatching(), 32), (FlowMatching(spacing="karras", solver="ddim"), 8), (EDM(solver="dopri5"), None)],
)  # fmt: skip
def test_evaluations(process, count):
    assert evaluations(process) == count


@pytest.mark.parametrize(
    ("model", "changed"),
    [
        (
            "edm",
            {"solver": "heun", "n_steps": 5, "rho": 5.0, "sigma_min": 0.1, "sigma_max": 9.0, "tolerance": 0.1},
        ),
        ("flow_matching", {"solver": "rk4", "spacing": "time", "n_steps": 4, "rho": 5.0, "sigma_max": 20.0}),
        ("ddpm", {"solver": "ddim", "spacing": "uniform", "n_steps": 7, "clip": False, "sampling_batch_size": 50}),
    ],
)
def test_options_of_the_sampler_do_not_touch_training(model, changed, digits):
    assert set(changed) <= set(SAMPLER_OPTIONS)
    states = []
    for own in ({}, changed):
        options = resolve_options(model, "digits", {"channels": 4, "attention_resolutions": []} | own)
        fitted = build_model(model, digits.shape[1:], options, n_images_initial=256)
        states.append(fitted.fit(TrainingSet.of(digits), seed=1).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
