"""Distributions in the plane with exact densities, scores and samples, at every noise level."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.seeding import generator


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of round Gaussians in the plane with one standard deviation and equal weights.

    With noise of standard deviation ``sigma`` added it is such a mixture again, so density and score stay exact.
    """

    means: tuple[tuple[float, float], ...]
    std: float

    def log_density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Of x (N, 2) at noise level sigma, (N,)."""
        variance = self.std**2 + sigma**2
        constant = np.log(2 * np.pi * variance * len(self.means))
        return torch.logsumexp(-0.5 * self._squares(x) / variance, dim=1) - constant

    def density(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """Of x (N, 2) at noise level sigma, (N,)."""
        return torch.exp(self.log_density(x, sigma))

    def score(self, x: Tensor, sigma: float = 0.0) -> Tensor:
        """The gradient of the log-density in x (N, 2) at noise level sigma, (N, 2)."""
        variance = self.std**2 + sigma**2
        shares = torch.softmax(-0.5 * self._squares(x) / variance, dim=1)
        return (shares @ torch.tensor(self.means, dtype=x.dtype) - x) / variance

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` draws, (n, 2)."""
        rng = generator(seed)
        centres = np.asarray(self.means)[rng.integers(len(self.means), size=n)]
        return centres + self.std * rng.standard_normal((n, 2))

    def _squares(self, x: Tensor) -> Tensor:
        return ((x[:, None] - torch.tensor(self.means, dtype=x.dtype)) ** 2).sum(dim=2)


def _points(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], ...]:
    return tuple(zip(x.tolist(), y.tolist(), strict=True))


_EIGHTHS = np.arange(8) * np.pi / 4
_ARC = (np.arange(40) + 0.5) * np.pi / 40
ARC = GaussianMixture(((-1.6, 1.0), (-0.8, 0.0), (0.0, -0.4), (0.8, 0.0), (1.6, 1.0)), std=0.5)

_ARM = np.linspace(0.15, 1.1, 20)  # distances from the centre
_TURNS = np.arange(5)[:, None] * 2 * np.pi / 5 + 1.5 * _ARM

# Figures 3 and 4 of the paper show densities in the plane; the documents at hand do not say of which distributions.
DISTRIBUTIONS = {
    # eight modes on the unit circle, four standard deviations of a mode apart from their neighbours' edges
    "eight_gaussians": GaussianMixture(_points(np.cos(_EIGHTHS), np.sin(_EIGHTHS)), std=0.08),
    # two half circles of radius 0.7, each 40 Gaussians: half a standard deviation apart, so a smooth arc
    "two_moons": GaussianMixture(
        _points(
            np.concatenate([0.7 * np.cos(_ARC) - 0.35, 0.35 - 0.7 * np.cos(_ARC)]),
            np.concatenate([0.7 * np.sin(_ARC) - 0.175, 0.175 - 0.7 * np.sin(_ARC)]),
        ),
        std=0.1,
    ),
    # five arms that turn by 1.4 radians from the centre outwards, each 20 Gaussians at most one and a half standard
    # deviations apart
    "pinwheel": GaussianMixture(_points((_ARM * np.cos(_TURNS)).ravel(), (_ARM * np.sin(_TURNS)).ravel()), std=0.06),
}
