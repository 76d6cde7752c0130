"""Theorem 2, measured: how far finite samples and early stopping push a retraining from that with infinitely many data.

Location-scale families on the line, many chains at once: theta (C, 2), data (C, N), float64. Every sample is drawn, but
not by `retrain`: the maximum of each likelihood is found by Newton's method for all chains together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.func import grad, jacrev, vmap

from iterative_retraining.schemes import synthetic_count
from iterative_retraining.seeding import generator, stage_seed
from iterative_retraining.studies.theory.families import LocationScale, Points
from iterative_retraining.studies.theory.fixed_point import NotAMaximumError, retrain_exactly

POINTS_AT_ONCE = 1_000_000
LONGEST_STEP = 0.5


@dataclass(frozen=True)
class Study:
    """What is retrained: a family, the distribution of the data (its quadrature, and itself for draws), and lam."""

    family: LocationScale
    data: Points
    real: stats.rv_continuous
    lam: float

    def exactly(self, theta: Tensor, n_retrain: int) -> Tensor:
        """theta_0..theta_n (n_retrain + 1, 2) with infinitely many data, from theta (2,)."""
        return retrain_exactly(self.family, theta, self.lam, n_retrain, data=self.data)

    def draw(self, n_chains: int, n: int, rng: np.random.Generator) -> Tensor:
        """Real data of each chain, (n_chains, n)."""
        return torch.from_numpy(self.real.rvs(size=(n_chains, n), random_state=rng))

    def pool(self, theta: Tensor, real: Tensor, rng: np.random.Generator) -> Tensor:
        """The real data (C, n) of each chain and floor(lam n) samples of its model theta (C, 2)."""
        return torch.cat([real, self.family.sample(theta, synthetic_count(self.lam, real.shape[1]), rng)], dim=1)

    def deviations(self, theta: Tensor, n: int, n_draws: int, *, seed: int) -> np.ndarray:
        """|G^n(theta) - G^infinity(theta)| (n_draws,) of Assumption 3, over draws of real and synthetic data."""
        rng, target = generator(seed), self.exactly(theta, 1)[1]
        real = self.draw(n_draws, n, rng)
        fitted = fit_chains(self.family, target.expand(n_draws, 2), self.pool(theta.expand(n_draws, 2), real, rng))
        return (fitted - target).norm(dim=1).numpy()


def fit_chains(family: LocationScale, start: Tensor, x: Tensor) -> Tensor:
    """The maximum of the likelihood of each chain's data x (C, N) near ``start`` (C, 2): Newton's method, (C, 2).

    Raises NotAMaximumError, with the chain, where the gradient does not vanish.
    """
    chunks = zip(*(part.split(max(1, POINTS_AT_ONCE // x.shape[1])) for part in (start, x)), strict=True)
    found = torch.cat([_newton(family, theta, data) for theta, data in chunks])
    slopes = _slopes(family, found, x).norm(dim=1)
    if not slopes.max() < 1e-8:
        worst = int(slopes.argmax())
        raise NotAMaximumError(f"no maximum found for chain {worst}: its gradient still has norm {slopes[worst]:.3g}")
    return found


def _newton(family: LocationScale, theta: Tensor, x: Tensor, n_steps: int = 60) -> Tensor:
    for _ in range(n_steps):
        slope = _slopes(family, theta, x)
        if slope.norm(dim=1).max() < 1e-11:
            break
        values, vectors = torch.linalg.eigh(vmap(jacrev(grad(_mean_log_prob(family))))(theta, x))
        step = (vectors @ ((vectors.mT @ slope[..., None]) / values.abs().clamp(min=1e-8)[..., None]))[..., 0]
        theta = theta + step * (LONGEST_STEP / step.norm(dim=1, keepdim=True)).clamp(max=1)
    return theta


def ascend_chains(family: LocationScale, start: Tensor, x: Tensor, *, n_steps: int, step_size: float) -> Tensor:
    """``n_steps`` of gradient ascent on each chain's mean log-likelihood, from ``start`` (C, 2): training cut short."""
    theta = start
    for _ in range(n_steps):
        theta = theta + step_size * _slopes(family, theta, x)
    return theta


def _slopes(family: LocationScale, theta: Tensor, x: Tensor) -> Tensor:
    return vmap(grad(_mean_log_prob(family)))(theta, x)


def _mean_log_prob(family: LocationScale) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda theta, x: family.log_prob(theta, x[:, None]).mean()


