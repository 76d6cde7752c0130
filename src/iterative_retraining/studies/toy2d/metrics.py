"""Metrics of points in the plane against a known target distribution: distances, and what is left of its modes."""

from collections.abc import Mapping, Sequence

import numpy as np
import ot
import pandas as pd
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from iterative_retraining.studies.report.arms import arms
from iterative_retraining.studies.report.comparisons import interval
from iterative_retraining.studies.report.labels import label_of
from iterative_retraining.studies.toy2d.distributions import GaussianMixture

N_PROJECTIONS = 64
N_EXACT = 500
BANDWIDTHS = np.geomspace(0.02, 0.5, 30)
NAMES = ("energy_distance", "sliced_w2", "w2", "kernel_nll", "spread", "radius", "modes")


class PlaneMetrics:
    """Measures points (n, 2) against ``n`` fresh draws of ``target``, which are the same for all.

    energy_distance: 2 E|X - Y| - E|X - X'| - E|Y - Y'|, without the zeros of equal points (Szekely and Rizzo 2013); it
    can be slightly below 0. sliced_w2: root mean square over 64 directions of the W_2 of the projections (POT). w2: the
    W_2 between the first 500 of either set, exactly (POT). kernel_nll: the negative log-likelihood in nats of the fresh
    draws under a Gaussian kernel estimate from the points, of the bandwidth that is best for real data. spread: root
    mean square distance per coordinate from the nearest mean of the target; radius: mean distance from the origin;
    modes: the share of its means that are nearest to at least a quarter of their fair share of the points.
    """

    def __init__(self, target: GaussianMixture, n: int, *, seed: int) -> None:
        self.target, self.reference, self.means = target, target.sample(n, seed=seed), np.asarray(target.means)
        self._within = _mean_distance(cdist(self.reference, self.reference), n * (n - 1))
        self._projections = ot.sliced.get_random_projections(2, N_PROJECTIONS, seed=0)
        real = cdist(target.sample(n, seed=seed + 1), self.reference)
        self.bandwidth = min(BANDWIDTHS, key=lambda width: _kernel_nll(real, width))

    def __call__(self, x: np.ndarray) -> dict[str, float]:
        """The values; NaN where a point is not finite (its member has stopped)."""
        if not np.isfinite(x).all():
            return dict.fromkeys(NAMES, float("nan"))
        n, m = len(x), len(self.reference)
        across, gaps = cdist(x, self.reference), cdist(x, self.means)
        counts = np.bincount(gaps.argmin(axis=1), minlength=len(self.means))
        within = _mean_distance(cdist(x, x), n * (n - 1))
        return {
            "energy_distance": 2 * _mean_distance(across, n * m) - within - self._within,
            "sliced_w2": float(ot.sliced_wasserstein_distance(x, self.reference, projections=self._projections)),
            "w2": float(np.sqrt(ot.emd2([], [], across[:N_EXACT, :N_EXACT] ** 2))),
            "kernel_nll": _kernel_nll(across, self.bandwidth),
            "spread": float(np.sqrt((gaps.min(axis=1) ** 2).mean() / 2)),
            "radius": float(np.linalg.norm(x, axis=1).mean()),
            "modes": float((counts >= 0.25 * n / len(self.means)).mean()),
        }

    def kernel_kl(self, x: np.ndarray) -> float:
        """KL(target || kernel estimate from x) in nats, by the fresh draws: kernel_nll less the target's own negative
        log-likelihood. It has a floor above 0, what the kernel blurs; NaN where a point is not finite."""
        if not np.isfinite(x).all():
            return float("nan")
        own = -self.target.log_density(torch.from_numpy(self.reference)).mean().item()
        return _kernel_nll(cdist(x, self.reference), self.bandwidth) - own

    def floor(self, n: int, *, n_draws: int = 40, seed: int) -> dict[str, list[float]]:
        """The values of ``n_draws`` sets of ``n`` draws from the target itself: real against real."""
        rows = [self(self.target.sample(n, seed=seed + i)) for i in range(n_draws)]
        return {name: [row[name] for row in rows] for name in rows[0]}


def _mean_distance(distances: np.ndarray, pairs: int) -> float:
    return float(distances.sum() / pairs)


def _kernel_nll(distances: np.ndarray, width: float) -> float:
    """Of the columns' points under a Gaussian kernel of standard deviation ``width`` at each row's."""
    constant = np.log(len(distances) * 2 * np.pi * width**2)
    return float(constant - logsumexp(-0.5 * (distances / width) ** 2, axis=0).mean())


def ends_table(runs: pd.DataFrame, floor: Mapping[str, Sequence[float]], metrics: Sequence[str] = NAMES) -> str:
    """A Markdown table of the first and last generation by family and arm: mean over seeds ± 95 % t-interval."""
    ends = runs[runs.generation.isin([0, runs.generation.max()])]
    rows = [
        {"family": family, "arm": arm.label, "retrainings": t}
        | {label_of(m): interval(seeds[m].to_numpy(), digits=3) for m in metrics}
        for family, own in ends.groupby("family", sort=False)
        for arm, table in arms(own)
        for t, seeds in table.groupby("generation")
    ]
    rows.append(
        {"family": "real vs real", "arm": "", "retrainings": ""}
        | {label_of(m): f"{np.mean(floor[m]):.3f}" for m in metrics}
    )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
