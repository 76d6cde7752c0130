"""How far to trust one value of a metric: the jackknife over groups of generated points."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from scipy import stats

from iterative_retraining.seeding import generator


class Estimate(NamedTuple):
    """A value, its standard error, and its estimated bias (subtract it; it leaves what is left of order 1/N^2)."""

    value: float
    standard_error: float
    bias: float
    n_groups: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % t-interval around the value."""
        half = float(stats.t.ppf(0.975, self.n_groups - 1)) * self.standard_error
        return self.value - half, self.value + half


def jackknife(
    metric: Callable[..., Mapping[str, float]],
    generated: np.ndarray,
    *,
    real: np.ndarray,
    n_groups: int = 20,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Each value of ``metric(generated, real=real)`` with its delete-a-group jackknife error (Efron 1982).

    generated (N, ...) is cut into ``n_groups`` random groups and measured without each in turn. The real set is taken
    as given: the error is that of drawing other generated points. Raises ValueError unless 2 <= n_groups <= N.
    """
    if not 2 <= n_groups <= len(generated):
        raise ValueError(f"n_groups = {n_groups} is not allowed: it must lie in 2..{len(generated)}, the images given")
    whole = metric(generated, real=real)
    group = generator(seed).permutation(np.arange(len(generated)) % n_groups)
    parts = [metric(generated[group != g], real=real) for g in range(n_groups)]
    estimates = {}
    for name, value in whole.items():
        left_out = np.array([part[name] for part in parts])
        error = np.sqrt((n_groups - 1) * left_out.var())
        estimates[name] = Estimate(value, float(error), float((n_groups - 1) * (left_out.mean() - value)), n_groups)
    return estimates
