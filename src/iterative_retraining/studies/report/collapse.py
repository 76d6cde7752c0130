"""What the literature calls collapse, by definition, and what each says of every arm."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from iterative_retraining.studies.report.arms import arms, is_control
from iterative_retraining.studies.report.comparisons import half_width, slope


@dataclass(frozen=True)
class Definition:
    """metric moves towards ``sign`` where that is collapse: +1 upwards, -1 downwards."""

    name: str
    metric: str
    sign: int


DEFINITIONS = (
    Definition("FID rises", "fid", +1),
    Definition("precision falls", "precision", -1),
    Definition("recall falls", "recall", -1),
    Definition("modes are lost", "modes", -1),
    Definition("variance falls", "pixel_variance", -1),
    Definition("held-out likelihood falls", "held_out_bits", +1),
    Definition("feature likelihood falls", "fld", +1),
    Definition("classes are lost", "class_entropy", -1),
    Definition("KL rises", "log_kl", +1),
    Definition("spread falls", "spread", -1),
)


def slopes(runs: pd.DataFrame, metric: str) -> pd.Series:
    """`slope` of a metric by seed; those that have none are left out."""
    return pd.Series({seed: slope(table, metric) for seed, table in runs.groupby("seed")}, dtype=float).dropna()


def collapse_table(groups: Mapping[str, pd.DataFrame]) -> str:
    """A Markdown table: an arm a row, a definition a column; whether the arm moves towards collapse, and how fast.

    Of every arm the slope over its second half less that of lambda = 0 of the same seed (of lambda = 0 itself, and
    where there is none: the slope): **yes** where the 95 % t-interval over seeds lies on the side of collapse, no where
    it lies on the other side of zero or around it, "?" for fewer than two seeds.
    """
    columns = [d for d in DEFINITIONS if any(d.metric in t and t[d.metric].notna().any() for t in groups.values())]
    lines = [f"| arm | {' | '.join(d.name for d in columns)} |", "|---|" + "---|" * len(columns)]
    for label, runs in groups.items():
        found = arms(runs)
        control = next((table for arm, table in found if is_control(arm)), None)
        for arm, table in found:
            against = None if is_control(arm) else control
            lines.append(f"| {label}, {arm.label} | {' | '.join(_cell(d, table, against) for d in columns)} |")
    return "\n".join(lines)


def _cell(definition: Definition, runs: pd.DataFrame, control: pd.DataFrame | None) -> str:
    if definition.metric not in runs or runs[definition.metric].isna().all():
        return ""
    values = slopes(runs, definition.metric)
    if control is not None:
        values = (values - slopes(control, definition.metric)).dropna()
    if len(values) < 2:
        return "?"
    middle, half = values.mean(), half_width(values.to_numpy())
    towards = definition.sign * middle - half > 0
    return f"{'**yes**' if towards else 'no'} ({middle:+.2g} ± {half:.1g})"
