"""Theorem 1, measured: curvatures A and B, the Jacobian of retraining, alpha, L, epsilon, and the rates they give.

A = E_data of the Hessian of log p at theta*, B = the same under the model itself, theta* the maximum of E_data log p.
All in float64. Expectations are weighted sums over `Points`: exact for Gaussians, else quadrature on a line.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.func import grad, jacrev, vmap

from iterative_retraining.schemes.ratio import check_lam
from iterative_retraining.studies.report.comparisons import interval
from iterative_retraining.studies.theory.families import Family, Points

GRADIENT_TOLERANCE = 1e-12
SINGULAR = 1e-8  # an eigenvalue of A this much smaller than the others is 0


class NotAMaximumError(ValueError):
    """The parameters are no (strict) maximum of the expected log-likelihood, so the theory says nothing of them."""


def hessian(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The Hessian (P, P) of a scalar function of theta (P,), by reverse over reverse differentiation."""
    return jacrev(grad(function))


def curvatures(family: Family, theta: Tensor, *, data: Points, decay: float = 0.0) -> tuple[Tensor, Tensor]:
    """A and B (P, P): expected Hessians of log p at theta under ``data`` and under the model itself (section 3).

    With a penalty decay/2 |theta|^2 on the data's side, A is A - decay I and theta the penalised maximum.
    Raises NotAMaximumError, with the number, if the gradient at theta does not vanish or A is not negative definite.
    """
    objective = partial(penalised_objective, family, data, decay)
    slope = grad(objective)(theta).norm().item()
    if not slope < 1e-6:
        raise NotAMaximumError(f"theta is no maximum: the gradient of the expected log-likelihood has norm {slope:.3g}")
    a = hessian(objective)(theta)
    b = hessian(partial(penalised_objective, family, family.points(theta), 0.0))(theta)
    smallest, *_, largest = torch.linalg.eigvalsh(a).tolist()
    if not largest < -SINGULAR * abs(smallest):
        raise NotAMaximumError(f"theta is no strict maximum: A has the eigenvalue {largest:.3g}, all must be negative")
    return a, b


def penalised_objective(family: Family, data: Points, decay: float, theta: Tensor) -> Tensor:
    """E log p_theta under ``data``, minus decay/2 |theta|^2: what training maximises with infinitely many data."""
    return data.mean(family.log_prob(theta, data.x)) - 0.5 * decay * theta @ theta


def jacobian(family: Family, theta: Tensor, lam: float, *, data: Points) -> Tensor:
    """J = (I + lam A^-1 B)^-1 lam A^-1 B (P, P), the derivative of a retraining at its fixed point theta.

    Raises ValueError for lam < 0 and what `curvatures` raises.
    """
    check_lam(lam)
    a, b = curvatures(family, theta, data=data)
    step = lam * torch.linalg.solve(a, b)
    return torch.linalg.solve(torch.eye(len(theta), dtype=step.dtype) + step, step)


def ratios(a: Tensor, b: Tensor) -> np.ndarray:
    """The eigenvalues m_i > 0 of A^-1 B (P,), ascending. A and B are negative definite, so they are real (derived)."""
    root = torch.linalg.cholesky(-a)
    half = torch.linalg.solve_triangular(root, -b, upper=False)
    return torch.linalg.eigvalsh(torch.linalg.solve_triangular(root, half.T, upper=False)).numpy()


def strong_concavity(a: Tensor) -> float:
    """alpha of Assumption 2: the smallest eigenvalue of -A."""
    return float(-torch.linalg.eigvalsh(a)[-1])


def rate_exact(eigenvalues: np.ndarray, lam: float) -> np.ndarray:
    """The eigenvalues lam m / (1 + lam m) of J, of those of A^-1 B: below 1 for every lam (derived here)."""
    check_lam(lam)
    return lam * np.asarray(eigenvalues) / (1 + lam * np.asarray(eigenvalues))


def rate_theorem1(lam: float, alpha: float, L: float, eps: float) -> float:
    """rho(lam) = lam (alpha + eps L) / (alpha - lam (alpha + eps L)), the bound of Theorem 1.

    Raises ValueError, with the number, unless lam (1 + L eps / alpha) < 1/2.
    """
    check_lam(lam)
    condition = lam * (1 + L * eps / alpha)
    if not condition < 0.5:
        raise ValueError(f"Theorem 1 says nothing here: lam (1 + L eps / alpha) = {condition:.4g} is not below 1/2")
    return condition / (1 - condition)


def rate_ferbach(lam: float, alpha: float, L: float, eps: float) -> float:
    """lam (alpha + eps L) / (alpha + lam (alpha - eps L)), the rate of Ferbach et al. (2024), second hand."""
    check_lam(lam)
    return lam * (alpha + eps * L) / (alpha + lam * (alpha - eps * L))


def lipschitz(family: Family, theta: Tensor, low: float, high: float, *, n: int = 4001) -> tuple[float, float]:
    """L of Assumption 1 at theta, for x in [low, high]: the supremum of the norm of d/dx of the Hessian of log p.

    Returns an interval: the maximum over ``n`` grid points, and that plus half a step times the largest slope between
    neighbouring points (the supremum itself, to first order in the step).
    """
    x = torch.linspace(low, high, n, dtype=torch.float64)

    def hessian_at(point: Tensor) -> Tensor:
        return hessian(lambda th: family.log_prob(th, point[None, None])[0])(theta)

    norms = torch.linalg.matrix_norm(vmap(jacrev(hessian_at))(x), ord=2)
    steepest = norms.diff().abs().max().item()
    return norms.max().item(), norms.max().item() + steepest / 2


