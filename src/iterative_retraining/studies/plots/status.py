"""Figures of how runs went: wall time by stage, attempts, what became of claims."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from iterative_retraining.studies.plots.style import PALETTE
from iterative_retraining.studies.report.arms import KEYS, arm_label

STAGES = {"seconds_fit": "fit", "seconds_sample": "samples", "seconds_metrics": "metrics"}


def seconds_by_stage(runs: pd.DataFrame) -> Figure:
    """Median wall seconds of a retraining by model and arm, stage by stage; theta_0 is left out."""
    keys = runs[[key for key in KEYS if key in runs]].to_dict("records")
    arms = [f"{model}, {arm_label(**key)}" for model, key in zip(runs.model, keys, strict=True)]
    table = runs.assign(arm=arms)[runs.generation > 0].groupby("arm")[list(STAGES)].median()
    figure, axis = plt.subplots(figsize=(7, 0.32 * len(table) + 1.2), layout="constrained")
    left = pd.Series(0.0, table.index)
    for colour, (name, stage) in zip(PALETTE, STAGES.items(), strict=False):
        axis.barh(table.index, table[name], left=left, color=colour, label=stage)
        left += table[name]
    axis.set(xlabel="seconds a retraining (median)")
    axis.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=len(STAGES), frameon=False)
    return figure


def attempts_by_run(runs: Mapping[str, tuple[int, int, Sequence[int]]]) -> Figure:
    """A bar a run: generations complete of those wanted, with a mark where an attempt went on after an interruption.

    ``runs``: by name, (complete, wanted, first generation of every attempt).
    """
    figure, axis = plt.subplots(figsize=(7, 0.2 * len(runs) + 1.0), layout="constrained")
    for row, (complete, wanted, starts) in enumerate(runs.values()):
        axis.barh(row, wanted, color="0.92")
        axis.barh(row, complete, color=PALETTE[0])
        axis.plot(starts[1:], [row] * (len(starts) - 1), "|", color=PALETTE[3], markersize=9, markeredgewidth=2)
    axis.set_yticks(range(len(runs)), list(runs), fontsize=6)
    axis.set(xlabel="generations")
    axis.invert_yaxis()
    return figure


def verdict_counts(counts: Mapping[str, int]) -> Figure:
    """A bar a verdict, as long as the number of claims that have it."""
    figure, axis = plt.subplots(figsize=(7, 0.35 * len(counts) + 0.8), layout="constrained")
    axis.bar_label(axis.barh(list(counts), list(counts.values()), color=PALETTE[0]), padding=3)
    axis.set(xlabel="claims")
    axis.invert_yaxis()
    return figure
