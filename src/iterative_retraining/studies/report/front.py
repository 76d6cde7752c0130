"""What the front page says: the runs it shows, one sentence on them, and the claims in a few rows."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iterative_retraining.runs.results import read_previews
from iterative_retraining.schemes import build_scheme
from iterative_retraining.studies.report.arms import arms, is_control
from iterative_retraining.studies.report.chapters import read_families
from iterative_retraining.studies.report.claims import Claim, judge
from iterative_retraining.studies.report.findings import FAILS, HOLDS, UNDECIDED, VERDICTS
from iterative_retraining.studies.report.floors import band, n_of

SHOWN = (("fully_synthetic", None), ("mix", 0.0), ("mix", 1.0))
# A claim belongs to the first of these groups that its id matches.
GROUPS = {
    "Proposition 1: a Gaussian alone": "proposition-1",
    "Propositions 2–4, Theorem 1: infinitely many data": "fixed-point|theorem-1",
    "Theorem 2: finite data": "theorem-2|accumulation",
    "Figures 3 and 4: densities in the plane": "figure-[34]",
    "The sampler's own part": "sampler|mixing-keeps",
    "Figures 1, 2 and 5: images": "figure-[125]|half-synthetic|beyond",
    "Abstract and slides": "abstract|slides",
    "Memorising and copying": "no-memorising|precision|nothing-copied|synthetic-delays",
    "The λ curves foretold from λ = ∞": "ages",
    "Further findings": "",
}


def front_runs(paths: Iterable[str | Path], model: str = "edm") -> pd.DataFrame:
    """The runs to show first: of the groups of runs that differ in arm and seed alone, that with most of the arms
    SHOWN, then most seeds, then most retrainings; only those arms. Raises ValueError if no group has the model."""
    families = [runs for runs in read_families(paths).values() if (runs.model == model).all()]
    if not families:
        raise ValueError(f"no run of the model {model!r} is at hand; give run_dirs that have some")
    return max((_shown(runs) for runs in families), key=_worth)


def _shown(runs: pd.DataFrame) -> pd.DataFrame:
    wanted = [build_scheme(name, lam) for name, lam in SHOWN]
    tables = [table for arm, table in arms(runs) if arm in wanted]
    return pd.concat(tables) if tables else runs[:0]


def _worth(runs: pd.DataFrame) -> tuple[int, int, int]:
    if not len(runs):
        return 0, 0, 0
    return len(arms(runs)), int(runs.seed.nunique()), int(runs.generation.max())


def front_previews(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Previews (T, 16, H, W[, C]) of the first seed by label of the arm, fully synthetic first; not of λ = 0."""
    first = runs[runs.seed == runs.seed.min()].drop_duplicates("run_id")
    found = {arm.label: read_previews(table.path.iloc[0]) for arm, table in arms(first) if not is_control(arm)}
    last = min((len(previews) for previews in found.values()), default=0)
    return {label: previews[:last] for label, previews in found.items()}


def front_sentence(runs: pd.DataFrame, floor: Mapping[str, Any], metric: str = "precision") -> str:
    """A sentence in Markdown: from where to where a metric has gone in each arm, and its real-vs-real floor."""
    last, seeds = int(runs.generation.max()), int(runs.seed.nunique())
    parts = []
    for arm, table in arms(runs):
        means = table.groupby("generation")[metric].mean()
        parts.append(f"**{arm.label}** from {means.iloc[0]:.2f} to {means.iloc[-1]:.2f}")
    told, chance = ", ".join(parts), band(floor, metric, n_of(runs))
    real = f" Real digits against other real digits, n = {n_of(runs)}, have {chance.mean:.2f}." if chance else ""
    times = f"{last} retrainings and {seeds} seed{'s' * (seeds > 1)}"
    return f"Over {times} the {metric} of the samples has gone: {told}.{real}"


def claim_groups(claims: Sequence[Claim], runs: pd.DataFrame) -> str:
    """A Markdown table of at most ten rows: a group of claims a row, how many of them have which verdict."""
    counts = {name: dict.fromkeys(VERDICTS, 0) for name in GROUPS}
    for claim in claims:
        group = next(name for name, pattern in GROUPS.items() if re.match(pattern, claim.id))
        counts[group][judge(claim, runs).verdict] += 1
    columns = [v for v in VERDICTS if v in (FAILS, UNDECIDED, HOLDS) or any(found[v] for found in counts.values())]
    lines = [f"| claims on | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for name, found in counts.items():
        if any(found.values()):
            lines.append(f"| {name} | {' | '.join(str(found[v] or '·') for v in columns)} |")
    return "\n".join(lines)
