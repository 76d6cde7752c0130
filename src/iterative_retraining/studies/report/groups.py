"""Runs that differ in their arm and their seed alone, for chapters that compare arms."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from iterative_retraining.models import MODELS
from iterative_retraining.models.paths import SAMPLER_OPTIONS
from iterative_retraining.runs.reading import read_config, read_manifest
from iterative_retraining.studies.report.arms import KEYS, arms
from iterative_retraining.studies.report.evidence import with_parameters

TELL = ("model", "solver", "n_steps", "n_images_initial", "n_images_per_retraining")
"""The columns that tell one group from another, in this order."""


def read_groups(paths: Iterable[str | Path]) -> pd.DataFrame:
    """`with_parameters` of all runs at ``paths``, with every column of `TELL` (NaN where a run has no such option), and
    two more: ``group``, all of a run's identity but its arm and seed, and ``apart_from_sampler``, the same without the
    options of the sampler; JSON text. Runs with a selector or a rare class are left out, unless there are no others."""
    paths = list(map(Path, paths))
    paths = [path for path in paths if not _beyond(path)] or paths
    tables = [with_parameters(path).assign(**_groups_of(path)) for path in paths]
    columns = dict.fromkeys([name for table in tables for name in table.columns] + list(TELL))
    return pd.concat(tables, ignore_index=True).reindex(columns=list(columns))


def _beyond(path: Path) -> bool:
    """Whether a run is of the chapter beyond the paper."""
    identity = read_config(path)["identity"]
    return bool(identity.get("selector")) or "rare_class" in identity


def group_of(identity: Mapping[str, Any], apart_from: Collection[str] = ()) -> str:
    """A run's identity without what tells its arm and its seed, and without the options ``apart_from``, as JSON."""
    shared = {key: value for key, value in identity.items() if key not in (*KEYS, "seed", "init")}
    options = {key: value for key, value in identity["options"].items() if key not in apart_from}
    return json.dumps(shared | {"options": options}, sort_keys=True)


def _groups_of(path: Path) -> dict[str, Any]:
    identity, start = read_config(path)["identity"], read_manifest(path).get("initial_identity") or {}
    groups = {"group": group_of(identity), "apart_from_sampler": group_of(identity, SAMPLER_OPTIONS)}
    return groups | {"n_images_initial": start.get("n_images_initial", identity["n_images_initial"])}


def main_groups(runs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The groups of `read_groups` with two arms or more, or all where none has: label to rows, in the order of MODELS.

    The label is that of the model, and the sampler where a model has several such groups, and the budget beside it
    where that does not tell them apart.
    """
    tables = [table for _, table in runs.groupby("group", sort=False)]
    found = [table for table in tables if len(arms(table)) > 1] or tables
    found = sorted(found, key=lambda table: list(MODELS).index(table.model.iloc[0]))
    return dict(zip(_labels([dict(table.iloc[0]) for table in found]), found, strict=True))


def _labels(groups: list[Mapping[str, object]]) -> list[str]:
    """The shortest labels that tell the groups apart."""
    plain = [MODELS[str(about["model"])].label for about in groups]
    with_sampler = [
        f"{label}, {about['solver']} {about['n_steps']:.0f}" if isinstance(about["solver"], str) else label
        for label, about in zip(plain, groups, strict=True)
    ]
    with_budget = [
        label
        if pd.isna(about["n_images_per_retraining"])
        else f"{label}, {about['n_images_initial']:,.0f} + {about['n_images_per_retraining']:,.0f} images"
        for label, about in zip(with_sampler, groups, strict=True)
    ]
    numbered = [f"{label} ({number})" for number, label in enumerate(with_budget, start=1)]
    choices = (plain, with_sampler, with_budget, numbered)
    return [
        next(every[i] for every in choices if every.count(every[i]) == 1 or every is numbered)
        for i in range(len(groups))
    ]


def size_note(groups: Mapping[str, pd.DataFrame]) -> str:
    """A Markdown list: of each group the arms, seeds, retrainings and budgets, which every number below rests on."""
    lines = []
    for label, runs in groups.items():
        seeds = {arm.label: table.seed.nunique() for arm, table in arms(runs)}
        told = ", ".join(f"{name} ({n})" for name, n in seeds.items())
        budgets = [runs[name].iloc[0] for name in ("n_images_per_retraining", "n_images_initial")]
        shown = "" if pd.isna(budgets).any() else " of {:,.0f} images after {:,.0f} for θ₀".format(*budgets)
        lines.append(f"- {label}: {runs.generation.max()} retrainings{shown}; arms (seeds): {told}")
    return "\n".join(lines)
