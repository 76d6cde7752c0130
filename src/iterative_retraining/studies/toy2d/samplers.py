"""The samplers of the study in the plane, by the names that its rows have, for exact scores and for networks."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from iterative_retraining.errors import find
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.gain import spectrum_gains
from iterative_retraining.models.paths import GaussianPaths
from iterative_retraining.models.process import Draw
from iterative_retraining.models.solvers import Field
from iterative_retraining.studies.toy2d.distributions import GaussianMixture

# The fourth-order method in 20 steps from sigma = 20: within 0.5 % of 1 on one mode and on all eight. The third-order
# solver in 24 steps is too on one mode, but not on eight, where it leaves points between modes.
ACCURATE = EDM(sigma_data=0.6, solver="rk4", n_steps=20, sigma_max=20.0, start_data_std=0.7)
_HEUN = replace(ACCURATE, solver="heun", start_data_std=0.0)
_DDIM = DDPM(solver="ddim", clip=False)
# All 1000 levels of Ho et al. (2020); or 100, with variances ten times as large, so that the last is as noisy.
_THOUSAND = DDPM(spacing="uniform", n_steps=1000, clip=False)
_HUNDRED = replace(_THOUSAND, n_levels=100, n_steps=100, beta_first=1e-3, beta_last=0.2)
EXACT = "exact"
SAMPLERS: dict[str, GaussianPaths | None] = {
    EXACT: None,  # draws from the fitted distribution itself
    "accurate": ACCURATE,
    "dopri5": FlowMatching(solver="dopri5"),
    "rk4_8": FlowMatching(n_steps=8),
    "heun_20": replace(_HEUN, n_steps=20),
    "heun_40": replace(_HEUN, n_steps=40),
    "heun_80": replace(_HEUN, n_steps=80),
    "ddim_50": replace(_DDIM, n_steps=50),
    "ddim_100": replace(_DDIM, n_steps=100),
    "ancestral_posterior_100": replace(_HUNDRED, solver="ancestral_posterior"),
    "ancestral_beta_100": replace(_HUNDRED, solver="ancestral_beta"),
    "ancestral_posterior_1000": replace(_THOUSAND, solver="ancestral_posterior"),
    "ancestral_beta_1000": replace(_THOUSAND, solver="ancestral_beta"),
}
GRID = np.geomspace(1e-4, 20, 120)


@dataclass(frozen=True, kw_only=True)
class EDMOnLevelsOfDDPM(EDM):
    """An EDM whose sampler visits the noise levels of a DDPM."""

    ddpm: DDPM

    def noise_levels(self) -> Tensor:
        """Those of ``ddpm``."""
        return self.ddpm.noise_levels()


def network_process(sampler: str) -> EDM:
    """The EDM of the plane with the sampler of that name. Raises ConfigError for one that no EDM follows."""
    process = find("sampler of an EDM", sampler, {k: v for k, v in SAMPLERS.items() if isinstance(v, EDM | DDPM)})
    if isinstance(process, EDM):
        return process
    return EDMOnLevelsOfDDPM(sigma_data=ACCURATE.sigma_data, solver=process.solver, ddpm=process)


@cache
def gain_by_std(sampler: str) -> Callable[[np.ndarray], np.ndarray]:
    """`sampler_gain` of a sampler as a function of the standard deviation, interpolated in logarithms (1e-4 to 20).

    Beyond the grid it is that of its end.
    """
    process = find("sampler", sampler, SAMPLERS)
    if process is None:
        return np.ones_like
    curve = PchipInterpolator(np.log(GRID), np.log(spectrum_gains(process, GRID**2)))
    return lambda std: np.exp(curve(np.log(np.clip(std, GRID[0], GRID[-1]))))


def mixture_field(means: Tensor, variances: Tensor) -> Field:
    """The exact denoiser and velocity of equal round Gaussians, means (K, 2) and variances (K,), x (B, 2).

    At x_t = t data + (1 - t) noise, mode k has the share w_k and the velocity m_k + c_k (x_t - t m_k), with
    c_k = (t v_k - (1 - t)) / (t^2 v_k + (1 - t)^2): linear, as for a single Gaussian (`models.gain`).
    """

    def shares(x: Tensor, centres: Tensor, total: Tensor) -> Tensor:
        return torch.softmax(-0.5 * ((x[:, None] - centres) ** 2).sum(dim=2) / total - torch.log(total), dim=1)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        w = shares(x, means, variances + sigma**2)
        kept = w * (variances / (variances + sigma**2))
        return kept.sum(dim=1, keepdim=True) * x + (w - kept) @ means

    def velocity(x: Tensor, t: float | Tensor) -> Tensor:
        t = torch.as_tensor(t, dtype=x.dtype).expand(len(x))[:, None]
        total = t**2 * variances + (1 - t) ** 2
        w, slope = shares(x, t[..., None] * means, total), (t * variances - (1 - t)) / total
        moved = w * slope
        return moved.sum(dim=1, keepdim=True) * x + (w - t * moved) @ means

    return Field(denoise, velocity)


def mixture_gain(sampler: str, target: GaussianMixture, n: int = 2**14, seed: int = 0) -> float:
    """What one pass with the exact score of all of ``target`` makes of the spread around its nearest modes.

    By ``n`` scrambled Sobol points as latents, and pseudo-random noise after them; relative to the spread of as many
    draws of the target from as good points. Unlike `sampler_gain` it sees what happens between modes.
    """
    process = find("sampler", sampler, {k: v for k, v in SAMPLERS.items() if v is not None})
    means = torch.tensor(target.means, dtype=torch.float64)
    field = mixture_field(means, torch.full((len(means),), target.std**2, dtype=torch.float64))
    points = process.integrate(field, _sobol(n, seed))
    own = means[torch.arange(n) % len(means)] + target.std * _sobol(n, seed)(0)
    return float(_spread(points, means) / _spread(own, means))


def _sobol(n: int, seed: int) -> Draw:
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    first = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
    return lambda k: torch.randn(n, 2, generator=rng, dtype=torch.float64) if k else first


def _spread(points: Tensor, means: Tensor) -> Tensor:
    return torch.cdist(points, means).amin(dim=1).square().mean().sqrt()
