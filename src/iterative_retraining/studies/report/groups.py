"""Runs that differ in their arm and their seed alone, for chapters that compare arms."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from iterative_retraining.models import MODELS
from iterative_retraining.studies.report.arms import arms, is_control
from iterative_retraining.studies.report.evidence import with_parameters

TELL = ("model", "solver", "n_steps", "n_images_initial", "n_images_per_retraining")
"""The columns that tell one group from another, in this order."""


def read_groups(paths: Iterable[str | Path]) -> pd.DataFrame:
    """`with_parameters` of all runs at ``paths``, with every column of `TELL` (NaN where a run has no such option)."""
    tables = [with_parameters(Path(path)) for path in paths]
    return pd.concat(tables, ignore_index=True).reindex(columns=_columns(tables))


def _columns(tables: Iterable[pd.DataFrame]) -> list[str]:
    return list(dict.fromkeys([name for table in tables for name in table.columns] + list(TELL)))


def main_groups(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The groups with both the control, lambda = 0, and the fully synthetic arm: label to rows, EDM first.

    The label is that of the model, and the sampler where a model has several such groups, and the budget beside it
    where that does not tell them apart.
    """
    found = []
    for key, table in runs.groupby(list(TELL), dropna=False, sort=False):
        schemes = [arm for arm, _ in arms(table)]
        if any(map(is_control, schemes)) and any(arm.name == "fully_synthetic" for arm in schemes):
            found.append((dict(zip(TELL, key, strict=True)), table))
    labels = _labels([about for about, _ in found])
    pairs = sorted(zip(labels, found, strict=True), key=lambda pair: list(MODELS).index(pair[1][0]["model"]))
    return {label: table for label, (_, table) in pairs}


def _labels(groups: list[Mapping[str, object]]) -> list[str]:
    """The shortest labels that tell the groups apart."""
    plain = [MODELS[str(about["model"])].label for about in groups]
    with_sampler = [
        f"{label}, {about['solver']} {about['n_steps']:.0f}" if isinstance(about["solver"], str) else label
        for label, about in zip(plain, groups, strict=True)
    ]
    with_budget = [
        f"{label}, {about['n_images_initial']:,.0f} + {about['n_images_per_retraining']:,.0f} images"
        for label, about in zip(with_sampler, groups, strict=True)
    ]
    choices = zip(plain, with_sampler, with_budget, strict=True)
    return [next((c for c, every in zip(own, (plain, with_sampler, with_budget), strict=True)
                  if every.count(c) == 1), own[-1]) for own in choices]  # fmt: skip


def size_note(groups: Mapping[str, pd.DataFrame]) -> str:
    """A Markdown list: of each group the arms, seeds, retrainings and budgets, which every number below rests on."""
    lines = []
    for label, runs in groups.items():
        seeds = {arm.label: table.seed.nunique() for arm, table in arms(runs)}
        told = ", ".join(f"{name} ({n})" for name, n in seeds.items())
        first, later = (f"{runs[name].iloc[0]:,.0f}" for name in ("n_images_initial", "n_images_per_retraining"))
        last = runs.generation.max()
        lines.append(f"- {label}: {last} retrainings of {later} images after {first} for θ₀; arms (seeds): {told}")
    return "\n".join(lines)
