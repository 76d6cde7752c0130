"""Solvers of the probability flow: pure functions from latents to data, one for all families of Gaussian paths.

Every family adds noise to data along the same paths, x = data + sigma noise, up to a scale: flow matching has
sigma = (1 - t) / t and x_t / t for x, DDPM has sigma = sqrt((1 - alpha-bar) / alpha-bar) and x_t / sqrt(alpha-bar). So
a solver asks for the denoiser D(x; sigma) alone, the expected data, and follows dx/dsigma = (x - D) / sigma (Eq. 1 of
Karras et al. 2022) down a list of levels; or it follows the velocity of the flow x_t = (1 - t) noise + t data in time.
States are float64.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Self

import torch
from torch import Tensor

from iterative_retraining.models.dopri5 import dopri5
from iterative_retraining.models.process import Draw

Denoise = Callable[[Tensor, float], Tensor]  # of x = data + sigma noise (B, ...), float64, and sigma; like x
Velocity = Callable[[Tensor, float | Tensor], Tensor]  # of x_t (B, ...), float64, and the time t, one or (B,); like x_t


def karras_levels(n_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Eq. 5 of Karras et al. (2022): n_steps levels from sigma_max to sigma_min, then 0; float64 (n_steps + 1,)."""
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


@dataclass(frozen=True)
class Field:
    """What solvers follow: the denoiser D(x; sigma), and the same as the velocity v(x_t, t) of the flow.

    D = x_t + (1 - t) v at x_t = t x, sigma = (1 - t) / t.
    """

    denoise: Denoise
    velocity: Velocity

    @classmethod
    def of_denoiser(cls, denoise: Callable[[Tensor, float | Tensor], Tensor]) -> Self:
        """The velocity from the denoiser, for 0 < t < 1; the denoiser takes one sigma or (B,)."""

        def velocity(x_t: Tensor, t: float | Tensor) -> Tensor:
            wide = t.view(-1, *[1] * (x_t.ndim - 1)) if isinstance(t, Tensor) else t
            return (denoise(x_t / wide, (1 - t) / t) - x_t) / (1 - wide)

        return cls(denoise, velocity)

    @classmethod
    def of_velocity(cls, velocity: Velocity) -> Self:
        """The denoiser from the velocity."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            t = 1 / (1 + sigma)
            return t * x + (1 - t) * velocity(t * x, t)

        return cls(denoise, velocity)


def heun(denoise: Denoise, start: Tensor, levels: Sequence[float]) -> Tensor:
    """Algorithm 1 of Karras et al. (2022), second order: two evaluations a step, one for a step to 0.

    start (B, ...), float64, at the first of the falling ``levels``.
    """
    x = start
    for sigma, sigma_next in pairwise(levels):
        d = (x - denoise(x, sigma)) / sigma
        x_next = x + (sigma_next - sigma) * d
        if sigma_next > 0:
            d_next = (x_next - denoise(x_next, sigma_next)) / sigma_next
            x_next = x + (sigma_next - sigma) * 0.5 * (d + d_next)
        x = x_next
    return x


def ddim(denoise: Denoise, start: Tensor, levels: Sequence[float]) -> Tensor:
    """DDIM, Eq. 12 of Song et al. (2021) with their sigma_t = 0: first order, one evaluation a step.

    In x = x_t / sqrt(alpha-bar) it is Euler's method in sigma (their Eq. 13). start: see `heun`.
    """
    x = start
    for sigma, sigma_next in pairwise(levels):
        denoised = denoise(x, sigma)
        x = denoised + sigma_next / sigma * (x - denoised)
    return x


def ancestral(denoise: Denoise, start: Tensor, levels: Sequence[float], draw: Draw, *, variance: str) -> Tensor:
    """The ancestral steps of DDPM, Algorithm 2 of Ho et al. (2020), one evaluation each; start: see `heun`.

    Step k = 0, 1, ... adds ``draw(k + 1)`` with one of the variances of their section 3.2, that of the "posterior" (Eq.
    7) or "beta", over alpha-bar as x is x_t / sqrt(alpha-bar); a step to 0 adds none.
    """
    x = start
    for k, (sigma, sigma_next) in enumerate(pairwise(levels)):
        denoised, ratio = denoise(x, sigma), (sigma_next / sigma) ** 2
        x = denoised + ratio * (x - denoised)
        if sigma_next > 0:
            added = sigma**2 - sigma_next**2
            added *= ratio if variance == "posterior" else (1 + sigma_next**2) / (1 + sigma**2)
            x = x + added**0.5 * draw(k + 1).double()
    return x


def dpmpp_2m(denoise: Denoise, start: Tensor, levels: Sequence[float]) -> Tensor:
    """DPM-Solver++(2M), Algorithm 2 of Lu et al. (2022): second order, one evaluation a step; start: see `heun`."""
    return _multistep(denoise, start, levels, order=2)


def dpmpp_3m(denoise: Denoise, start: Tensor, levels: Sequence[float]) -> Tensor:
    """DPM-Solver++(3M), the three-level form of the authors' code (Lu et al. 2022), one evaluation a step.

    See `_multistep` for its true order; start: see `heun`.
    """
    return _multistep(denoise, start, levels, order=3)


def _multistep(denoise: Denoise, start: Tensor, levels: Sequence[float], order: int) -> Tensor:
    """Eq. 8 of Lu et al. (2022): D extrapolated in l = -log sigma through the levels seen before, integrated exactly.

    x(b) = b / a x(a) + b * integral of e^l D(l) dl from -log a to -log b; step k = 0, 1, ... uses min(k + 1, order)
    levels, and a step to 0 ends at D. Two levels: the authors' midpoint form, second order. Three: the parabola through
    them, but with half its curvature, as in the authors' code and in those after it. So it is of second order too; with
    all the curvature it would be of third, yet with the 20 to 40 steps in use on Gaussian data its gain is further off.
    """
    x, seen = start, []  # of the levels before, latest first: D, and the step in l that followed
    for sigma, sigma_next in pairwise(levels):
        denoised = denoise(x, sigma)
        if sigma_next == 0:
            return denoised
        h = math.log(sigma / sigma_next)
        gain = -math.expm1(-h)
        x = sigma_next / sigma * x + gain * denoised
        if seen:
            slope = (denoised - seen[0][0]) / seen[0][1]
        if len(seen) == 1:
            x = x + gain * h / 2 * slope
        elif seen:
            slope_before = (seen[0][0] - seen[1][0]) / seen[1][1]
            curvature = (slope - slope_before) / (seen[0][1] + seen[1][1])
            x = x + (h - gain) * (slope + seen[0][1] * curvature) + (h**2 / 2 - (h - gain)) * curvature
        seen = [(denoised, h), *seen][: order - 1]
    return x


def rk4(velocity: Velocity, start: Tensor, times: Sequence[float]) -> Tensor:
    """The flow dx/dt = v(x, t) by the classical Runge-Kutta method, fourth order, 4 evaluations a step.

    start (B, ...), float64, at the first of the rising ``times``.
    """
    x = start
    for t, t_next in pairwise(times):
        h = t_next - t
        first = velocity(x, t)
        second = velocity(x + h / 2 * first, t + h / 2)
        third = velocity(x + h / 2 * second, t + h / 2)
        fourth = velocity(x + h * third, t + h)
        x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x


@dataclass(frozen=True)
class Solver:
    """A solver and what the rest asks of it.

    solve: of a denoiser, a start and levels, with ``draw`` if ``noisy``; or, ``in_time``, of a velocity, a start and
    times, where it asks between them too, with ``tolerance`` if ``adaptive``, that is if it chooses its own steps.
    """

    solve: Callable[..., Tensor]
    noisy: bool = False
    in_time: bool = False
    adaptive: bool = False


SOLVERS: dict[str, Solver] = {
    "heun": Solver(heun),
    "dpmpp_2m": Solver(dpmpp_2m),
    "dpmpp_3m": Solver(dpmpp_3m),
    "ddim": Solver(ddim),
    "ancestral_posterior": Solver(partial(ancestral, variance="posterior"), noisy=True),
    "ancestral_beta": Solver(partial(ancestral, variance="beta"), noisy=True),
    "rk4": Solver(rk4, in_time=True),
    "dopri5": Solver(dopri5, in_time=True, adaptive=True),
}
