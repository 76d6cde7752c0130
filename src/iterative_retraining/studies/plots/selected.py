"""Figures of filtered and chosen Gaussians."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import PALETTE


def filtered_variances(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """Variance against retrainings by name: points (T,) simulated, lines (T,) exact, dotted the fixed point."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    for (name, (simulated, exact, limit)), colour in zip(curves.items(), PALETTE, strict=False):
        t = np.arange(len(exact))
        axis.plot(t, simulated, "o", markersize=4, color=colour)
        axis.plot(t, exact, color=colour, label=name)
        if limit > 0:
            axis.axhline(limit, color=colour, linestyle=":", linewidth=1)
    axis.set(xlabel="retrainings t", ylabel="variance, relative to the real", yscale="log")
    axis.legend(frameon=False, fontsize=9)
    return figure


def curation_panels(
    lams: np.ndarray, fixed: Mapping[str, np.ndarray], alone: Mapping[str, tuple[np.ndarray, np.ndarray]], edge: float
) -> Figure:
    """Left: variance of the fixed point against lambda by name, (L,), infinite where there is none; a line at ``edge``.
    Right: means and variances (T,) on chosen samples alone."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    for (name, values), colour in zip(fixed.items(), PALETTE, strict=False):
        left.semilogy(lams, np.where(np.isfinite(values), values, np.nan), color=colour, label=name)
    left.axvline(edge, color="0.5", linestyle=":", linewidth=1)
    left.set(xlabel="λ", ylabel="variance of the fixed point", ylim=(0.9, 200))
    left.legend(frameon=False, fontsize=9)
    for (name, (means, variances)), colour in zip(alone.items(), PALETTE, strict=False):
        t = np.arange(1, len(means) + 1)
        right.loglog(t, variances, color=colour, label=f"{name}: variance")
        right.loglog(t[1:], means[1:], color=colour, linestyle="--", label=f"{name}: mean")
    right.set(xlabel="retrainings t + 1, chosen samples alone", ylabel="mean, variance")
    right.legend(frameon=False, fontsize=8)
    return figure
