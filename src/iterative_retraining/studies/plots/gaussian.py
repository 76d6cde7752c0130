"""Figures of the Gaussian chapters: distributions of the estimates over chains."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import EXACT_COLOUR, PALETTE, arm_style, curve_look


def std_over_time(std: np.ndarray, simulated: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> Figure:
    """sigma_t on a log scale: some chains of ``std`` (T, n_chains) in grey, ``simulated`` summaries as points and their
    ``exact`` counterparts as lines, both (T,) by the same names."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.semilogy(std[:, :40], color="0.85", linewidth=0.6, zorder=0)
    every = max(1, len(std) // 20)
    for colour, (name, values) in zip(PALETTE, simulated.items(), strict=False):
        axis.semilogy(np.arange(len(std))[::every], values[::every], "o", markersize=4, color=colour)
        axis.semilogy(exact[name], color=colour, label=name)
    axis.set(xlabel="retrainings t", ylabel="σ_t / σ_0")
    axis.legend(frameon=False)
    return figure


def decay_by_dimension(t: np.ndarray, simulated: Mapping[int, np.ndarray], exact: Mapping[int, np.ndarray]) -> Figure:
    """Decay against retrainings ``t`` for several dimensions: points simulated, lines exact, on a log scale."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for colour, dim in zip(sns.color_palette("viridis", len(simulated)), simulated, strict=True):
        axis.semilogy(t, simulated[dim], "o", markersize=4, color=colour)
        axis.semilogy(t, exact[dim], color=colour, label=f"d = {dim}")
    axis.set(xlabel="retrainings t", ylabel="geometric mean of (det Σ_t)^(1/2d)")
    axis.legend(frameon=False)
    return figure


def std_bands(arms: Sequence[tuple[str, float | None, np.ndarray]]) -> Figure:
    """Median and 5 to 95 % of sigma_t over chains, (T, n_chains), for arms given as (scheme, lam, std)."""
    figure, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
    for scheme, lam, std in arms:
        style = {key: value for key, value in arm_style(scheme, lam).items() if key != "marker"}
        low, middle, high = np.quantile(std, [0.05, 0.5, 0.95], axis=1)
        axis.plot(middle, **style)
        axis.fill_between(np.arange(len(middle)), low, high, color=style["color"], alpha=0.2, linewidth=0)
    axis.set(xlabel="retrainings t", ylabel="σ_t / σ_0", ylim=(0, None))
    axis.legend(frameon=False, loc="lower left")
    return figure


def two_distributions(first: np.ndarray, second: np.ndarray, names: tuple[str, str], xlabel: str) -> Figure:
    """Empirical distribution functions of two samples on one axis."""
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for values, name, colour in zip((first, second), names, (PALETTE[0], PALETTE[1]), strict=True):
        axis.ecdf(values, label=name, color=colour)
    axis.set(xlabel=xlabel, ylabel="share of chains below")
    axis.legend(frameon=False)
    return figure


def variances_over_time(
    simulated: Mapping[str, np.ndarray],
    exact: Mapping[str, np.ndarray],
    limits: Mapping[str, float],
    *,
    log: bool = False,
) -> Figure:
    """n Var / sigma^2 against retrainings by name: points (T,) simulated, lines (T,) exact, dotted the limits."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    for k, (name, values) in enumerate(simulated.items()):
        every, t, look = max(1, len(values) // 25), np.arange(len(values)), curve_look(name, k)
        points = {"markersize": 4, "color": look["color"], "label": None if name in exact else name}
        axis.plot(t[::every], values[::every], "o", **points)
        if name in exact:
            axis.plot(t, exact[name], **look, label=name)
        if name in limits:
            axis.axhline(limits[name], color=look["color"], linestyle=":", linewidth=1)
    axis.set(xlabel="retrainings t", ylabel="error variance, in units of σ²/n", yscale="log" if log else "linear")
    axis.legend(frameon=False, fontsize=9)
    return figure


def variance_by_lam(lams: np.ndarray, exact: np.ndarray, simulated: Mapping[str, tuple[np.ndarray, ...]]) -> Figure:
    """Stationary variance against lambda: the exact line, and (lambdas, values, half widths) by name as points."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    axis.semilogx(lams, exact, color=EXACT_COLOUR, label="1 + λ / (1 + 2λ)")
    axis.axhline(1.5, color="0.6", linestyle=":", linewidth=1)
    for (name, (x, values, half)), colour, marker in zip(simulated.items(), PALETTE, "os^", strict=False):
        axis.errorbar(x, values, half, fmt=marker, markersize=4, linewidth=1, color=colour, label=name)
    axis.set(xlabel="λ", ylabel="error variance, relative to that of real data")
    axis.legend(frameon=False, fontsize=9)
    return figure


def variance_by_weight(weights: np.ndarray, curves: Mapping[str, tuple[np.ndarray, Sequence[float], float]]) -> Figure:
    """Stationary variance against the weight of real data by name: (simulated (W,), exact (W,), best weight)."""
    figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
    axis.plot([0.3, 1], [0.3, 1], "--", color="0.6", linewidth=0.8)
    for k, (name, (simulated, exact, best)) in enumerate(curves.items()):
        look = curve_look(name, k)
        axis.plot(weights, exact, **look, label=f"{name}: best {best:.3f}")
        axis.plot(weights, simulated, "o", markersize=3.5, color=look["color"])
        axis.plot(best, best, "o", markersize=9, fillstyle="none", color="black")
    axis.set(xlabel="weight of the real data", ylabel="error variance, in units of σ²/n", ylim=(0.3, 1.5))
    axis.legend(frameon=False)
    return figure


def shares_collapsed(collapsed: Mapping[str, np.ndarray], first: float) -> Figure:
    """Share of chains that are collapsed, of booleans (T, n_chains) by name, with 95 % bands; dotted: ``first``."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    axis.axhline(first, color="0.5", linestyle=":", linewidth=1)
    for k, (name, lost) in enumerate(collapsed.items()):
        share, look = lost.mean(axis=1), curve_look(name, k)
        half, t = 1.96 * np.sqrt(share * (1 - share) / lost.shape[1]), np.arange(len(share))
        axis.plot(share, marker="o", markersize=3, **look, label=name)
        axis.fill_between(t, share - half, share + half, color=look["color"], alpha=0.2, linewidth=0)
    axis.set(xlabel="retrainings t", ylabel="share collapsed", ylim=(0, 1))
    axis.legend(frameon=False)
    return figure
