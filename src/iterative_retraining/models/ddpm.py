"""DDPM (Ho, Jain and Abbeel 2020), sampled by DDIM (Song, Meng and Ermon 2021), its own ancestral steps and others."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.paths import MOST_STEPS, GaussianPaths
from iterative_retraining.models.process import Net, Uncoupled, check_choice, check_numbers, evaluate, wide
from iterative_retraining.models.solvers import SOLVERS, Field

SOLVERS_OF_WHOLE_LEVELS = tuple(name for name, solver in SOLVERS.items() if not solver.in_time)
SPACINGS = ("quadratic", "quadratic_0.8", "uniform")


def signal_levels(n_levels: int, beta_first: float, beta_last: float, device: torch.device | str = "cpu") -> Tensor:
    """alpha-bar_t, t = 0..n_levels - 1, for betas that rise linearly (Ho et al. 2020, section 4), float64."""
    betas = torch.linspace(beta_first, beta_last, n_levels, dtype=torch.float64, device=device)
    return torch.cumprod(1 - betas, dim=0)


@dataclass(frozen=True, kw_only=True)
class DDPM(GaussianPaths, Uncoupled):
    """The process of Ho et al. (2020): ``n_levels`` levels, the network predicts the noise and sees time_scale t.

    n_steps, spacing: the levels that sampling visits; "quadratic" puts more of them near the data (Song et al. 2021,
    appendix D), "quadratic_0.8" does so from level 0.8 n_levels on and rounds down, as published DDIM code does, and
    "uniform" takes every (n_levels / n_steps)-th. Levels that come twice are visited once, to the same end.
    clip: clip predicted items to [-1, 1], as images are. solver: one that asks for no levels between the visited, since
    the network knows whole ones only.
    """

    n_levels: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02
    time_scale: float = 1.0
    n_steps: int = 100
    spacing: str = "quadratic"
    clip: bool = True
    solver: str = "ddim"
    start_data_std: float = 1.0

    def __post_init__(self) -> None:
        check_choice("spacing", self.spacing, SPACINGS)
        check_numbers(
            self,
            counts=("n_levels",),
            positive=("beta_first", "beta_last", "time_scale"),
            at_most={"n_levels": MOST_STEPS},
        )
        self.check_sampler(SOLVERS_OF_WHOLE_LEVELS)
        if self.n_steps > self.n_levels:
            raise ValueError(f"n_steps = {self.n_steps} is not allowed: there are n_levels = {self.n_levels} levels")
        for name in ("beta_first", "beta_last"):
            if not getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it must be below 1")

    def loss_terms(self, net: Net, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """Squared errors of the predicted noise at t uniform among the levels (Eq. 14 of Ho et al. 2020)."""
        t = (torch.special.ndtr(level_noise) * self.n_levels).long().clamp(max=self.n_levels - 1)
        a = signal_levels(self.n_levels, self.beta_first, self.beta_last, x.device)[t].to(x)
        x_t = wide(a.sqrt(), x) * x + wide((1 - a).sqrt(), x) * noise
        return (net(x_t, self.time_scale * t) - noise).square()

    def levels(self) -> Tensor:
        """See `signal_levels`."""
        return signal_levels(self.n_levels, self.beta_first, self.beta_last)

    def visited(self) -> np.ndarray:
        """The levels that sampling visits, falling."""
        if self.spacing == "uniform":
            return np.arange(self.n_steps)[::-1] * (self.n_levels // self.n_steps)
        if self.spacing == "quadratic_0.8":
            levels = np.linspace(0, np.sqrt(0.8 * self.n_levels), self.n_steps) ** 2
        else:
            levels = np.rint(np.linspace(0, np.sqrt(self.n_levels - 1), self.n_steps) ** 2)
        return np.unique(levels.astype(int))[::-1]

    def noise_levels(self) -> Tensor:
        """sigma = sqrt((1 - alpha-bar) / alpha-bar) at the visited levels, then 0."""
        a = self.levels()[self.visited().tolist()]
        return torch.cat([((1 - a) / a).sqrt(), a.new_zeros(1)])

    def field(self, net: Net) -> Field:
        """D = x - sigma eps, clipped if so configured, with eps at x_t = sqrt(alpha-bar) x; at whole levels only."""
        sigmas = ((1 - self.levels()) / self.levels()).sqrt().numpy()

        def denoise(x: Tensor, sigma: float) -> Tensor:
            t = int(np.abs(sigmas - sigma).argmin())
            if not math.isclose(sigmas[t], sigma, rel_tol=1e-9):
                raise ValueError(f"sigma = {sigma} is not a level of this DDPM; the nearest is {sigmas[t]}")
            denoised = x - sigma * evaluate(net, x / math.sqrt(1 + sigma**2), self.time_scale * t)
            return denoised.clamp(-1, 1) if self.clip else denoised

        return Field.of_denoiser(denoise)


DDPM_FAMILY = NetworkFamily("ddpm", "DDPM", DDPM)
