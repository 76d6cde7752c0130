"""Families whose expectations can be computed: distributions as weighted points, log-densities for torch.func."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

QUADRATURE_RANGE = 38.0  # of t in x = centre + scale sinh(t): beyond it even Cauchy tails hold less than 1e-16


@dataclass(frozen=True)
class Points:
    """A distribution as weighted points: x (N, D), weights (N,) that sum to 1; E f is the sum of weights times f(x)."""

    x: Tensor
    weights: Tensor

    @classmethod
    def of_density(
        cls, density: Callable[[np.ndarray], np.ndarray], *, centre: float = 0.0, scale: float = 1.0, n: int = 8001
    ) -> "Points":
        """Quadrature of a smooth density on the line: the trapezoidal rule in t, x = centre + scale sinh(t).

        Its error falls exponentially in n. Raises ValueError if the weights do not sum to 1 within 1e-9: the density is
        not normalised, not smooth, or centre and scale do not fit.
        """
        t = np.linspace(-QUADRATURE_RANGE, QUADRATURE_RANGE, n)
        x = centre + scale * np.sinh(t)
        with np.errstate(over="ignore", under="ignore"):
            weights = density(x) * scale * np.cosh(t) * (t[1] - t[0])
        keep = weights > 1e-300
        total = weights[keep].sum()
        if not abs(total - 1) < 1e-9:
            raise ValueError(
                f"the density integrates to {total:.12g}, not 1, with centre {centre:g} and scale {scale:g}"
            )
        return cls(torch.from_numpy(x[keep, None]), torch.from_numpy(weights[keep] / total))

    @classmethod
    def of_mixture(cls, weights: Sequence[float], means: Sequence[float], stds: Sequence[float]) -> "Points":
        """Quadrature of a mixture of normals on the line."""

        def density(x: np.ndarray) -> np.ndarray:
            z = (x[:, None] - np.asarray(means)) / np.asarray(stds)
            return (np.exp(-0.5 * z * z) / np.asarray(stds)) @ np.asarray(weights) / math.sqrt(2 * math.pi)

        return cls.of_density(density, centre=float(np.dot(weights, means)))

    def mean(self, values: Tensor) -> Tensor:
        """The expectation of values (N, ...)."""
        return torch.tensordot(self.weights, values, dims=1)


class Family(Protocol):
    """A parametric family: what the theory needs to know of a model."""

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-density of x (N, D) at parameters theta (P,), (N,); differentiable in both."""

    def points(self, theta: Tensor) -> Points:
        """The distribution p_theta."""


@dataclass(frozen=True)
class LocationScale:
    """The distributions of mu + exp(s) Z on the line, theta = (mu, s), with Z of the named one.

    base: "normal", "logistic", or "student" with ``degrees`` of freedom.
    """

    base: str
    degrees: float = 3.0

    def __post_init__(self) -> None:
        if self.base not in ("normal", "logistic", "student") or not self.degrees > 0:
            raise ValueError(
                f"base = {self.base!r} with {self.degrees} degrees is not allowed: normal, logistic or student, "
                "with more than 0 degrees of freedom"
            )

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        z = (x[:, 0] - theta[0]) * torch.exp(-theta[1])
        return self._log_base(z) - theta[1]

    def _log_base(self, z: Tensor) -> Tensor:
        if self.base == "normal":
            return -0.5 * (z * z + math.log(2 * math.pi))
        if self.base == "logistic":
            return -z - 2 * torch.nn.functional.softplus(-z)
        nu = self.degrees
        constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi)
        return constant - (nu + 1) / 2 * torch.log1p(z * z / nu)

    def sample(self, theta: Tensor, n: int, rng: np.random.Generator) -> Tensor:
        """``n`` draws for each of the parameters theta (C, 2), (C, n)."""
        shape = (len(theta), n)
        draw = {"normal": rng.standard_normal, "logistic": lambda s: rng.logistic(size=s)}
        z = draw[self.base](shape) if self.base in draw else rng.standard_t(self.degrees, shape)
        return theta[:, :1] + torch.exp(theta[:, 1:]) * torch.from_numpy(z)

    def points(self, theta: Tensor) -> Points:
        base = Points.of_density(lambda z: torch.exp(self._log_base(torch.from_numpy(z))).numpy())
        return Points(theta[0] + torch.exp(theta[1]) * base.x, base.weights)


