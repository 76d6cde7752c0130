"""EDM, the diffusion model of Karras, Aittala, Aila and Laine (2022), written from the equations of the paper."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.process import Draw, Net, Uncoupled, check_numbers, evaluate, wide

Denoiser = Callable[[Tensor, Tensor], Tensor]


def precondition(net: Net, x: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """The denoiser D(x; sigma) of Eq. 7, with the coefficients of table 1: x (B, ...), sigma (B,) -> like x."""
    variance = sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / variance, sigma * sigma_data / variance.sqrt()
    c_in, c_noise = 1 / variance.sqrt(), sigma.log() / 4
    return wide(c_skip, x) * x + wide(c_out, x) * net(wide(c_in, x) * x, c_noise)


def denoising_errors(denoise: Denoiser, x: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float) -> Tensor:
    """The terms of Eq. 2 under the weight lambda(sigma) of table 1, like x (B, ...); their mean is the loss.

    noise unit Gaussian, like x; sigma (B,).
    """
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    error = denoise(x + wide(sigma, x) * noise, sigma) - x
    return wide(weight, x) * error.square()


def noise_levels(n_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Eq. 5: n_steps levels from sigma_max down to sigma_min, then 0, float64 (n_steps + 1,)."""
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def sample_heun(
    net: Denoiser,
    noise: Tensor,
    *,
    n_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Algorithm 1 of Karras et al. (2022), deterministic: 2 n_steps - 1 evaluations of ``net(x, sigma)``.

    noise is unit Gaussian (B, ...); the network sees float32, the state is float64, which is returned.
    """
    levels = noise_levels(n_steps, sigma_min, sigma_max, rho).tolist()
    x = noise.double() * levels[0]

    def slope(x: Tensor, sigma: float) -> Tensor:
        return (x - evaluate(net, x, sigma)) / sigma

    for sigma, sigma_next in pairwise(levels):
        d = slope(x, sigma)
        x_next = x + (sigma_next - sigma) * d
        if sigma_next > 0:
            x_next = x + (sigma_next - sigma) * 0.5 * (d + slope(x_next, sigma_next))
        x = x_next
    return x


@dataclass(frozen=True, kw_only=True)
class EDM(Uncoupled):
    """The process of Karras et al. (2022); the defaults are the values of table 1."""

    sigma_data: float = 0.5
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    n_steps: int = 18

    def __post_init__(self) -> None:
        check_numbers(self, counts=("n_steps",), positive=("sigma_data", "p_std", "sigma_min", "rho"))
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_max = {self.sigma_max} is not allowed: it must exceed sigma_min")

    def denoiser(self, net: Net) -> Denoiser:
        """D(x; sigma) made of a network."""
        return lambda x, sigma: precondition(net, x, sigma, self.sigma_data)

    def loss_terms(self, net: Net, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """`denoising_errors` at levels sigma with ln sigma ~ N(p_mean, p_std^2)."""
        sigma = (level_noise * self.p_std + self.p_mean).exp()
        return denoising_errors(self.denoiser(net), x, sigma, noise, self.sigma_data)

    def sample(self, net: Net, draw: Draw) -> Tensor:
        """`sample_heun` from ``draw(0)``."""
        levels = {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max, "rho": self.rho}
        return sample_heun(self.denoiser(net), draw(0), n_steps=self.n_steps, **levels)


EDM_FAMILY = NetworkFamily("edm", "EDM", EDM)
