"""Figures of runs of Algorithm 1: metrics against retrainings, grids of samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import FLOOR_COLOUR, PALETTE, arm_style, style_of
from iterative_retraining.studies.report.arms import arms
from iterative_retraining.studies.report.floors import band, n_of
from iterative_retraining.studies.report.labels import label_of


def quality_curves(
    runs: pd.DataFrame, floor: Mapping[str, Any], metrics: Sequence[str] = ("fid", "precision", "recall")
) -> Figure:
    """Each metric against the number of retrainings, one curve an arm: the mean over seeds, the band their range.

    The grey band is the real-vs-real floor at the arms' own number of images, see `report.floors.band`.
    """
    return family_curves({"": runs}, floor, metrics)


def family_curves(by_family: Mapping[str, pd.DataFrame], floor: Mapping[str, Any], metrics: Sequence[str]) -> Figure:
    """`quality_curves` with a row for each family of models."""
    shape = (len(by_family), len(metrics))
    figure, axes = plt.subplots(*shape, figsize=(2.9 * shape[1], 2.4 * shape[0] + 0.7), squeeze=False, sharex=True)
    figure.set_layout_engine("constrained")
    for axis_row, (family, runs) in zip(axes, by_family.items(), strict=True):
        for axis, metric in zip(axis_row, metrics, strict=True):
            _curves(axis, runs, floor, metric)
        axis_row[0].set_ylabel(f"{family}\n{axis_row[0].get_ylabel()}".strip())
    _legend_below(figure, axes)
    return figure


def _legend_below(figure: Figure, axes: np.ndarray) -> None:
    """One legend for all axes: one may have curves that another has not, one value a floor."""
    handles: dict[str, Any] = {}
    for axis in axes.flat:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    look = {"ncols": min(8, len(handles)), "frameon": False}
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", **look)


def _curves(axis: Axes, runs: pd.DataFrame, floor: Mapping[str, Any], metric: str) -> None:
    chance = band(floor, metric, n_of(runs))
    if chance is not None:
        axis.axhspan(chance.low, chance.high, color=FLOOR_COLOUR, zorder=0)
        axis.axhline(chance.mean, color="0.5", linewidth=0.8, zorder=1, label=f"real vs real, n = {n_of(runs)}")
    measured = runs.dropna(subset=[metric]) if metric in runs else runs[:0]
    if not len(measured):
        axis.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axis.transAxes)
    for arm, table in arms(measured):
        look = {"errorbar": ("pi", 100), "markersize": 4, "markeredgewidth": 0, **style_of(arm)}
        sns.lineplot(table, x="generation", y=metric, ax=axis, **look)
    axis.set(xlabel="retrainings", ylabel=label_of(metric))
    if axis.get_legend():
        axis.get_legend().remove()


def sampler_curves(
    groups: Mapping[str, Sequence[tuple[str, pd.DataFrame]]],
    floor: Mapping[str, Any],
    metrics: Sequence[str] = ("pixel_variance", "fid", "precision"),
) -> Figure:
    """Metrics against retrainings: a row a group, and in it a curve for each labelled table, mean and range of seeds.

    The fully synthetic arms are told apart by their line, other arms look as everywhere.
    """
    shape = (max(1, len(groups)), len(metrics))
    figure, axes = plt.subplots(*shape, figsize=(2.9 * shape[1], 2.6 * shape[0] + 0.5), squeeze=False, sharex=True)
    figure.set_layout_engine("constrained")
    for axis_row, (name, curves) in zip(axes, groups.items(), strict=False):
        for axis, metric in zip(axis_row, metrics, strict=True):
            chance = band(floor, metric, n_of(curves[0][1]))
            if chance is not None:
                axis.axhspan(chance.low, chance.high, color=FLOOR_COLOUR, zorder=0)
            lines = iter(("--", ":", "-."))
            for label, table in curves:
                ((arm, _),) = arms(table)
                look = {**style_of(arm), "label": label}
                if arm.name == "fully_synthetic":
                    look |= {"linestyle": next(lines)}
                if metric in table and table[metric].notna().all():
                    sns.lineplot(table, x="generation", y=metric, ax=axis, errorbar=("pi", 100), markersize=4, **look)
            axis.set(xlabel="retrainings", ylabel=label_of(metric))
            if axis.get_legend():
                axis.get_legend().remove()
        axis_row[0].set_ylabel(f"{name}\n{axis_row[0].get_ylabel()}")
    _legend_below(figure, axes)
    return figure


def ages_panels(
    weights: Mapping[float, np.ndarray], by_group: Mapping[str, pd.DataFrame], metrics: Sequence[str]
) -> Figure:
    """Left the weights of ages by lam; then effects of a mix against lam, a panel a metric: as seen, with 95 %
    intervals, and as their ages predict.

    by_group: label to `report.ages.effects`; a panel without effects says so.
    """
    shape = {"figsize": (2.9 * (len(metrics) + 1), 2.8), "squeeze": False, "layout": "constrained"}
    figure, ((first, *axes),) = plt.subplots(1, len(metrics) + 1, **shape)
    for lam, values in weights.items():
        first.plot(values, markersize=4, **arm_style("mix", lam))
    first.set(xlabel="age k", ylabel="weight", yscale="log")
    first.legend(fontsize=7, frameon=False)
    found = {label: table for label, table in by_group.items() if len(table)}
    for axis, metric in zip(axes, metrics, strict=True):
        for colour, (label, table) in zip(PALETTE, found.items(), strict=False):
            own = table[table.metric == metric]
            seen = {"color": colour, "linestyle": "none", "marker": "o", "label": f"{label}, seen"}
            axis.errorbar(own.lam, own.seen, yerr=own.half, capsize=2, **seen)
            axis.plot(own.lam, own.predicted, color=colour, linestyle="-", label=f"{label}, predicted")
        if found:
            axis.axhline(0, color="0.5", linewidth=0.8)
            axis.set(xlabel="λ", ylabel=f"{label_of(metric)}, less that of λ = 0")
        else:
            axis.text(0.5, 0.5, f"{label_of(metric)}:\nnot run yet", ha="center", va="center")
            axis.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def sample_grid(rows: Sequence[tuple[str, np.ndarray]], generations: Sequence[int]) -> Figure:
    """Mosaics of 4 x 4 samples: a row per arm (label and previews (T, 16, H, W[, C])), a column per generation."""
    figure, axes = plt.subplots(
        len(rows),
        len(generations),
        figsize=(1.7 * len(generations), 1.8 * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    for axis_row, (label, previews) in zip(axes, rows, strict=True):
        axis_row[0].set_ylabel(label)
        for axis, generation in zip(axis_row, generations, strict=True):
            axis.imshow(mosaic(previews[generation]), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
    for axis, generation in zip(axes[0], generations, strict=True):
        axis.set_title(f"{generation} retrainings", fontsize=9)
    return figure


def preview_rows(sets: Mapping[str, np.ndarray]) -> Figure:
    """Sixteen images of each set, (16, H, W[, C]), in two rows of eight, a block below the other under its name."""
    figure, axes = plt.subplots(len(sets), 1, figsize=(6, 1.85 * len(sets)), squeeze=False, layout="constrained")
    for axis, (name, images) in zip(axes[:, 0], sets.items(), strict=True):
        axis.imshow(mosaic(images, columns=8), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set_title(name, loc="left")
        axis.set(xticks=[], yticks=[])
    return figure


def social_card(sets: Mapping[str, np.ndarray], title: str) -> Figure:
    """`preview_rows` under a title, in the shape of a picture that is shown beside a link: 1200 x 630 at 100 dpi."""
    figure = preview_rows(sets)
    figure.suptitle(title, fontsize=30)
    for axis in figure.axes:
        axis.set_title(axis.get_title(loc="left"), loc="left", fontsize=22)
    figure.set_size_inches(12, 6.3)
    return figure


def mosaic(images: np.ndarray, columns: int = 4) -> np.ndarray:
    """Images (N, H, W[, C]) as one of ``columns`` tiles a row with grey lines between them; N is a multiple of that."""
    n, height, width, *colours = images.shape
    rows = n // columns
    margins = [(0, 0), (0, 1), (0, 1), *[(0, 0)] * len(colours)]
    tiles = np.pad(images, margins, constant_values=110).reshape(rows, columns, height + 1, width + 1, *colours)
    return tiles.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1), *colours)[:-1, :-1]


def image_rows(sets: Mapping[str, np.ndarray], n: int = 16) -> Figure:
    """The first ``n`` images of each set, uint8 (N, H, W, C), a row per set, its name on the left."""
    figure, axes = plt.subplots(len(sets), 1, figsize=(0.5 * n + 1.5, 0.55 * len(sets)), layout="constrained")
    for axis, (name, images) in zip(np.atleast_1d(axes), sets.items(), strict=True):
        strip = np.concatenate(list(np.pad(images[:n], [(0, 0), (0, 0), (0, 1), (0, 0)], constant_values=110)), axis=1)
        axis.imshow(strip.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
