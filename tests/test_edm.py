from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from iterative_retraining.models.edm import EDM, denoising_errors, precondition
from iterative_retraining.models.gain import gaussian_field
from iterative_retraining.models.solvers import Field, karras_levels


def gaussian_denoiser(std):
    """The exact denoiser of N(0, std^2): the posterior mean."""
    return lambda x, sigma: x * (std**2 / (std**2 + sigma.view(-1, 1) ** 2)).to(x.dtype)


def test_noise_levels_are_equation_5():
    levels = karras_levels(18, 0.002, 80, 7)
    i = np.arange(18)
    exact = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(levels[:-1], exact, rtol=1e-12)
    assert levels[-1] == 0


def test_preconditioning_has_unit_variance_in_and_out():
    # Table 1 is derived from this: with data of variance sigma_data^2, the network's input and target have variance 1.
    torch.manual_seed(0)
    sigma = torch.tensor([0.01, 0.5, 20.0]).repeat_interleave(200_000).double()
    y, noise = 0.5 * torch.randn(len(sigma), 1).double(), torch.randn(len(sigma), 1).double()
    seen = {}

    def net(x, level):
        seen["input"], seen["level"] = x, level
        return torch.zeros_like(x)

    skip = precondition(net, y + sigma[:, None] * noise, sigma, 0.5)
    c_out = sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    target = (y - skip)[:, 0] / c_out
    for part in range(3):
        rows = slice(part * 200_000, (part + 1) * 200_000)
        np.testing.assert_allclose(seen["input"][rows].var(), 1, rtol=0.02)
        np.testing.assert_allclose(target[rows].var(), 1, rtol=0.02)
    torch.testing.assert_close(seen["level"], sigma.log() / 4)


def test_loss_of_the_exact_denoiser_is_the_posterior_variance():
    # E |D - y|^2 = s^2 sigma^2 / (s^2 + sigma^2); under the weight of table 1 with s = sigma_data the loss is 1.
    torch.manual_seed(0)
    x, noise = 0.5 * torch.randn(400_000, 1), torch.randn(400_000, 1)
    sigma = torch.full((400_000,), 1.7)
    loss = denoising_errors(gaussian_denoiser(0.5), x, sigma, noise, 0.5).mean()
    assert abs(loss.item() - 1) < 4 * np.sqrt(2 / 400_000)


def test_heun_with_the_exact_denoiser_transports_the_noise_to_the_data_distribution():
    # For N(0, s^2) the ODE is solved by x(0) = x(T) s / sqrt(s^2 + T^2): compare pointwise, and the order of the error.
    noise, s = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).double(), 0.5
    exact = 80 * noise * s / np.sqrt(s**2 + 80**2)
    errors = []
    for n_steps in (32, 64, 128):
        x = EDM(n_steps=n_steps).integrate(gaussian_field(s), lambda k: noise)
        errors.append(((x - exact).abs() / exact.abs()).max().item())
    assert errors[0] < 2e-2
    assert errors[2] < 2e-3
    assert errors[0] / errors[1] > 3  # second order: halving the step quarters the error


def test_heun_recovers_a_mixture():
    means, s = torch.tensor([-1.0, 1.0]).double(), 0.2

    def denoise(x, sigma):
        variance = s**2 + sigma**2
        weights = torch.softmax(-((x - means) ** 2) / (2 * variance), dim=1)
        posterior = (means * variance + (x - means) * s**2) / variance
        return (weights * posterior).sum(dim=1, keepdim=True)

    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(1))
    x = EDM(n_steps=40).integrate(Field.of_denoiser(denoise), lambda k: noise)[:, 0].numpy()
    exact = np.concatenate([stats.norm(m, s).ppf((np.arange(20_000) + 0.5) / 20_000) for m in (-1, 1)])
    assert stats.ks_2samp(x, exact).pvalue > 1e-3


def test_the_network_is_asked_twice_a_step_less_one_in_float32():
    calls = []
    EDM(n_steps=5).sample(lambda x, level: calls.append((x.dtype, level)) or x, lambda k: torch.randn(2, 1))
    assert len(calls) == 9
    levels = [level.mul(4).exp()[0].item() for _, level in calls]  # c_noise = ln(sigma) / 4
    assert (levels[0], levels[-1]) == (pytest.approx(80), pytest.approx(0.002))
    assert {dtype for dtype, _ in calls} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_steps": 0}, "n_steps = 0"),
        ({"sigma_data": float("nan")}, "sigma_data = nan"),
        ({"sigma_max": 0.001}, "sigma_max = 0.001"),
        ({"solver": "euler"}, "solver = 'euler' is not allowed; allowed: heun, dpmpp_2m, dpmpp_3m, ddim, ancestral_"),
        ({"tolerance": 0.0}, "tolerance = 0.0 is not allowed: it must be above 0"),
        ({"p_std": "wide"}, "p_std = 'wide' is not allowed: it must be of type float"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(EDM(), **change)
