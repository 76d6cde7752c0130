"""Figures of what the flags of a retraining imply."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import PALETTE


def protocol_panels(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Learning rate, and what the EMA keeps of the old weights, against the images of one retraining.

    ``curves``: by name, (images, fraction of the nominal rate, weight on the old weights), each up to the end of the
    retraining, which a dot marks. Curves that lie on each other are drawn ever thinner.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.6), sharex=True, layout="constrained")
    for k, (name, (images, rate, memory)) in enumerate(curves.items()):
        look = {"color": PALETTE[k], "linewidth": 7 - 6 * k / len(curves), "label": name}
        for axis, values in ((left, rate), (right, memory)):
            axis.plot(images, 100 * values, **look)
            axis.plot(images[-1], 100 * values[-1], "o", color=PALETTE[k], markeredgecolor="white", markersize=8)
    left.set(xscale="log", yscale="log", xlabel="images of the retraining", ylabel="learning rate, % of nominal")
    left.yaxis.set_major_formatter("{x:g}")
    right.set(xlabel="images of the retraining", ylabel="EMA on the old weights, %")
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def reach_by_budget(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], budgets: Mapping[str, int]) -> Figure:
    """How far a retraining carries the EMA against its images: (images, fraction) by name; ``budgets`` are marked."""
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for (name, (images, reach)), colour, line in zip(curves.items(), PALETTE, ("-", "--", "-.", ":"), strict=False):
        axis.loglog(images, 100 * reach, line, color=colour, label=name)
    for name, images in budgets.items():
        axis.axvline(images, color="0.75", linewidth=0.8, zorder=0)
        axis.annotate(name, (images, 0.02), xycoords=("data", "axes fraction"), rotation=90, ha="right", fontsize=8)
    axis.set(xlabel="images of a retraining", ylabel="reach of the EMA, %")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False)
    return figure
