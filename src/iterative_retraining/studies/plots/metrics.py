"""Figures of the appendix on metrics."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from iterative_retraining.studies.plots.style import PALETTE
from iterative_retraining.studies.report.labels import label_of


def verdict_map(cases: Sequence[str], metrics: Sequence[str], values: np.ndarray, scores: np.ndarray) -> Figure:
    """A map of cases x metrics: numbers are ``values`` (C, M), colours ``scores`` (C, M), red worse and blue better."""
    figure, axis = plt.subplots(figsize=(0.72 * len(metrics) + 1.8, 0.42 * len(cases) + 1), layout="constrained")
    image = axis.imshow(np.clip(scores, -10, 10), cmap="RdBu", vmin=-10, vmax=10, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.2f}" if abs(value) < 1000 else "> 1000"
        dark = abs(np.clip(scores[row, column], -10, 10)) > 7
        axis.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axis.set_xticks(range(len(metrics)), [label_of(m) for m in metrics], rotation=40, ha="right")
    axis.set_yticks(range(len(cases)), cases)
    axis.tick_params(length=0)
    label = "reads worse  <  standard deviations  <  reads better"
    figure.colorbar(image, ax=axis, label=label, extend="both", shrink=0.9)
    return figure


def metrics_against(table: pd.DataFrame, x: str, metrics: Sequence[str], xlabel: str) -> Figure:
    """Metrics against column ``x``, three a row: mean over splits, band 2.5 to 97.5 %; dotted: mean at the first x."""
    shape = (-(-len(metrics) // 3), min(3, len(metrics)))
    figure, axes = plt.subplots(*shape, figsize=(2.8 * shape[1], 2.4 * shape[0]), squeeze=False, layout="constrained")
    for axis, metric, colour in zip(axes.flat, metrics, PALETTE, strict=False):
        sns.lineplot(table, x=x, y=metric, ax=axis, errorbar=("pi", 95), marker="o", color=colour)
        axis.axhline(table[table[x] == table[x].min()][metric].mean(), color="0.5", linewidth=0.8, linestyle=":")
        axis.set(xlabel=xlabel, ylabel=label_of(metric))
    return figure


def bias_in_n(sizes: np.ndarray, values: Mapping[str, np.ndarray], truth: Mapping[str, float]) -> Figure:
    """Metrics against 1/N by name: ``values`` (sizes, repetitions) as means with 95 % t-intervals where there are
    repetitions, the least-squares line to N = infinity, and the truth as a dashed line."""
    figure, axes = plt.subplots(1, len(values), figsize=(3.4 * len(values), 3), layout="constrained")
    for axis, (name, repeated), colour in zip(np.atleast_1d(axes), values.items(), PALETTE, strict=False):
        mean, count = repeated.mean(axis=1), repeated.shape[1]
        half = stats.t.ppf(0.975, count - 1) * stats.sem(repeated, axis=1) if count > 1 else None
        axis.errorbar(1 / sizes, mean, half, fmt="o", markersize=4, color=colour, linewidth=1)
        line = np.polyfit(1 / sizes, mean, 1)
        axis.plot([0, 1 / sizes.min()], np.polyval(line, [0, 1 / sizes.min()]), color=colour, linewidth=1)
        axis.axhline(truth[name], color="0.4", linestyle="--", linewidth=1, label="exact")
        ticks = np.sort(sizes)[[len(sizes) // 3, 0]]
        axis.set_xticks([0, *(1 / n for n in ticks)], ["∞", *map(str, ticks)])
        axis.set(xlabel="N (scale 1/N)", ylabel=name)
        axis.legend(frameon=False)
    return figure
