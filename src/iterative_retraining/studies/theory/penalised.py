"""Theorem 1 for small networks: maxima by Hessian-vector products, a penalty that makes them unique, a bound on L.

The log-likelihood of a network has flat directions, so its maximum is no point. A penalty on the weights makes it one:
theta* maximises E_data log p_theta - decay/2 |theta|^2, and a retraining E_data log p + lam E_(p_theta_t) log p with
the same penalty. theta* stays a fixed point, with A - decay I in the place of A.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import optimize
from torch import Tensor
from torch.func import grad, vmap

from iterative_retraining.schemes.ratio import check_lam
from iterative_retraining.seeding import generator
from iterative_retraining.studies.theory.families import Family, Points
from iterative_retraining.studies.theory.fixed_point import NotAMaximumError, curvatures, penalised_objective

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PenalisedRetraining:
    """Retraining of ``family`` with infinitely many data and a penalty ``decay`` on its weights theta (P,)."""

    family: Family
    data: Points
    decay: float = 0.0

    def fixed_point(self, start: Tensor) -> Tensor:
        """theta* (P,): L-BFGS from ``start``, then Newton's method by conjugate gradients.

        Raises NotAMaximumError if the gradient does not vanish.
        """
        objective = self._objective(0.0, self.data)
        found = optimize.minimize(
            _negative(objective),
            start.numpy(),
            jac=_negative(grad(objective)),
            method="L-BFGS-B",
            options={"maxiter": 2000, "maxfun": 10_000, "maxcor": 50, "gtol": 1e-6, "ftol": 0.0},
        )
        return _maximum(objective, torch.from_numpy(found.x))

    def retrain(self, theta: Tensor, lam: float) -> Tensor:
        """One retraining at ``lam``: the maximum near theta (P,), (P,). Raises what `fixed_point` raises."""
        return _maximum(self._objective(lam, self.family.points(theta)), theta)

    def curvatures(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """A - decay I and B (P, P) at the fixed point theta, one Hessian-vector product a column."""
        return curvatures(self.family, theta, data=self.data, decay=self.decay)

    def paths(
        self, theta: Tensor, lam: float, n_retrain: int, *, seeds: Sequence[int], size: float = 0.02
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distances of outputs from those at the fixed point theta, (len(seeds), n_retrain + 1): observed, and by J.

        theta_0 is theta plus Gaussian noise of standard deviation ``size`` on every weight.
        """
        a, b = self.curvatures(theta)
        jacobian = torch.linalg.solve(a + lam * b, lam * b)
        observed, linear = [], []
        for seed in seeds:
            gap = size * torch.from_numpy(generator(seed).standard_normal(len(theta)))
            path, gaps = [theta + gap], [gap]
            for _ in range(n_retrain):
                path.append(self.retrain(path[-1], lam))
                gaps.append(jacobian @ gaps[-1])
            observed.append([self.distance(point, theta) for point in path])
            linear.append([(-gap @ b @ gap).sqrt().item() for gap in gaps])
        return np.array(observed), np.array(linear)

    def distance(self, theta: Tensor, other: Tensor) -> float:
        """The root mean square of log p_theta - log p_other under p_other: how far apart two outputs are."""
        points = self.family.points(other)
        gap = self.family.log_prob(theta, points.x) - self.family.log_prob(other, points.x)
        return points.mean(gap**2).sqrt().item()

    def _objective(self, lam: float, own: Points) -> Objective:
        check_lam(lam)

        def value(theta: Tensor) -> Tensor:
            total = penalised_objective(self.family, self.data, self.decay, theta)
            return total + lam * penalised_objective(self.family, own, 0.0, theta) if lam else total

        return value


def _negative(function: Objective) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: -function(torch.from_numpy(array)).numpy()


def _hessian_times(objective: Objective, theta: Tensor, vector: np.ndarray) -> np.ndarray:
    direction = torch.from_numpy(np.array(vector, dtype=np.float64)).flatten()
    return grad(lambda th: grad(objective)(th) @ direction)(theta).numpy()


def _maximum(objective: Objective, start: Tensor) -> Tensor:
    """The maximum near ``start`` by a trust-region Newton method whose steps are conjugate gradients."""
    found = optimize.minimize(
        _negative(objective),
        start.numpy(),
        jac=_negative(grad(objective)),
        hessp=lambda at, v: -_hessian_times(objective, torch.from_numpy(at), v),
        method="trust-ncg",
        options={"gtol": 1e-7, "maxiter": 500},
    )
    slope = float(np.linalg.norm(found.jac))
    if not slope < 1e-6:
        raise NotAMaximumError(f"no maximum found: after {found.nit} steps the gradient still has norm {slope:.3g}")
    return torch.from_numpy(found.x)


def lipschitz_at_least(family: Family, theta: Tensor, x: Tensor, *, n_steps: int = 20, seed: int = 0) -> float:
    """A value that L of Assumption 1 cannot be below, over the points x (N, D): |v' (d_u Hess) v| for unit u, v.

    From random v at every point, ``n_steps`` rounds of: u the best direction in x for v, then a power iteration in v.
    The largest value met was attained, so it is a lower bound of the supremum, not an estimate of it.
    """
    rng = torch.Generator().manual_seed(seed)
    v = torch.randn(len(x), len(theta), generator=rng, dtype=torch.float64)
    best = 0.0
    for _ in range(n_steps):
        v = v / v.norm(dim=1, keepdim=True)
        slopes = vmap(_mixed(family, theta))(x, v)  # (N, D): d/dx of v' Hess v
        values = slopes.norm(dim=1, keepdim=True)
        best = max(best, values.max().item())
        v = vmap(_third_times(family, theta))(x, v, slopes / values) + values * v  # shifted: no flipping of signs
    return best


def _mixed(family: Family, theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def curvature(point: Tensor, v: Tensor) -> Tensor:
        return grad(lambda th: grad(lambda t: family.log_prob(t, point[None])[0])(th) @ v)(theta) @ v

    return grad(curvature)


def _third_times(family: Family, theta: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def times(point: Tensor, v: Tensor, u: Tensor) -> Tensor:
        def slope(th: Tensor) -> Tensor:  # u . d/dx (v . d/dtheta log p)
            return grad(lambda p: grad(lambda t: family.log_prob(t, p[None])[0])(th) @ v)(point) @ u

        return grad(slope)(theta)

    return times
