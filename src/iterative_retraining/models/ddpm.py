"""DDPM (Ho, Jain and Abbeel 2020), sampled by DDIM (Song, Meng and Ermon 2021) or by its own ancestral steps."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.process import Draw, Net, Uncoupled, check_choice, check_numbers, evaluate, wide

SPACINGS = ("quadratic", "quadratic_0.8", "uniform")


def signal_levels(n_levels: int, beta_first: float, beta_last: float) -> Tensor:
    """alpha-bar_t, t = 0..n_levels - 1, for betas that rise linearly (Ho et al. 2020, section 4), float64."""
    return torch.cumprod(1 - torch.linspace(beta_first, beta_last, n_levels, dtype=torch.float64), dim=0)


def ddim_step(
    x: Tensor, eps: Tensor, a: float, a_next: float, *, eta: float, noise: Tensor | None, clip: bool
) -> Tensor:
    """Eq. 12 of Song et al. (2021): from signal level ``a`` to ``a_next``, with sigma by their Eq. 16.

    eta = 0 is DDIM, eta = 1 the ancestral step of DDPM with the posterior's variance; ``noise`` unit Gaussian like x,
    not used if eta = 0. With ``clip`` the predicted item is clipped to [-1, 1] first, and ``eps`` made to fit.
    """
    predicted = (x - (1 - a) ** 0.5 * eps) / a**0.5
    if clip:
        predicted = predicted.clamp(-1, 1)
        eps = (x - a**0.5 * predicted) / (1 - a) ** 0.5
    variance = eta**2 * (1 - a_next) / (1 - a) * (1 - a / a_next)
    x_next = a_next**0.5 * predicted + max(0.0, 1 - a_next - variance) ** 0.5 * eps
    return x_next if variance == 0 else x_next + variance**0.5 * noise


@dataclass(frozen=True, kw_only=True)
class DDPM(Uncoupled):
    """The process of Ho et al. (2020): ``n_levels`` levels, the network predicts the noise and sees time_scale t.

    n_steps, spacing: the levels that sampling visits; "quadratic" puts more of them near the data (Song et al. 2021,
    appendix D), "quadratic_0.8" does so from level 0.8 n_levels on and rounds down, as published DDIM code does, and
    "uniform" takes every (n_levels / n_steps)-th. Levels that come twice are visited once, to the same end.
    eta: 0 for DDIM, 1 for ancestral sampling. clip: clip predicted items to [-1, 1], as images are.
    """

    n_levels: int = 1000
    beta_first: float = 1e-4
    beta_last: float = 0.02
    time_scale: float = 1.0
    n_steps: int = 100
    spacing: str = "quadratic"
    eta: float = 0.0
    clip: bool = True

    def __post_init__(self) -> None:
        check_choice("spacing", self.spacing, SPACINGS)
        check_numbers(self, counts=("n_levels", "n_steps"), positive=("beta_first", "beta_last", "time_scale"))
        if self.n_steps > self.n_levels:
            raise ValueError(f"n_steps = {self.n_steps} is not allowed: there are {self.n_levels} levels")
        if not self.beta_last < 1:
            raise ValueError(f"beta_last = {self.beta_last} is not allowed: it must be below 1")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta = {self.eta} is not allowed: it must lie in [0, 1]")

    def loss_terms(self, net: Net, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """Squared errors of the predicted noise at t uniform among the levels (Eq. 14 of Ho et al. 2020)."""
        t = (torch.special.ndtr(level_noise) * self.n_levels).long().clamp(max=self.n_levels - 1)
        a = self.levels()[t.cpu()].to(x)
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

    def sample(self, net: Net, draw: Draw) -> Tensor:
        """`ddim_step` through the visited levels from ``draw(0)``; step k adds ``draw(k + 1)`` where eta > 0."""
        levels, visited = self.levels().tolist(), self.visited().tolist()
        x = draw(0).double()
        for k, (t, t_next) in enumerate(zip(visited, [*visited[1:], None], strict=True)):
            a_next = 1.0 if t_next is None else levels[t_next]
            eps = evaluate(net, x, self.time_scale * t)
            noise = draw(k + 1).double() if self.eta and t_next is not None else None
            x = ddim_step(x, eps, levels[t], a_next, eta=self.eta, noise=noise, clip=self.clip)
        return x


DDPM_FAMILY = NetworkFamily("ddpm", "DDPM", DDPM)
