"""Figures of densities in the plane over retrainings."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import PALETTE, curve_look


def density_panels(truth: np.ndarray, rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]) -> Figure:
    """Histograms of points (n, 2): the real distribution first, then a column a title; a row of ``rows`` an arm."""
    shape = (len(rows), len(titles) + 1)
    figure, axes = plt.subplots(*shape, figsize=(1.6 * shape[1], 1.75 * shape[0]), squeeze=False, layout="constrained")
    for axis_row, (name, columns) in zip(axes, rows.items(), strict=True):
        for axis, points in zip(axis_row, [truth, *columns], strict=True):
            low, high = np.array([[-1.6, 1.6]] * 2).T
            axis.hist2d(*points.T, bins=64, range=np.stack([low, high], axis=1), cmap="magma", density=True)
            axis.set(xticks=[], yticks=[], aspect="equal")
        axis_row[0].set_ylabel(name)
    for axis, title in zip(axes[0], ["truth", *titles], strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def density_maps(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str]) -> Figure:
    """Maps of counts (B, B) on [-1.6, 1.6]^2, first axis across: a row of ``rows`` an arm, a column a title."""
    shape = (len(rows), len(titles))
    figure, axes = plt.subplots(*shape, figsize=(1.6 * shape[1], 1.75 * shape[0]), squeeze=False, layout="constrained")
    for axis_row, (name, maps) in zip(axes, rows.items(), strict=True):
        for axis, counts in zip(axis_row, maps, strict=True):
            axis.imshow(counts.T, origin="lower", cmap="magma", extent=(-1.6, 1.6, -1.6, 1.6))
            axis.set(xticks=[], yticks=[])
        axis_row[0].set_ylabel(name, fontsize=9)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    return figure


def spread_curves(
    simulated: Mapping[str, tuple[Sequence[int], np.ndarray]], recursions: Mapping[str, np.ndarray], truth: float
) -> Figure:
    """Spread against retrainings, by name: points (generations, values (T, seeds)) as mean and range, and the recursion
    (T + 1,) of the same name as a line. Dotted: the truth."""
    figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
    axis.axhline(truth, color="0.4", linestyle=":", linewidth=1)
    for colour, marker, name in zip(PALETTE, "o^sDvPX*<>", simulated, strict=False):
        t, values = simulated[name]
        mean = values.mean(axis=1)
        bars = np.stack([mean - values.min(axis=1), values.max(axis=1) - mean])
        look = {"fmt": marker, "markersize": 4, "linewidth": 1, "color": colour, "label": name}
        axis.errorbar(t, mean, bars, **look)
        if name in recursions:
            axis.plot(recursions[name], "-", color=colour, linewidth=1)
    axis.set(xlabel="retrainings", ylabel="spread around a mode", yscale="log")
    axis.legend(frameon=False, fontsize=8, ncols=2)
    return figure


def lines_by_arm(
    x: np.ndarray, curves: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str, log: bool = True
) -> Figure:
    """Curves (X, seeds) by name: mean and range over seeds against x (X,)."""
    figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for k, (name, values) in enumerate(curves.items()):
        look = curve_look(name, k)
        axis.plot(x, values.mean(axis=1), **look, label=name)
        axis.fill_between(x, values.min(axis=1), values.max(axis=1), color=look["color"], alpha=0.25, linewidth=0)
    axis.set(xlabel=xlabel, ylabel=ylabel, **({"xscale": "log", "yscale": "log"} if log else {}))
    axis.legend(frameon=False)
    return figure
