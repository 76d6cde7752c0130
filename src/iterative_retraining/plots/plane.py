"""Figures of densities in the plane over retrainings."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure


def density_panels(truth: np.ndarray, rows: Mapping[str, Sequence[np.ndarray]], generations: Sequence[int]) -> Figure:
    """Histograms of points (n, 2): the true law first, then a column a generation; a row of ``rows`` an arm."""
    shape = (len(rows), len(generations) + 1)
    figure, axes = plt.subplots(*shape, figsize=(1.6 * shape[1], 1.75 * shape[0]), squeeze=False, layout="constrained")
    for axis_row, (name, columns) in zip(axes, rows.items(), strict=True):
        for axis, points in zip(axis_row, [truth, *columns], strict=True):
            low, high = np.array([[-1.6, 1.6]] * 2).T
            axis.hist2d(*points.T, bins=64, range=np.stack([low, high], axis=1), cmap="magma", density=True)
            axis.set(xticks=[], yticks=[], aspect="equal")
        axis_row[0].set_ylabel(name)
    for axis, title in zip(axes[0], ["truth", *(f"{t} retrainings" for t in generations)], strict=True):
        axis.set_title(title, fontsize=9)
    return figure
