"""The ages of a mix against what arms show: effects, their prediction from the fully synthetic arm, the constant."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from iterative_retraining.studies.report.arms import arms as arms_of
from iterative_retraining.studies.report.arms import is_control
from iterative_retraining.studies.report.comparisons import half_width, levels
from iterative_retraining.studies.report.labels import label_of
from iterative_retraining.studies.theory.ages import aged

SHOWN = ("precision", "density", "coverage", "fid", "held_out_precision", "held_out_fid", "pixel_variance")


def effects(runs: pd.DataFrame, metrics: Sequence[str] = SHOWN, calibrate: float = 0.5) -> pd.DataFrame:
    """A row a metric and lam > 0: effect ``seen`` with ``half`` its 95 % t-interval over seeds (NaN of one seed),
    ``predicted`` with c of ``calibrate``, and ``constant``, c at this lam; all of the second half of the retrainings.

    runs: of one family. effect: less lam = 0 of the same seed. Empty where an arm that it takes is missing.
    """
    found = arms_of(runs)
    control = next((table for arm, table in found if is_control(arm)), None)
    alone = next((table for arm, table in found if arm.name == "fully_synthetic"), None)
    mixes = {arm.lam: table for arm, table in found if arm.name == "mix" and arm.lam > 0}
    rows = []
    if control is not None and alone is not None and calibrate in mixes:
        for metric in (m for m in metrics if m in runs and runs[m].notna().all()):
            gaps = np.subtract(*(t.groupby("generation")[metric].mean().to_numpy() for t in (alone, control)))
            base = levels(control, [metric]).set_index("seed")[metric]
            seen = {lam: (levels(t, [metric]).set_index("seed")[metric] - base).dropna() for lam, t in mixes.items()}
            constants = {lam: seen[lam].mean() / aged(lam, gaps) for lam in mixes}
            for lam in sorted(mixes):
                half = half_width(seen[lam].to_numpy()) if len(seen[lam]) > 1 else np.nan
                predicted = constants[calibrate] * aged(lam, gaps)
                rows.append((metric, lam, seen[lam].mean(), half, predicted, constants[lam]))
    return pd.DataFrame(rows, columns=["metric", "lam", "seen", "half", "predicted", "constant"])


def ages_table(runs: pd.DataFrame, metrics: Sequence[str] = SHOWN, calibrate: float = 0.5) -> str:
    """`effects` as a Markdown table; one line that says why where arms are missing."""
    table = effects(runs, metrics, calibrate)
    if table.empty:
        return f"*Not run yet: it takes the fully synthetic arm, λ = 0 and λ = {calibrate:g}.*"
    lines = ["| metric | λ | effect seen | predicted | $c$ |", "|---|---|---|---|---|"]
    for row in table.itertuples():
        seen = f"{row.seen:+.3f}" + ("" if np.isnan(row.half) else f" ± {row.half:.3f}")
        predicted = "sets $c$" if row.lam == calibrate else f"{row.predicted:+.3f}"
        lines.append(f"| {label_of(row.metric)} | {row.lam:g} | {seen} | {predicted} | {row.constant:.2f} |")
    return "\n".join(lines)
