"""Arms of a sweep against each other: tables with intervals over seeds, paired tests against lambda = 0."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from iterative_retraining.studies.report.arms import KEYS, arms, has_selector, is_control
from iterative_retraining.studies.report.floors import band, n_of
from iterative_retraining.studies.report.labels import label_of

SHOWN = ("fid", "kid", "precision", "recall", "density", "coverage", "authenticity")


def _shown(runs: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    return [name for name in metrics if name in runs and runs[name].notna().all()]


def levels(runs: pd.DataFrame, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
    """Where each run settles: the mean of every metric over the second half of its retrainings; one row per run."""
    late = second_half(runs)
    keys = ["run_id", "seed", *(key for key in KEYS if key in runs)]
    return late.groupby(keys, dropna=False)[_shown(runs, metrics)].mean().reset_index()


def paired_tests(runs: pd.DataFrame, metrics: Sequence[str] = SHOWN) -> pd.DataFrame:
    """Every arm against lambda = 0 of the same seeds: paired t-tests over seeds of the `levels`.

    Columns: arm, metric, n_seeds, difference (mean), half_width (of the 95 % t-interval), p, q (Benjamini-Hochberg over
    the whole table). Runs of one seed share theta_0 and so differ by the arm alone. Empty without a control or with
    fewer than two common seeds; p is NaN where a difference is the same in all seeds.
    """
    table = levels(runs, metrics)
    control = table[(table.scheme == "mix") & (table.lam == 0) & ~has_selector(table)].set_index("seed")
    rows = []
    for arm, arm_runs in arms(table):
        own = arm_runs.set_index("seed")
        seeds = own.index.intersection(control.index)
        if is_control(arm) or len(seeds) < 2:
            continue
        for name in _shown(table, metrics):
            gaps = (own.loc[seeds, name] - control.loc[seeds, name]).to_numpy()
            p = stats.ttest_1samp(gaps, 0.0).pvalue if np.ptp(gaps) > 0 else np.nan
            rows.append((arm.label, name, len(seeds), gaps.mean(), half_width(gaps), p))
    found = pd.DataFrame(rows, columns=["arm", "metric", "n_seeds", "difference", "half_width", "p"])
    tested = found.p.notna()
    found["q"] = np.nan
    if tested.any():
        found.loc[tested, "q"] = stats.false_discovery_control(found.p[tested])
    return found


def paired_table(runs: pd.DataFrame, metrics: Sequence[str] = SHOWN) -> str:
    """`paired_tests` as a Markdown table: a metric a row, an arm a column; or one line that says why there is none."""
    tests = paired_tests(runs, metrics)
    if tests.empty:
        return "*No paired tests: they need λ = 0 and another arm, both with at least two common seeds.*"
    arms = list(dict.fromkeys(tests.arm))
    lines = [f"| metric, less that of λ = 0 | {' | '.join(arms)} |", "|---|" + "---|" * len(arms)]
    for name, rows in tests.groupby("metric", sort=False):
        cells = [f"{r.difference:+.3f} ± {r.half_width:.3f} ({_told(r.q)})" for r in rows.itertuples()]
        lines.append(f"| {label_of(name)} | {' | '.join(cells)} |")
    note = (
        "Mean over the second half of the retrainings, less that of λ = 0 of the same seed: mean over "
        f"{tests.n_seeds.min()} seeds ± 95 % t-interval; p: paired t-test, adjusted for the number of tests "
        "(Benjamini–Hochberg)."
    )
    return "\n".join(lines) + f"\n\n{note}"


def _told(q: float) -> str:
    return "the same in all seeds" if np.isnan(q) else f"p = {q:.2g}"


def arm_table(runs: pd.DataFrame, floor: Mapping[str, Any], metrics: Sequence[str] = SHOWN) -> str:
    """A Markdown table of where the arms end: mean over seeds and 95 % t-interval, and the real-vs-real floor.

    "FID trend" is the least-squares slope over the second half of the run, per retraining. With a single seed there are
    no intervals, and the table says so.
    """
    last, names = runs.generation.max(), _shown(runs, metrics)
    final = runs[runs.generation == last]
    trend = runs.groupby("run_id").apply(slope, "fid", include_groups=False)
    head = [label_of(n) for n in names]
    lines = [f"| arm | FID trend | {' | '.join(head)} |", "|---|---|" + "---|" * len(names)]
    for arm, table in arms(final):
        cells = [interval(trend[table.run_id].to_numpy()), *(interval(table[n].to_numpy()) for n in names)]
        lines.append(f"| {arm.label} | {' | '.join(cells)} |")
    found = [band(floor, name, n_of(runs)) for name in names]
    cells = ["" if f is None else f"{f.mean:.3f} ({f.low:.3f} to {f.high:.3f})" for f in found]
    lines.append(f"| real vs real, n = {n_of(runs)} | | {' | '.join(cells)} |")
    n_seeds = final.seed.nunique()
    note = f"mean over {n_seeds} seeds ± 95 % t-interval" if n_seeds > 1 else "one seed, so no interval"
    return "\n".join(lines) + f"\n\nAfter {last} retrainings: {note}; floor: mean (2.5 to 97.5 %)."


def family_tables(
    by_family: Mapping[str, pd.DataFrame], floor: Mapping[str, Any] | None, metrics: Sequence[str]
) -> str:
    """`arm_table` and `paired_table` of every family, under its name, which may have several lines; "" of none."""
    parts = []
    for name, runs in by_family.items():
        title = f"**{', '.join(name.splitlines())}**"
        parts += [title, arm_table(runs, floor, metrics), paired_table(runs, metrics)]
    return "\n\n".join(parts)


def arm_summary(runs: pd.DataFrame, floor: Mapping[str, Any]) -> dict[str, str]:
    """The numbers that the text of the image chapter quotes, by name; "(not run)" where ``runs`` has no such
    arm. Arms with a selector are left out."""
    runs = runs[~has_selector(runs)]
    final = runs[runs.generation == runs.generation.max()]
    synthetic = runs[runs.scheme == "fully_synthetic"].groupby("generation").mean(numeric_only=True)
    mixed = final[final.scheme == "mix"].groupby("lam").mean(numeric_only=True)
    found = {"retrainings": str(runs.generation.max()), "seeds": str(runs.seed.nunique())}
    found["authenticity-floor"] = f"{np.mean(floor['authenticity']):.2f}"
    if len(synthetic):
        first, last = synthetic.iloc[0], synthetic.iloc[-1]
        found |= {"synthetic-first": f"{first.fid:.2f}", "synthetic-last": f"{last.fid:.2f}"}
        found |= {f"{name}-synthetic": f"{last[name]:.2f}" for name in ("coverage", "authenticity", "recall")}
    if len(mixed):
        low, high, worst = mixed.index.min(), mixed.index.max(), mixed.fid.idxmax()
        found |= {"lam-low": f"{low:g}", "lam-high": f"{high:g}", "mix-worst-lam": f"{worst:g}"}
        for end, lam in (("low", low), ("high", high)):
            found |= {f"{name}-{end}": f"{mixed[name][lam]:.2f}" for name in ("precision", "coverage", "authenticity")}
        found["mix-worst"] = f"{mixed.fid[worst]:.2f}"
    names = [
        "synthetic-first",
        "synthetic-last",
        "mix-worst",
        "mix-worst-lam",
        "lam-low",
        "lam-high",
        "recall-synthetic",
    ]
    names += [f"precision-{end}" for end in ("low", "high")]
    names += [f"{name}-{end}" for name in ("coverage", "authenticity") for end in ("synthetic", "low", "high")]
    return dict.fromkeys(names, "(not run)") | found


def second_half(runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of the second half of the retrainings."""
    return runs[runs.generation >= runs.generation.max() / 2]


def slope(runs: pd.DataFrame, metric: str) -> float:
    """The least-squares slope of a metric of one run over its `second_half`, a retraining; NaN where it has none."""
    late = second_half(runs)
    if len(late) < 2 or late[metric].isna().any():
        return float("nan")
    return float(np.polyfit(late.generation, late[metric], 1)[0])


def interval(values: np.ndarray, digits: int = 3) -> str:
    """Mean ± half width of the 95 % t-interval of ``values``; a single value alone; "" where one is missing."""
    if len(values) == 0 or np.isnan(values).any():
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{values.mean():.{digits}f} ± {half_width(values):.{digits}f}"


def half_width(values: np.ndarray) -> float:
    """Half the 95 % t-interval of the mean of two or more ``values``; 0 where all are the same."""
    if np.ptp(values) == 0:
        return 0.0
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
