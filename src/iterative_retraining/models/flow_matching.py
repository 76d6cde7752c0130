"""Conditional flow matching (Lipman et al. 2023; Tong et al. 2024): straight paths from noise to data."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.paths import GaussianPaths, check_levels
from iterative_retraining.models.process import Draw, Net, check_choice, check_numbers, evaluate, wide
from iterative_retraining.models.solvers import SOLVERS, Field, karras_levels

COUPLINGS = ("optimal_transport", "independent")
SPACINGS = ("time", "karras")


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


@dataclass(frozen=True, kw_only=True)
class FlowMatching(GaussianPaths):
    """Flow matching without smoothing around the paths, sigma = 0 in Tong et al. (2024); the network sees time_scale t.

    coupling: "optimal_transport" within each batch (OT-CFM), or "independent" (I-CFM). spacing: "time", n_steps equal
    steps from t = 0 to 1, for a solver in time (one that adapts has steps of its own); "karras", the levels of
    `karras_levels` at t = 1 / (1 + sigma), for all solvers: sigma_min, sigma_max, rho and start_data_std are theirs.
    """

    coupling: str = "optimal_transport"
    time_scale: float = 1000.0
    solver: str = "rk4"
    n_steps: int = 8
    spacing: str = "time"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_choice("coupling", self.coupling, COUPLINGS)
        check_choice("spacing", self.spacing, SPACINGS)
        check_numbers(self, positive=("time_scale",))
        self.check_sampler()
        check_levels(self)
        if self.spacing == "time" and not SOLVERS[self.solver].in_time:
            in_time = ", ".join(name for name, solver in SOLVERS.items() if solver.in_time)
            raise ValueError(
                f"solver = {self.solver!r} is not allowed with spacing = 'time', whose first level sigma is infinite; "
                f"allowed: {in_time}, or spacing = 'karras'"
            )

    def couple_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """See `couple`."""
        return couple(x, noise) if self.coupling == "optimal_transport" else noise

    def loss_terms(self, net: Net, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """Squared errors of v((1 - t) noise + t x, t) against x - noise, t uniform in [0, 1]."""
        t = torch.special.ndtr(level_noise)
        x_t = wide(1 - t, x) * noise + wide(t, x) * x
        return (net(x_t, self.time_scale * t) - (x - noise)).square()

    def noise_levels(self) -> Tensor:
        """See `karras_levels`; with spacing = "time" the levels (1 - t) / t, the first infinite."""
        if self.spacing == "karras":
            return karras_levels(self.n_steps, self.sigma_min, self.sigma_max, self.rho)
        t = torch.linspace(0, 1, self.n_steps + 1, dtype=torch.float64)
        return (1 - t) / t

    def field(self, net: Net) -> Field:
        """Of the network, which is the velocity."""
        return Field.of_velocity(lambda x_t, t: evaluate(net, x_t, self.time_scale * t))

    def integrate(self, field: Field, draw: Draw) -> Tensor:
        """See `GaussianPaths.integrate`; with spacing = "time" the whole flow, from noise at t = 0 to data at t = 1."""
        if self.spacing == "karras":
            return super().integrate(field, draw)
        return self._in_time(field.velocity, draw(0).double(), [k / self.n_steps for k in range(self.n_steps + 1)])


FLOW_MATCHING_FAMILY = NetworkFamily("flow_matching", "flow matching", FlowMatching)