def wasserstein1_of_points(first: Points, second: Points) -> float:
    """W_1 of two distributions on the line, eps of Theorem 1: exact for the weighted points."""
    arrays = (p.x[:, 0].numpy() for p in (first, second))
    return float(stats.wasserstein_distance(*arrays, first.weights.numpy(), second.weights.numpy()))


def maximise(family: Family, theta: Tensor, data: Points, *, n_steps: int = 200) -> Tensor:
    """The maximum of E_data log p near ``theta`` (P,), by Newton's method with step halving.

    Raises NotAMaximumError if the gradient does not vanish within ``n_steps``.
    """
    value = partial(penalised_objective, family, data, 0.0)
    slope_at, curvature_at = grad(value), hessian(value)
    for _ in range(n_steps):
        slope = slope_at(theta)
        values, vectors = torch.linalg.eigh(curvature_at(theta))
        concave = values[-1] < 0
        step = vectors @ ((vectors.T @ slope) / values.abs().clamp(min=1e-8))  # uphill also where it is not concave

        def gains(new: Tensor, old: Tensor = theta, slope: Tensor = slope, concave: Tensor = concave) -> bool:
            # Near the top the values agree to the last bit long before the gradients do.
            return bool(value(new) > value(old) or (concave and slope_at(new).norm() < slope.norm()))

        sizes = (0.5**i for i in range(30))
        better = next((new for size in sizes if gains(new := theta + size * step)), None)
        if slope.norm() < GRADIENT_TOLERANCE or better is None:
            break
        theta = better
    if not slope.norm() < 1e-9:
        raise NotAMaximumError(
            f"no maximum found: after {n_steps} steps the gradient still has norm {slope.norm():.3g}"
        )
    return theta


def retrain_exactly(family: Family, theta: Tensor, lam: float, n_retrain: int, *, data: Points) -> Tensor:
    """theta_0..theta_n (n_retrain + 1, P) of retraining with infinitely many data: each the maximum of
    E_data log p + lam E_(p_theta_t) log p near theta_t (section 2 of the paper)."""
    check_lam(lam)
    path = [theta]
    for _ in range(n_retrain):
        own = family.points(path[-1])
        weights = torch.cat([data.weights, lam * own.weights]) / (1 + lam)
        path.append(maximise(family, path[-1], Points(torch.cat([data.x, own.x]), weights)))
    return torch.stack(path)


@dataclass(frozen=True)
class Constants:
    """What Theorem 1 is made of, for one family and one distribution of the data: see `constants`."""

    theta: Tensor
    ratios: np.ndarray
    alpha: float
    lipschitz: float
    eps: float

    def row(self, family: Family, lam: float, *, data: Points) -> dict[str, object]:
        """The numbers for a table, with the exact and the observed rate at ``lam``."""
        return {
            "m_i": ", ".join(f"{m:.3f}" for m in self.ratios),
            "α": self.alpha,
            "L": self.lipschitz,
            "ε": self.eps,
            "Theorem 1: λ below": self.largest_lam,
            f"exact rate, λ = {lam:g}": rate_exact(self.ratios, lam).max(),
            "observed": observed_rate(family, self.theta, lam, data=data),
        }

    @property
    def largest_lam(self) -> float:
        """The lam below which Theorem 1 applies: 1/2 over 1 + L eps / alpha."""
        return 0.5 / (1 + self.lipschitz * self.eps / self.alpha)


def constants(family: Family, start: Tensor, ball: tuple[float, float], *, data: Points) -> Constants:
    """theta* near ``start`` (P,), the eigenvalues of A^-1 B, alpha, L for x in ``ball`` (upper end), eps = W_1."""
    theta = maximise(family, start, data)
    a, b = curvatures(family, theta, data=data)
    eps = wasserstein1_of_points(family.points(theta), data)
    return Constants(theta, ratios(a, b), strong_concavity(a), lipschitz(family, theta, *ball)[1], eps)


def observed_rate(
    family: Family, theta: Tensor, lam: float, *, data: Points, step: float = 1e-3, n_retrain: int = 20
) -> float:
    """The factor by which a retraining brings theta_t nearer to the fixed point ``theta``, as late as can be measured.

    theta_0 lies ``step`` away in every coordinate; of at most ``n_retrain`` retrainings the last counts whose distance
    is still above 1e-8.
    """
    gaps = (retrain_exactly(family, theta + step, lam, n_retrain, data=data) - theta).norm(dim=1)
    last = int((gaps > 1e-8).nonzero()[-1])
    return float(gaps[last] / gaps[last - 1])


def mean_rate(distances: np.ndarray) -> str:
    """The geometric mean contraction per retraining of distances (starts, T): mean over starts ± 95 % t-interval."""
    rates = (distances[:, -1] / distances[:, 0]) ** (1 / (distances.shape[1] - 1))
    return interval(rates, digits=4)


def rate_curves(
    family: Family, found: Constants, *, data: Points, n: int = 300, n_observed: int = 9
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Rates against lambda from 0.001 to 10, by name: (lambdas, rates). The bounds where they are below 1."""
    lams, below, few = (
        np.geomspace(1e-3, 10, n),
        np.geomspace(1e-3, 0.999 * found.largest_lam, n),
        np.geomspace(0.1, 10, n_observed),
    )
    given = {"alpha": found.alpha, "L": found.lipschitz, "eps": found.eps}
    ferbach = np.array([rate_ferbach(lam, **given) for lam in lams])
    holds = (ferbach > 0) & (ferbach < 1)
    return {
        "Theorem 1": (below, np.array([rate_theorem1(lam, **given) for lam in below])),
        "Ferbach et al.": (lams[holds], ferbach[holds]),
        "exact: largest λm/(1+λm)": (lams, np.array([rate_exact(found.ratios, lam).max() for lam in lams])),
        "observed": (few, np.array([observed_rate(family, found.theta, lam, data=data) for lam in few])),
    }
