"""Normalizing flows in the plane as parametric families: exact densities, and expectations by quadrature."""

import math
from collections.abc import Callable

import torch
import zuko
from torch import Tensor
from torch.func import functional_call

from iterative_retraining.seeding import torch_seed
from iterative_retraining.studies.theory.families import Points

BASE_RANGE, BASE_STEP = 7.5, 0.3  # of the grid over the flow's Gaussian: both errors below 1e-11 for what is smooth


def points_of_plane(density: Callable[[Tensor], Tensor], low: float, high: float, step: float) -> Points:
    """Quadrature of a smooth density of x (N, 2) on the square [low, high]^2: the trapezoidal rule with ``step``.

    Raises ValueError if the weights do not sum to 1 within 1e-6: the square is too small or the step too wide.
    """
    x = _square(low, high, step)
    weights = density(x) * step**2
    total = weights.sum().item()
    if not abs(total - 1) < 1e-6:
        raise ValueError(
            f"the density integrates to {total:.9g}, not 1, over [{low:g}, {high:g}]^2 with steps of {step:g}"
        )
    keep = weights > 1e-13
    return Points(x[keep], weights[keep] / weights[keep].sum())


def _square(low: float, high: float, step: float) -> Tensor:
    line = torch.linspace(low, high, round((high - low) / step) + 1, dtype=torch.float64)
    return torch.cartesian_prod(line, line)


class _Calls(torch.nn.Module):
    """What `functional_call` can call: the flow's log-density of x, or the image of z."""

    def __init__(self, flow: zuko.lazy.Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, points: Tensor, image: bool) -> Tensor:
        distribution = self.flow()
        return distribution.transform.inv(points) if image else distribution.log_prob(points)


class FlowFamily:
    """Masked autoregressive flows in the plane (zuko's MAF), theta (P,) all their weights, float64.

    tanh networks with ``hidden`` units make it smooth in theta and x, as Theorem 1 wants.
    """

    def __init__(self, *, transforms: int = 2, hidden: int = 8, seed: int = 0) -> None:
        with torch_seed(seed):
            flow = zuko.flows.MAF(2, transforms=transforms, hidden_features=(hidden,), activation=torch.nn.Tanh)
        self._calls = _Calls(flow.double())
        self._shapes = {name: p.shape for name, p in self._calls.named_parameters()}
        self.start = torch.cat([p.detach().flatten() for p in self._calls.parameters()])
        z = _square(-BASE_RANGE, BASE_RANGE, BASE_STEP)
        weights = torch.exp(-0.5 * (z * z).sum(dim=1)) * BASE_STEP**2 / (2 * math.pi)
        keep = weights > 1e-13
        self._base = Points(z[keep], weights[keep] / weights[keep].sum())

    def log_prob(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-density of x (N, 2) at weights theta (P,), (N,)."""
        return self._call(theta, x, False)

    def points(self, theta: Tensor) -> Points:
        """The distribution p_theta: a grid over the flow's Gaussian, mapped."""
        return Points(self._call(theta, self._base.x, True), self._base.weights)

    def sample(self, theta: Tensor, n: int, seed: int) -> Tensor:
        """``n`` draws from p_theta, (n, 2)."""
        with torch_seed(seed):
            z = torch.randn(n, 2, dtype=torch.float64)
        return self._call(theta, z, True)

    def _call(self, theta: Tensor, points: Tensor, image: bool) -> Tensor:
        pieces = theta.split([shape.numel() for shape in self._shapes.values()])
        weights = {name: p.view(shape) for p, (name, shape) in zip(pieces, self._shapes.items(), strict=True)}
        return functional_call(self._calls, weights, (points, image))
