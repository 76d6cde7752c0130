"""Laws in the plane with exact densities and samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.seeding import generator


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of round Gaussians in the plane with one standard deviation and equal weights."""

    means: Sequence[tuple[float, float]]
    std: float

    def log_density(self, x: Tensor) -> Tensor:
        """Of x (N, 2), (N,)."""
        means = torch.tensor(self.means, dtype=x.dtype)
        squares = ((x[:, None] - means) ** 2).sum(dim=2) / self.std**2
        constant = np.log(2 * np.pi * self.std**2 * len(means))
        return torch.logsumexp(-0.5 * squares, dim=1) - constant

    def density(self, x: Tensor) -> Tensor:
        """Of x (N, 2), (N,)."""
        return torch.exp(self.log_density(x))

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` draws, (n, 2)."""
        rng = generator(seed)
        centres = np.asarray(self.means)[rng.integers(len(self.means), size=n)]
        return centres + self.std * rng.standard_normal((n, 2))


ARC = GaussianMixture([(-1.6, 1.0), (-0.8, 0.0), (0.0, -0.4), (0.8, 0.0), (1.6, 1.0)], std=0.5)