@dataclass(frozen=True)
class SharedVarianceMixture:
    """Mixtures of k Gaussians on the line, equal weights, one variance exp(2 s): theta = (mu_1..mu_k, s)."""

    k: int = 2

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        z = (x - theta[:-1]) * torch.exp(-theta[-1])
        terms = -0.5 * (z * z + math.log(2 * math.pi)) - theta[-1] - math.log(self.k)
        return torch.logsumexp(terms, dim=1)

    def points(self, theta: Tensor) -> Points:
        def density(x: np.ndarray) -> np.ndarray:
            return torch.exp(self.log_prob(theta, torch.from_numpy(x)[:, None])).numpy()

        return Points.of_density(density, centre=theta[:-1].mean().item(), scale=math.exp(theta[-1]))


@dataclass(frozen=True)
class GaussianFamily:
    """Gaussians in ``dim`` dimensions. theta: the coordinates, then the lower triangle of the matrix, row by row.

    coordinates: "moments" (mu, Sigma) or "natural" (Sigma^-1 mu, -Sigma^-1 / 2).
    """

    dim: int
    coordinates: str = "moments"

    def __post_init__(self) -> None:
        if self.coordinates not in ("moments", "natural"):
            raise ValueError(f"coordinates = {self.coordinates!r} is not allowed: moments or natural")

    def pack(self, mean: np.ndarray, cov: np.ndarray) -> Tensor:
        """theta (P,) of a mean (D,) and covariance (D, D)."""
        mean, cov = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(cov, dtype=torch.float64)
        precision = torch.linalg.inv(cov)
        vector, matrix = (mean, cov) if self.coordinates == "moments" else (precision @ mean, -0.5 * precision)
        rows, columns = torch.tril_indices(self.dim, self.dim)
        return torch.cat([vector, matrix[rows, columns]])

    def unpack(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D)."""
        vector, matrix = self._split(theta)
        if self.coordinates == "moments":
            return vector, matrix
        cov = torch.linalg.inv(-2 * matrix)
        return cov @ vector, cov

    def _split(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = torch.tril_indices(self.dim, self.dim)
        lower = theta.new_zeros((self.dim, self.dim)).index_put((rows, columns), theta[self.dim :])
        return theta[: self.dim], lower + torch.tril(lower, -1).T

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        vector, matrix = self._split(theta)
        constant = self.dim * math.log(2 * math.pi)
        if self.coordinates == "moments":
            gap = x - vector
            mahalanobis = (gap @ torch.linalg.inv(matrix) * gap).sum(dim=1)
            return -0.5 * (mahalanobis + torch.logdet(matrix) + constant)
        log_normaliser = 0.5 * (constant - torch.logdet(-2 * matrix) - 0.5 * vector @ torch.linalg.inv(matrix) @ vector)
        return x @ vector + (x @ matrix * x).sum(dim=1) - log_normaliser

    def points(self, theta: Tensor) -> Points:
        """2 D points with the same mean and covariance: exact for what is quadratic in x, as the Hessian here is."""
        mean, cov = self.unpack(theta)
        return sigma_points(mean, cov)


def sigma_points(mean: Tensor, cov: Tensor) -> Points:
    """2 D equally weighted points of the given mean (D,) and covariance (D, D): exact for quadratic functions.

    Raises ValueError with the smallest eigenvalue if the covariance is singular.
    """
    smallest = torch.linalg.eigvalsh(cov)[0].item()
    if not smallest > 0:
        raise ValueError(f"the covariance is singular: its smallest eigenvalue is {smallest:.3g}")
    steps = math.sqrt(len(mean)) * torch.linalg.cholesky(cov).T
    return Points(torch.cat([mean + steps, mean - steps]), mean.new_full((2 * len(mean),), 0.5 / len(mean)))
