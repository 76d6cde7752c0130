"""EDM, the diffusion model of Karras, Aittala, Aila and Laine (2022), written from the equations of the paper."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.paths import GaussianPaths, check_levels
from iterative_retraining.models.process import Net, Uncoupled, check_numbers, evaluate, wide
from iterative_retraining.models.solvers import Field, karras_levels

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


@dataclass(frozen=True, kw_only=True)
class EDM(GaussianPaths, Uncoupled):
    """The process of Karras et al. (2022); the defaults are the values of table 1, and their sampler.

    sigma_min, sigma_max, rho: see `karras_levels`; the other options of the sampler: see `GaussianPaths`.
    """

    sigma_data: float = 0.5
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_numbers(self, positive=("sigma_data", "p_std"))
        self.check_sampler()
        check_levels(self)

    def denoiser(self, net: Net) -> Denoiser:
        """D(x; sigma) made of a network."""
        return lambda x, sigma: precondition(net, x, sigma, self.sigma_data)

    def loss_terms(self, net: Net, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """`denoising_errors` at levels sigma with ln sigma ~ N(p_mean, p_std^2)."""
        sigma = (level_noise * self.p_std + self.p_mean).exp()
        return denoising_errors(self.denoiser(net), x, sigma, noise, self.sigma_data)

    def noise_levels(self) -> Tensor:
        """See `karras_levels`."""
        return karras_levels(self.n_steps, self.sigma_min, self.sigma_max, self.rho)

    def field(self, net: Net) -> Field:
        """Of `denoiser`."""
        denoiser = self.denoiser(net)
        return Field.of_denoiser(lambda x, sigma: evaluate(denoiser, x, sigma))


EDM_FAMILY = NetworkFamily("edm", "EDM", EDM)
