"""Conditional flow matching (Lipman et al. 2023; Tong et al. 2024): straight paths from noise to data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from iterative_retraining.models.dopri5 import dopri5
from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.process import Draw, Net, check_choice, check_numbers, evaluate, wide

Velocity = Callable[[Tensor, float | Tensor], Tensor]  # of x (B, ...), float64, and the time t, one or (B,); like x
COUPLINGS = ("optimal_transport", "independent")
SOLVERS = ("rk4", "dopri5")


def couple(x: Tensor, noise: Tensor) -> Tensor:
    """``noise`` (G, B, ...), in each of G groups in the order that makes the sum of squared distances to x least.

    The optimal transport between a group of noise and one of data, exactly, as in the minibatch OT-CFM of Tong et al.
    (2024): between sets of one size the plan is a permutation. A group with a non-finite item stays as it is: its loss
    will say so.
    """
    products = x.flatten(2).double() @ noise.flatten(2).double().mT  # all else in the distances is of no order
    orders = [
        linear_sum_assignment(own, maximize=True)[1] if np.isfinite(own).all() else np.arange(len(own))
        for own in products.cpu().numpy()
    ]
    order = torch.from_numpy(np.stack(orders)).to(noise.device)
    return noise[torch.arange(len(noise), device=noise.device)[:, None], order]


def integrate(velocity: Velocity, noise: Tensor, *, solver: str, n_steps: int, tolerance: float) -> Tensor:
    """The flow dx/dt = v(x, t) from ``noise`` (B, ...) at t = 0 to t = 1, in float64.

    ``rk4``: ``n_steps`` of the classical Runge-Kutta method, 4 evaluations each. ``dopri5``: see
    `iterative_retraining.models.dopri5.dopri5`. In both an item is the same in any batch.
    """
    if solver == "dopri5":
        return dopri5(velocity, noise, tolerance)
    x, h = noise.double(), 1 / n_steps
    for step in range(n_steps):
        t = step * h
        first = velocity(x, t)
        second = velocity(x + h / 2 * first, t + h / 2)
        third = velocity(x + h / 2 * second, t + h / 2)
        fourth = velocity(x + h * third, t + h)
        x = x + h / 6 * (first + 2 * second + 2 * third + fourth)
    return x


@dataclass(frozen=True, kw_only=True)
class FlowMatching:
    """Flow matching without smoothing around the paths, sigma = 0 in Tong et al. (2024); the network sees time_scale t.

    coupling: "optimal_transport" within each batch (OT-CFM), or "independent" (I-CFM). solver, n_steps, tolerance: see
    `integrate`; n_steps belongs to rk4, tolerance to dopri5.
    """

    coupling: str = "optimal_transport"
    time_scale: float = 1000.0
    solver: str = "rk4"
    n_steps: int = 8
    tolerance: float = 1e-5

    def __post_init__(self) -> None:
        check_choice("coupling", self.coupling, COUPLINGS)
        check_choice("solver", self.solver, SOLVERS)
        check_numbers(self, counts=("n_steps",), positive=("time_scale", "tolerance"))

    def couple_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """See `couple`."""
        return couple(x, noise) if self.coupling == "optimal_transport" else noise

    def loss_terms(self, net: Net, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """Squared errors of v((1 - t) noise + t x, t) against x - noise, t uniform in [0, 1]."""
        t = torch.special.ndtr(level_noise)
        x_t = wide(1 - t, x) * noise + wide(t, x) * x
        return (net(x_t, self.time_scale * t) - (x - noise)).square()

    def sample(self, net: Net, draw: Draw) -> Tensor:
        """`integrate` from ``draw(0)``."""
        how = {"solver": self.solver, "n_steps": self.n_steps, "tolerance": self.tolerance}
        return integrate(lambda x, t: evaluate(net, x, self.time_scale * t), draw(0), **how)


FLOW_MATCHING_FAMILY = NetworkFamily("flow_matching", "flow matching", FlowMatching)
