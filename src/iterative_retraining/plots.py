"""Figures: the same colour for the same arm in every chapter, colour-blind safe. Nothing is computed here."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from scipy import stats

from iterative_retraining.comparisons import LABELS

_PALETTE = sns.color_palette("colorblind")
_LAM_COLOURS = {
    0.0: _PALETTE[7],
    0.01: _PALETTE[9],
    0.1: _PALETTE[4],
    0.5: _PALETTE[0],
    1.0: _PALETTE[2],
    2.0: _PALETTE[1],
}
FLOOR_COLOUR = "0.85"


def arm_style(scheme: str, lam: float | None = None) -> dict[str, Any]:
    """Colour, line, marker and label of an arm. Fully synthetic is dashed red with triangles, as in the paper."""
    if scheme == "fully_synthetic":
        return {"color": _PALETTE[3], "linestyle": "--", "marker": "^", "label": "fully synthetic"}
    colour = _LAM_COLOURS.get(lam, plt.get_cmap("viridis")(min(lam, 5) / 5))
    label = "λ = 0 (real only)" if lam == 0 else f"λ = {lam:g}"
    return {"color": colour, "linestyle": "-", "marker": "o", "label": label}


def _arms(runs: pd.DataFrame) -> list[tuple[tuple[str, float | None], pd.DataFrame]]:
    """The runs of each arm, fully synthetic first, then by lambda."""
    groups = runs.assign(lam=runs.lam.fillna(-1.0)).groupby(["lam", "scheme"], sort=True)
    return [((scheme, None if lam < 0 else lam), table) for (lam, scheme), table in groups]


def quality_curves(
    runs: pd.DataFrame, floor: Mapping[str, Any], metrics: Sequence[str] = ("fid", "precision", "recall")
) -> Figure:
    """Each metric against the number of retrainings, one curve an arm: the mean over seeds, the band their range.

    The grey band is the real-vs-real floor: mean and 2.5 to 97.5 % of random halvings.
    """
    figure, axes = plt.subplots(1, len(metrics), figsize=(2.9 * len(metrics), 3.1), layout="constrained")
    for axis, metric in zip(np.atleast_1d(axes), metrics, strict=True):
        low, high = np.quantile(floor[metric], [0.025, 0.975])
        axis.axhspan(low, high, color=FLOOR_COLOUR, zorder=0)
        axis.axhline(float(np.mean(floor[metric])), color="0.5", linewidth=0.8, zorder=1, label="real vs real")
        for arm, table in _arms(runs):
            sns.lineplot(
                table,
                x="generation",
                y=metric,
                ax=axis,
                errorbar=("pi", 100),
                markersize=4,
                markeredgewidth=0,
                **arm_style(*arm),
            )
        axis.set(xlabel="retrainings", ylabel=LABELS.get(metric, metric))
        axis.legend().remove()
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
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


def mosaic(images: np.ndarray) -> np.ndarray:
    """16 images (16, H, W[, C]) as one of 4 x 4 tiles with grey lines between them, (4 H + 3, 4 W + 3[, C])."""
    _, height, width, *colours = images.shape
    margins = [(0, 0), (0, 1), (0, 1), *[(0, 0)] * len(colours)]
    tiles = np.pad(images, margins, constant_values=110).reshape(4, 4, height + 1, width + 1, *colours)
    return tiles.swapaxes(1, 2).reshape(4 * (height + 1), 4 * (width + 1), *colours)[:-1, :-1]


def std_laws(std: np.ndarray, simulated: Mapping[str, np.ndarray], exact: Mapping[str, np.ndarray]) -> Figure:
    """sigma_t on a log scale: some chains of ``std`` (T, n_chains) in grey, ``simulated`` summaries as points and their
    ``exact`` counterparts as lines, both (T,) by the same names."""
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.semilogy(std[:, :40], color="0.85", linewidth=0.6, zorder=0)
    every = max(1, len(std) // 20)
    for colour, (name, values) in zip(_PALETTE, simulated.items(), strict=False):
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
    for values, name, colour in zip((first, second), names, (_PALETTE[0], _PALETTE[1]), strict=True):
        axis.ecdf(values, label=name, color=colour)
    axis.set(xlabel=xlabel, ylabel="share of chains below")
    axis.legend(frameon=False)
    return figure


def verdict_map(cases: Sequence[str], metrics: Sequence[str], values: np.ndarray, scores: np.ndarray) -> Figure:
    """A map of cases x metrics: numbers are ``values`` (C, M), colours ``scores`` (C, M), red worse and blue better."""
    figure, axis = plt.subplots(figsize=(0.72 * len(metrics) + 1.8, 0.42 * len(cases) + 1), layout="constrained")
    image = axis.imshow(np.clip(scores, -10, 10), cmap="RdBu", vmin=-10, vmax=10, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = f"{value:.2f}" if abs(value) < 1000 else "> 1000"
        dark = abs(np.clip(scores[row, column], -10, 10)) > 7
        axis.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
    axis.set_xticks(range(len(metrics)), [LABELS.get(m, m) for m in metrics], rotation=40, ha="right")
    axis.set_yticks(range(len(cases)), cases)
    axis.tick_params(length=0)
    label = "reads worse  <  standard deviations  <  reads better"
    figure.colorbar(image, ax=axis, label=label, extend="both", shrink=0.9)
    return figure


def image_rows(sets: Mapping[str, np.ndarray], n: int = 16) -> Figure:
    """The first ``n`` images of each set, uint8 (N, H, W, C), a row per set, its name on the left."""
    figure, axes = plt.subplots(len(sets), 1, figsize=(0.5 * n + 1.5, 0.55 * len(sets)), layout="constrained")
    for axis, (name, images) in zip(np.atleast_1d(axes), sets.items(), strict=True):
        strip = np.concatenate(list(np.pad(images[:n], [(0, 0), (0, 0), (0, 1), (0, 0)], constant_values=110)), axis=1)
        axis.imshow(strip.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def metrics_against(table: pd.DataFrame, x: str, metrics: Sequence[str], xlabel: str) -> Figure:
    """Metrics against column ``x``, three a row: mean over splits, band 2.5 to 97.5 %; dotted: mean at the first x."""
    shape = (-(-len(metrics) // 3), min(3, len(metrics)))
    figure, axes = plt.subplots(*shape, figsize=(2.8 * shape[1], 2.4 * shape[0]), squeeze=False, layout="constrained")
    for axis, metric, colour in zip(axes.flat, metrics, _PALETTE, strict=False):
        sns.lineplot(table, x=x, y=metric, ax=axis, errorbar=("pi", 95), marker="o", color=colour)
        axis.axhline(table[table[x] == table[x].min()][metric].mean(), color="0.5", linewidth=0.8, linestyle=":")
        axis.set(xlabel=xlabel, ylabel=LABELS.get(metric, metric))
    return figure


def bias_in_n(sizes: np.ndarray, values: Mapping[str, np.ndarray], truth: Mapping[str, float]) -> Figure:
    """Metrics against 1/N by name: ``values`` (sizes, repetitions) as means with 95 % t-intervals where there are
    repetitions, the least-squares line to N = infinity, and the truth as a dashed line."""
    figure, axes = plt.subplots(1, len(values), figsize=(3.4 * len(values), 3), layout="constrained")
    for axis, (name, repeated), colour in zip(np.atleast_1d(axes), values.items(), _PALETTE, strict=False):
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
    "Theorem 1": {"color": _PALETTE[3], "linestyle": "--"},
    "Ferbach et al.": {"color": _PALETTE[1], "linestyle": "-."},
    "exact: largest λm/(1+λm)": {"color": _PALETTE[0]},
    "observed": {"color": "black", "linestyle": "", "marker": "o", "markersize": 4},
}


def distances_over_time(gaps: Mapping[str, np.ndarray], rate: float) -> Figure:
    """Distances to the fixed point (T,) by name against retrainings, on a log scale; dotted: the slope of ``rate``."""
    figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for (name, values), colour in zip(gaps.items(), _PALETTE, strict=False):
        axis.semilogy(values / values[0], "o-", markersize=4, color=colour, label=name)
    t = np.arange(max(len(values) for values in gaps.values()))
    axis.semilogy(t, rate**t, ":", color="0.4", label=f"{rate:.3f} per retraining")
    axis.set(xlabel="retrainings t", ylabel="distance to θ*, relative to t = 0")
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
    for (name, values), colour in zip(simulated.items(), _PALETTE, strict=False):
        every = max(1, len(values) // 25)
        t = np.arange(len(values))
        axis.plot(t[::every], values[::every], "o", markersize=4, color=colour, label=None if name in exact else name)
        if name in exact:
            axis.plot(t, exact[name], color=colour, label=name)
        if name in limits:
            axis.axhline(limits[name], color=colour, linestyle=":", linewidth=1)
    axis.set(xlabel="retrainings t", ylabel="error variance, in units of σ²/n", yscale="log" if log else "linear")
    axis.legend(frameon=False, fontsize=9)
    return figure


def variance_by_lam(lams: np.ndarray, exact: np.ndarray, simulated: Mapping[str, tuple[np.ndarray, ...]]) -> Figure:
    """Stationary variance against lambda: the exact line, and (lambdas, values, half widths) by name as points."""
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    axis.semilogx(lams, exact, color="0.3", label="1 + λ / (1 + 2λ)")
    axis.axhline(1.5, color="0.6", linestyle=":", linewidth=1)
    for (name, (x, values, half)), colour, marker in zip(simulated.items(), _PALETTE, "os^", strict=False):
        axis.errorbar(x, values, half, fmt=marker, markersize=4, linewidth=1, color=colour, label=name)
    axis.set(xlabel="λ", ylabel="error variance, relative to that of real data")
    axis.legend(frameon=False, fontsize=9)
    return figure
