"""Metrics of points in the plane against a law that is known: distances, and what is left of its modes."""

from collections.abc import Mapping, Sequence

import numpy as np
import ot
import pandas as pd
from scipy.spatial.distance import cdist

from iterative_retraining.comparisons import LABELS, arm_label, interval
from iterative_retraining.ensembles import Generation
from iterative_retraining.laws import GaussianMixture

N_PROJECTIONS = 64


class PlaneMetrics:
    """Measures points (n, 2) against ``n`` fresh draws of ``law``, which are the same for all.

    energy_distance: 2 E|X - Y| - E|X - X'| - E|Y - Y'|, without the zeros of equal points (Szekely and Rizzo 2013); it
    can be slightly below 0. sliced_w2: root mean square over 64 directions of the W_2 of the projections (POT). spread:
    root mean square distance per coordinate from the nearest mean of the law; modes: the share of its means that are
    nearest to at least a quarter of their fair share of the points.
    """

    def __init__(self, law: GaussianMixture, n: int, *, seed: int) -> None:
        self.law, self.reference, self.means = law, law.sample(n, seed=seed), np.asarray(law.means)
        self._within = _mean_distance(self.reference, self.reference, n * (n - 1))
        self._projections = ot.sliced.get_random_projections(2, N_PROJECTIONS, seed=0)

    def __call__(self, x: np.ndarray) -> dict[str, float]:
        """The four values; NaN where a point is not finite (its member has stopped)."""
        if not np.isfinite(x).all():
            return dict.fromkeys(("energy_distance", "sliced_w2", "spread", "modes"), float("nan"))
        n, m = len(x), len(self.reference)
        between = _mean_distance(x, self.reference, n * m)
        gaps = cdist(x, self.means)
        counts = np.bincount(gaps.argmin(axis=1), minlength=len(self.means))
        sliced = ot.sliced_wasserstein_distance(x, self.reference, projections=self._projections)
        return {
            "energy_distance": 2 * between - _mean_distance(x, x, n * (n - 1)) - self._within,
            "sliced_w2": float(sliced),
            "spread": float(np.sqrt((gaps.min(axis=1) ** 2).mean() / 2)),
            "modes": float((counts >= 0.25 * n / len(self.means)).mean()),
        }

    def floor(self, n: int, *, n_draws: int = 40, seed: int) -> dict[str, list[float]]:
        """The values of ``n_draws`` sets of ``n`` draws from the law itself: real against real."""
        rows = [self(self.law.sample(n, seed=seed + i)) for i in range(n_draws)]
        return {name: [row[name] for row in rows] for name in rows[0]}


def _mean_distance(x: np.ndarray, y: np.ndarray, pairs: int) -> float:
    return float(cdist(x, y).sum() / pairs)


def measured_rows(
    family: str, plan: Sequence[tuple[str, float, int]], found: Generation, measure: PlaneMetrics
) -> list[dict[str, object]]:
    """One row a member of ``plan``, (scheme, lam, seed), with its values at this generation."""
    return [
        {"run_id": f"{family}-{scheme}-{lam}-{seed}", "family": family, "scheme": scheme, "lam": lam, "seed": seed}
        | {"generation": found.generation, **measure(points)}
        for (scheme, lam, seed), points in zip(plan, found.samples, strict=True)
    ]


def ends_table(runs: pd.DataFrame, floor: Mapping[str, Sequence[float]], metrics: Sequence[str]) -> str:
    """A Markdown table of the first and last generation by family and arm: mean over seeds ± 95 % t-interval."""
    ends = runs[runs.generation.isin([0, runs.generation.max()])]
    lines = [
        f"| family | arm | retrainings | {' | '.join(LABELS[m] for m in metrics)} |",
        "|---|---|---|" + "---|" * len(metrics),
    ]
    for (family, lam, scheme, t), table in ends.assign(lam=ends.lam.fillna(-1)).groupby(
        ["family", "lam", "scheme", "generation"]
    ):
        cells = [interval(table[m].to_numpy(), digits=4) for m in metrics]
        lines.append(f"| {family} | {arm_label(scheme, lam)} | {t} | {' | '.join(cells)} |")
    lines.append(f"| real vs real | | | {' | '.join(f'{np.mean(floor[m]):.4f}' for m in metrics)} |")
    return "\n".join(lines)