def quantiles(norms: np.ndarray, deltas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The (1 - delta)-quantiles of ``norms`` and their 95 % intervals by order statistics: (value, low, high)."""
    ordered, count = np.sort(norms), len(norms)
    half = 1.96 * np.sqrt(count * deltas * (1 - deltas))
    at = [np.clip(np.round(count * (1 - deltas) + shift), 0, count - 1).astype(int) for shift in (0, -half, half)]
    return tuple(ordered[i] for i in at)


@dataclass(frozen=True)
class Tail:
    """sqrt(n) times the quantiles of |G^n - G^infinity|, the worst over theta, and the a and b that cover them.

    quantiles (sizes, deltas), with their 95 % intervals low and high; spread: the largest relative deviation of a
    quantile from its mean over the sizes n, which is 0 if the error falls exactly as 1/sqrt(n).
    """

    sizes: tuple[int, ...]
    quantiles: np.ndarray
    low: np.ndarray
    high: np.ndarray
    a: float
    b: float

    @property
    def spread(self) -> float:
        return float(np.abs(self.quantiles / self.quantiles.mean(axis=0) - 1).max())


def worst_tail(
    study: Study, theta: Tensor, radius: float, sizes: Sequence[int], n_draws: int, deltas: np.ndarray, *, seed: int
) -> Tail:
    """Assumption 3 at theta (2,) and at four points ``radius`` away, for every n of ``sizes``: see `Tail`."""
    steps = radius * torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    rows = []
    for n in sizes:
        of_theta = [
            np.stack(quantiles(study.deviations(theta + step, n, n_draws, seed=stage_seed(seed, i, f"n{n}")), deltas))
            for i, step in enumerate(steps)
        ]
        worst = max(of_theta, key=lambda found: found[0].sum())
        rows.append(math.sqrt(n) * worst)
    values, low, high = np.stack(rows, axis=1)
    return Tail(tuple(sizes), values, low, high, *fit_tail(values.max(axis=0), deltas))


def fit_tail(scaled: np.ndarray, deltas: np.ndarray) -> tuple[float, float]:
    """a and b such that a sqrt(log(b / delta)) is at least ``scaled`` = sqrt(n) times the (1 - delta)-quantiles.

    scaled^2 = a^2 (log b + log 1/delta) is a line in log 1/delta: a by least squares, then the smallest b >= 1
    that covers. Raises ValueError if the quantiles do not grow as delta falls.
    """
    slope = float(np.polyfit(-np.log(deltas), scaled**2, 1)[0])
    if not slope > 0:
        raise ValueError(f"the quantiles do not grow as delta falls: slope {slope:.3g}; give more draws")
    return math.sqrt(slope), max(1.0, float(np.exp((scaled**2 / slope + np.log(deltas)).max())))


def tail(a: float, b: float, n: int, delta: np.ndarray) -> np.ndarray:
    """(a / sqrt n) sqrt(log(b / delta)), the statistical part of Assumption 3."""
    return a / math.sqrt(n) * np.sqrt(np.log(b / np.asarray(delta)))


@dataclass(frozen=True)
class Bound:
    """The constants of Theorem 2: a and b of Assumption 3, eps_opt, rho, for n data at level delta."""

    a: float
    b: float
    n: int
    delta: float
    rho: float
    eps_opt: float = 0.0

    def terms(self, n_retrain: int, start: float) -> dict[str, np.ndarray]:
        """Theorem 2 for t = 0..n_retrain, term by term; ``start`` = |theta_0 - theta*|. Their sum is the bound.

        The sum of rho^i runs over i <= t; at t = 0, where nothing has been retrained, the bound is ``start``.
        """
        t = np.arange(n_retrain + 1)
        sums = np.where(t > 0, np.cumsum(self.rho**t), 0.0)
        statistical = tail(self.a, self.b, self.n, self.delta / np.maximum(t, 1)) * sums
        return {"iterative": start * self.rho**t, "statistical": statistical, "optimisation": self.eps_opt * sums}


def three_errors(
    study: Study,
    start: Tensor,
    target: Tensor,
    n: int,
    n_retrain: int,
    n_chains: int,
    *,
    n_steps: int,
    step_size: float,
    seed: int,
) -> dict[str, np.ndarray]:
    """Distances from ``target`` = theta* (2,), and what makes them, per retraining (n_retrain + 1, n_chains).

    iterative: with infinitely many data, trained to the maximum; statistical: what ``n`` data add, |theta_t - that| of
    chains that are trained to the maximum; optimisation: what cutting training to ``n_steps`` adds to the same chains
    on the same draws; total: of the chains that have all three; eps_opt: |G - its maximum| in each retraining of those.
    """
    exact = study.exactly(start, n_retrain)
    full = short = start.expand(n_chains, 2)
    real = study.draw(n_chains, n, generator(stage_seed(seed, 0, "real")))
    names = ("iterative", "statistical", "optimisation", "total", "eps_opt")
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for t in range(n_retrain + 1):
        missed = torch.zeros(n_chains)
        if t:
            drawn = stage_seed(seed, t, "synthetic")
            full = fit_chains(study.family, full, study.pool(full, real, generator(drawn)))
            data = study.pool(short, real, generator(drawn))
            maximum = fit_chains(study.family, short, data)
            short = ascend_chains(study.family, short, data, n_steps=n_steps, step_size=step_size)
            missed = (short - maximum).norm(dim=1)
        rows["iterative"].append((exact[t] - target).norm().expand(n_chains))
        rows["statistical"].append((full - exact[t]).norm(dim=1))
        rows["optimisation"].append((short - full).norm(dim=1))
        rows["total"].append((short - target).norm(dim=1))
        rows["eps_opt"].append(missed)
    return {name: torch.stack(values).numpy() for name, values in rows.items()}
