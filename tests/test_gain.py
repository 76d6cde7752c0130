"""The gain of samplers: by hand, by simulation, and the numbers that the choice of samplers rests on."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.gain import cheapest_sampler, evaluations, gaussian_field, sampler_gain, spectrum_gains
from iterative_retraining.studies.toy2d.members import PLANE_FAMILIES

ANCESTRAL = DDPM(solver="ancestral_posterior", spacing="uniform", n_steps=1000)


@pytest.mark.parametrize(
    ("process", "gain"),
    [
        (EDM(), 1.0965),
        (EDM(sigma_max=20.0), 1.0549),
        (EDM(sigma_max=20.0, n_steps=80), 1.0020),
        (EDM(solver="dpmpp_3m", n_steps=35), 1.0008),
        (FlowMatching(n_steps=8), 0.9716),
        (FlowMatching(n_steps=10), 0.9861),
        (FlowMatching(n_steps=16), 0.9983),
        (FlowMatching(solver="dopri5"), 1.0001),
        (DDPM(n_steps=50), 0.9341),
        (DDPM(n_steps=100), 0.9625),
        (ANCESTRAL, 0.9538),
        (replace(ANCESTRAL, solver="ancestral_beta"), 1.0084),
    ],
)
def test_gains_at_a_standard_deviation_of_8_hundredths(process, gain):
    assert sampler_gain(process, 0.08) == pytest.approx(gain, abs=1e-4)


def test_heun_by_hand():
    x, levels = 80.0, EDM(n_steps=5).noise_levels().tolist()
    for a, b in pairwise(levels):
        d = x * a / (a**2 + 0.01)
        x_next = x + (b - a) * d
        x = x + (b - a) * (d + x_next * b / (b**2 + 0.01)) / 2 if b else x_next
    assert sampler_gain(EDM(n_steps=5), 0.1) == pytest.approx(x / 0.1, rel=1e-12)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_ancestral_steps_by_their_variance(variance):
    """The recursion of the variance of x_t, in the notation of Ho et al. (2020): mean of Eq. 7, alpha-bar as a."""
    process, s2 = DDPM(solver=f"ancestral_{variance}", n_steps=20), 0.04
    a = [*process.levels()[process.visited().tolist()].tolist(), 1.0]
    of_x = 1.0
    for now, after in pairwise(a):
        beta, alpha = 1 - now / after, now / after
        to_data = s2 * now**0.5 / (s2 * now + 1 - now)
        factor = after**0.5 * beta / (1 - now) * to_data + alpha**0.5 * (1 - after) / (1 - now)
        added = beta if variance == "beta" and after < 1 else beta * (1 - after) / (1 - now)
        of_x = factor**2 * of_x + added
    assert sampler_gain(process, 0.2) == pytest.approx((of_x / s2) ** 0.5, rel=1e-9)


@pytest.mark.parametrize(
    "process",
    [EDM(n_steps=6), EDM(solver="dpmpp_3m", n_steps=12), FlowMatching(n_steps=4), FlowMatching(solver="dopri5"),
     DDPM(n_steps=20, clip=False), DDPM(n_steps=20, solver="ancestral_posterior", clip=False),
     DDPM(n_steps=20, solver="ancestral_beta", clip=False), EDM(solver="ancestral_beta", n_steps=12)],
)  # fmt: skip
def test_simulation_gives_the_gain(process):
    n, std = 40_000, 0.2
    x = process.integrate(
        gaussian_field(std), lambda k: torch.from_numpy(np.random.default_rng(k).standard_normal((n, 1)))
    )
    assert abs(x.std().item() / std / sampler_gain(process, std) - 1) < 4 / np.sqrt(2 * n)


def test_a_spectrum_is_its_eigenvalues_one_by_one():
    process = DDPM(n_steps=20, solver="ancestral_beta")
    one_by_one = [sampler_gain(process, std) for std in (1.5, 0.3, 0.05)]
    np.testing.assert_allclose(spectrum_gains(process, [2.25, 0.09, 0.0025]), one_by_one, rtol=1e-12)
    with pytest.raises(ValueError, match=r"eigenvalue 0.0 is not allowed"):
        spectrum_gains(process, [1.0, 0.0])


def test_the_cheapest_sampler_is_exact_enough_and_no_cheaper_one_is():
    spectrum = [1.0, 0.1, 0.01]
    candidates = [EDM(solver=s, n_steps=n, sigma_max=20.0) for s in ("heun", "dpmpp_3m") for n in range(6, 60)]
    found = cheapest_sampler(candidates, spectrum)
    assert abs(spectrum_gains(found, spectrum) - 1).max() <= 0.005
    for other in candidates:
        if evaluations(other) < evaluations(found):
            assert abs(spectrum_gains(other, spectrum) - 1).max() > 0.005
    with pytest.raises(ValueError, match=r"no sampler has all gains within 0.005 of 1: the best is off by 0.1"):
        cheapest_sampler([EDM(n_steps=18)], [0.0025])


@pytest.mark.parametrize("family", ["ddpm", "edm", "flow_matching"])
def test_the_plane_is_sampled_within_half_a_per_cent(family):
    gains = spectrum_gains(PLANE_FAMILIES[family].process, np.square([0.06, 0.08, 0.1, 0.2, 0.5, 0.7]))
    np.testing.assert_allclose(gains, 1, atol=0.005)
