"""Figures of rates and distances to the fixed point."""

from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import EXACT_COLOUR, PALETTE, curve_look


def rate_panels(panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Contraction rates against lambda, a panel a case: (lambdas, rates) by name, drawn as `_RATE_STYLES` has it."""
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.9 * len(panels) + 0.6, 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        axis.axhline(1, color="0.6", linewidth=0.8)
        for name, (lams, rates) in curves.items():
            axis.semilogx(lams, rates, label=name, **_RATE_STYLES[name])
        axis.set(xlabel="λ", title=title, ylim=(0, 1.15))
    axes[0][0].set_ylabel("contraction per retraining")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


_RATE_STYLES: dict[str, dict[str, Any]] = {
    "Theorem 1": {"color": PALETTE[3], "linestyle": "--"},
    "Ferbach et al.": {"color": PALETTE[1], "linestyle": "-."},
    "exact: largest λm/(1+λm)": {"color": EXACT_COLOUR},
    "observed": {"color": PALETTE[0], "linestyle": "", "marker": "o", "markersize": 4},
}


def distances_over_time(gaps: Mapping[str, np.ndarray], rate: float) -> Figure:
    """Distances to the fixed point (T,) by name against retrainings, on a log scale; dotted: the slope of ``rate``."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for k, (name, values) in enumerate(gaps.items()):
        axis.semilogy(values / values[0], marker="o", markersize=4, **curve_look(name, k), label=name)
    t = np.arange(max(len(values) for values in gaps.values()))
    axis.semilogy(t, rate**t, ":", color="0.4", label=f"{rate:.3f} per retraining")
    axis.set(xlabel="retrainings t", ylabel="distance to θ*, relative to t = 0")
    axis.legend(frameon=False)
    return figure


def output_distances(paths: Mapping[str, tuple[np.ndarray, np.ndarray]], rates: Mapping[str, float]) -> Figure:
    """Distances (starts, T) against retrainings by name: (observed as points, linear as lines); dotted: ``rates``."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for (name, (observed, linear)), colour in zip(paths.items(), (PALETTE[0], PALETTE[1]), strict=False):
        t = np.arange(observed.shape[1])
        axis.semilogy(t, (observed / observed[:, :1]).T, "o", markersize=3, color=colour)
        lines = axis.semilogy(t, (linear / linear[:, :1]).T, color=colour, linewidth=0.8)
        lines[0].set_label(name)
        axis.semilogy(t, rates[name] ** t, ":", color="0.3")
    axis.set(xlabel="retrainings t", ylabel="distance of outputs, relative to t = 0")
    axis.legend(frameon=False)
    return figure


def tail_panels(tails: Mapping[str, Any], deltas: np.ndarray) -> Figure:
    """Quantiles of Assumption 3 against log(1/delta), a panel a family: points for each n, line the fitted bound."""
    figure, axes = plt.subplots(1, len(tails), figsize=(3 * len(tails), 3.2), sharey=True, layout="constrained")
    for axis, (name, tail) in zip(np.atleast_1d(axes), tails.items(), strict=True):
        for row, n in enumerate(tail.sizes):
            values = tail.quantiles[row]
            last = n == tail.sizes[-1]
            bars = np.stack([values - tail.low[row], tail.high[row] - values]) if last else None
            style = {"fmt": "osv"[row % 3], "color": PALETTE[row], "markersize": 4, "label": f"n = {n}"}
            axis.errorbar(1 / deltas, values, bars, **style)
        axis.plot(1 / deltas, tail.a * np.sqrt(np.log(tail.b / deltas)), color="0.3", label="a √log(b/δ)")
        axis.set(xscale="log", xlabel="1/δ", title=name)
    np.atleast_1d(axes)[0].set(ylabel="√n · quantile of the error", ylim=(0, None))
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def stacked_errors(panels: Mapping[str, Mapping[str, np.ndarray]], total: np.ndarray) -> Figure:
    """The three errors (T,) of Theorem 2 stacked, a panel a source, each beside the measured ``total`` (T,)."""
    names = ("iterative", "statistical", "optimisation")
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.4), sharey=True, layout="constrained")
    t = np.arange(len(total))
    for axis, (title, terms) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        axis.stackplot(t, *(terms[name] for name in names), labels=names, colors=PALETTE[:3], alpha=0.6)
        axis.plot(t, total, "o-", color="black", markersize=3, label="distance to θ*, measured")
        axis.set(xlabel="retrainings t", title=title)
    np.atleast_1d(axes)[0].set_ylabel("95 % quantile")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure
