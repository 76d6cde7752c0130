"""Conditional flow matching (Lipman et al. 2023; Tong et al. 2024): straight paths from noise to data."""

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # of x (B, ...) and t (B,), like x


def flow_matching_errors(velocity: Velocity, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """The squared errors of v((1 - t) noise + t x, t) against x - noise, like x (B, ...); their mean is the loss.

    t (B,) in [0, 1], noise unit Gaussian, independent of x: the independent coupling of Tong et al. (2024),
    with no smoothing around the path.
    """
    wide = t.view(-1, *[1] * (x.ndim - 1))
    return (velocity((1 - wide) * noise + wide * x, t) - (x - noise)).square()


def integrate_rk4(velocity: Velocity, noise: Tensor, *, n_steps: int) -> Tensor:
    """The flow dx/dt = v(x, t) from ``noise`` (B, ...) at t = 0 to t = 1: the classical Runge-Kutta method.

    4 n_steps evaluations; the network sees float32, the state is float64, which is returned.
    """
    x, h = noise.double(), 1 / n_steps

    def slope(x: Tensor, t: float) -> Tensor:
        return velocity(x.float(), torch.full((len(x),), t, device=x.device)).double()

    for step in range(n_steps):
        t = step * h
        first = slope(x, t)
        second = slope(x + h / 2 * first, t + h / 2)
        third = slope(x + h / 2 * second, t + h / 2)
        fourth = slope(x + h * third, t + h)
        x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x
