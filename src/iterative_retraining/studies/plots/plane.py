"""Figures of densities in the plane over retrainings."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import curve_look


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
