import numpy as np
import torch

from iterative_retraining.laws import LAWS
from iterative_retraining.models.flow_matching import flow_matching_errors, integrate_rk4

LAW = LAWS["eight_gaussians"]


def exact_velocity(x, t):
    """E[x_1 - noise | x_t], for the mixture: given its component all is Gaussian."""
    means, t = torch.tensor(LAW.means, dtype=torch.float64), t[0].double()
    variance = (t * LAW.std) ** 2 + (1 - t) ** 2
    gaps = x.double()[:, None] - t * means
    shares = torch.softmax(-0.5 * (gaps**2).sum(dim=2) / variance, dim=1)
    each = means + (t * LAW.std**2 - (1 - t)) / variance * gaps
    return (shares[:, :, None] * each).sum(dim=1)


def test_polynomials_up_to_the_third_degree_are_integrated_exactly():
    start = torch.tensor([[0.5, -1.0]], dtype=torch.float64)
    end = integrate_rk4(lambda x, t: 3 * t[:, None] ** 2 + torch.zeros_like(x), start, n_steps=3)
    torch.testing.assert_close(end, start + 1, atol=1e-6, rtol=0)


def test_the_exact_velocity_takes_noise_to_the_law():
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 2)))
    x = integrate_rk4(exact_velocity, noise, n_steps=60).numpy()
    means = np.array(LAW.means)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - means.mean(axis=0)), 4 * x.std(axis=0) / np.sqrt(len(x)))
    expected = means.var(axis=0) + LAW.std**2
    np.testing.assert_array_less(np.abs(x.var(axis=0) - expected), 4 * (x**2).std(axis=0) / np.sqrt(len(x)))


def test_the_loss_is_least_at_the_exact_velocity():
    rng = np.random.default_rng(1)
    x, noise = torch.from_numpy(LAW.sample(20_000, seed=2)), torch.from_numpy(rng.standard_normal((20_000, 2)))
    t = torch.full((20_000,), 0.6, dtype=torch.float64)
    best = flow_matching_errors(exact_velocity, x, t, noise).mean()
    for shift in (-0.3, 0.3):
        worse = flow_matching_errors(lambda p, s, shift=shift: exact_velocity(p, s) + shift, x, t, noise).mean()
        torch.testing.assert_close(worse - best, torch.tensor(0.09).double(), atol=0.02, rtol=0)
