import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

from iterative_retraining.models.dopri5 import dopri5
from iterative_retraining.models.process import wide
from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS

from conftest import exact_velocity

TARGET = DISTRIBUTIONS["eight_gaussians"]


def gaussians(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def velocity(x, t):
    return exact_velocity(TARGET, x, t)


def counted(velocity, counts):
    """``velocity``, that counts in ``counts`` at how many times each item was asked for."""

    def ask(x, t):
        counts.append(t.expand(len(x)).clone())
        return velocity(x, t)

    return ask


@pytest.mark.parametrize("tolerance", [1e-5, 1e-8])
def test_gaussians_of_any_width_are_transported_exactly(tolerance):
    scales = torch.tensor([1e-2, 0.2, 1.0, 5.0], dtype=torch.float64)  # each item an own distribution N(0, scale^2)

    def exact(x, t):
        slope = (scales**2 * t - (1 - t)) / (scales**2 * t**2 + (1 - t) ** 2)
        return wide(slope, x) * x

    noise = gaussians(0, 4, 3, 2, 2)
    torch.testing.assert_close(
        dopri5(exact, noise, tolerance=tolerance),
        wide(scales, noise) * noise,
        atol=200 * tolerance,
        rtol=200 * tolerance,
    )


def test_an_item_takes_the_same_steps_in_any_batch():
    noise, times, alone = gaussians(1, 12, 2), [], []
    whole = dopri5(counted(velocity, times), noise, tolerance=1e-5)
    for i in range(12):
        steps = []
        alone.append(dopri5(counted(velocity, steps), noise[[i]], tolerance=1e-5))
        torch.testing.assert_close(torch.stack(times)[: len(steps), i], torch.cat(steps), atol=1e-11, rtol=0)
    torch.testing.assert_close(whole, torch.cat(alone), atol=1e-11, rtol=0)
    assert len({int((t < 1).sum()) for t in torch.stack(times).T}) > 1  # their steps are not those of one another


def test_it_is_torchdiffeq_on_one_item_at_a_time():
    noise = gaussians(2, 5, 2)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for item in noise[:, None]:
        theirs = odeint(lambda t, x: velocity(x, t), item, times, rtol=1e-10, atol=1e-10, method="dopri5")[-1]
        torch.testing.assert_close(dopri5(velocity, item, tolerance=1e-10), theirs, atol=1e-8, rtol=0)


def test_its_steps_are_those_of_scipy():
    (item,) = gaussians(3, 1, 2)
    ours, tolerance = [], 1e-6

    def flat(t, x):
        return velocity(torch.from_numpy(x)[None], torch.tensor([t], dtype=torch.float64))[0].numpy()

    end = dopri5(counted(velocity, ours), item[None], tolerance=tolerance)[0]
    theirs = solve_ivp(flat, (0, 1), item.numpy(), "RK45", rtol=tolerance, atol=tolerance, first_step=tolerance**0.2)
    np.testing.assert_allclose(end, theirs.y[:, -1], atol=1e-7)
    assert len(ours) == theirs.nfev


def test_an_item_that_is_not_finite_ends_and_the_others_do_not_notice():
    noise = gaussians(4, 4, 2)
    broken = noise.clone()
    broken[1, 0] = torch.nan
    broken[2] = torch.inf
    end, whole = dopri5(velocity, broken, tolerance=1e-5), dopri5(velocity, noise, tolerance=1e-5)
    torch.testing.assert_close(end[[0, 3]], whole[[0, 3]], atol=1e-12, rtol=0)
    assert not torch.isfinite(end[1:3]).all(dim=1).any()


def test_a_tolerance_out_of_reach_is_said():
    with pytest.raises(FloatingPointError, match="tolerance = 1e-40 cannot be reached"):
        dopri5(velocity, gaussians(5, 2, 2), tolerance=1e-40)
