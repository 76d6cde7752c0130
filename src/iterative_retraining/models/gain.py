"""What one pass of a sampler does to Gaussian data when the score is exact: the gain of its standard deviation."""

from collections.abc import Iterable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.models.paths import GaussianPaths
from iterative_retraining.models.process import Process
from iterative_retraining.models.solvers import SOLVERS, Field

Paths = TypeVar("Paths", bound=GaussianPaths)


def gaussian_field(std: float | Tensor) -> Field:
    """The exact denoiser and velocity for data N(0, std^2), std one or (D,) for x (B, D): linear in x."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return x * (std**2 / (std**2 + sigma**2))

    def velocity(x_t: Tensor, t: float | Tensor) -> Tensor:
        t = t[:, None] if isinstance(t, Tensor) else t
        return x_t * ((std**2 * t - (1 - t)) / (std**2 * t**2 + (1 - t) ** 2))

    return Field(denoise, velocity)


def sampler_gain(process: GaussianPaths, std: float) -> float:
    """The factor by which one pass of the sampler multiplies the standard deviation of data N(0, std^2), exactly.

    See `spectrum_gains`. Raises ValueError unless std > 0.
    """
    return float(spectrum_gains(process, [std**2])[0])


def spectrum_gains(process: GaussianPaths, eigenvalues: Iterable[float]) -> np.ndarray:
    """`sampler_gain` along each eigenvector of the data's covariance, by its eigenvalue (D,), float64 (D,).

    The sampler is run with the exact score of N(0, diag(eigenvalues)), where a pass is linear in all that it draws:
    item k of the batch has drawn 1 as its k-th number and 0 else, so it ends at the coefficient c_k, and the gain is
    sqrt(sum of c_k^2) / std. Clipping is left out. An adaptive solver is not linear: its gain is that of latents of 1.
    The mean is none of its business: a start around 0 at sigma moves the mean m of data by about -m std / sigma.
    Raises ValueError for an eigenvalue that is not above 0.
    """
    variances = torch.tensor(np.asarray(list(eigenvalues)), dtype=torch.float64)
    if not (variances > 0).all():
        raise ValueError(f"eigenvalue {variances.min().item()} is not allowed: data without variance have no gain")
    n_draws = len(process.noise_levels()) if SOLVERS[process.solver].noisy else 1

    def draw(k: int) -> Tensor:
        numbers = variances.new_zeros(n_draws, len(variances))
        numbers[k] = 1
        return numbers

    std = variances.sqrt()
    return (process.integrate(gaussian_field(std), draw).square().sum(dim=0).sqrt() / std).numpy()


def evaluations(process: Process) -> int | None:
    """How often a process asks the network for one sample, counted while it samples a number; None if it adapts."""
    if isinstance(process, GaussianPaths) and SOLVERS[process.solver].adaptive:
        return None
    levels = []

    def net(x: Tensor, level: Tensor) -> Tensor:
        levels.append(level)
        return torch.zeros_like(x)

    process.sample(net, lambda k: torch.zeros(1, 1))
    return len(levels)


def cheapest_sampler(processes: Iterable[Paths], eigenvalues: Iterable[float], largest_error: float = 0.005) -> Paths:
    """The process with the fewest evaluations among those with all `spectrum_gains` within ``largest_error`` of 1.

    Of equally many evaluations the one whose worst gain is best. Raises ValueError if none is so exact; a process whose
    solver adapts has no number of evaluations and does not take part.
    """
    eigenvalues, found = list(eigenvalues), []
    for process in processes:
        if (count := evaluations(process)) is not None:
            error = float(abs(spectrum_gains(process, eigenvalues) - 1).max())
            found.append((count, error, process))
    exact = [one for one in found if one[1] <= largest_error]
    if not exact:
        best = min((error for _, error, _ in found), default=float("nan"))
        raise ValueError(f"no sampler has all gains within {largest_error} of 1: the best is off by {best:.3g}")
    return min(exact, key=lambda one: one[:2])[2]
