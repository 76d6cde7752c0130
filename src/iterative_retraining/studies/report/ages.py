"""The ages of a mix against what arms show: effects, their prediction from the fully synthetic arm, the constant."""

import numpy as np
import pandas as pd

from iterative_retraining.studies.report.arms import arms as arms_of
from iterative_retraining.studies.report.arms import is_control
from iterative_retraining.studies.report.comparisons import half_width, levels
from iterative_retraining.studies.report.labels import label_of
from iterative_retraining.studies.theory.ages import aged

SHOWN = ("precision", "density", "coverage", "fid", "held_out_precision", "held_out_fid", "pixel_variance")


def ages_table(runs: pd.DataFrame, metrics: tuple[str, ...] = SHOWN, calibrate: float = 0.5) -> str:
    """A Markdown table: a metric and lam > 0 a row; effect seen with its 95 % t-interval over seeds, effect predicted
    with c of ``calibrate``, and c at this lam, all of the second half of the retrainings.

    runs: of one family. effect: less lam = 0 of the same seed. One line that says why where arms are missing.
    """
    found = dict(pair for pair in ((arm, table) for arm, table in arms_of(runs)))
    control = next((t for arm, t in found.items() if is_control(arm)), None)
    alone = next((t for arm, t in found.items() if arm.name == "fully_synthetic"), None)
    mixes = {arm.lam: t for arm, t in found.items() if arm.name == "mix" and arm.lam > 0}
    if control is None or alone is None or calibrate not in mixes:
        return f"*Not run yet: it takes the fully synthetic arm, λ = 0 and λ = {calibrate:g}.*"
    lines = ["| metric | λ | effect seen | predicted | $c$ |", "|---|---|---|---|---|"]
    for metric in (m for m in metrics if m in runs and runs[m].notna().all()):
        gaps = np.subtract(*(t.groupby("generation")[metric].mean().to_numpy() for t in (alone, control)))
        base = levels(control, [metric]).set_index("seed")[metric]
        sums = {lam: aged(lam, gaps) for lam in mixes}
        effects = {lam: (levels(t, [metric]).set_index("seed")[metric] - base).dropna() for lam, t in mixes.items()}
        constant = effects[calibrate].mean() / sums[calibrate]
        for lam in sorted(mixes):
            half = f" ± {half_width(effects[lam].to_numpy()):.3f}" if len(effects[lam]) > 1 else ""
            predicted = "sets $c$" if lam == calibrate else f"{constant * sums[lam]:+.3f}"
            cells = (f"{effects[lam].mean():+.3f}{half}", predicted, f"{effects[lam].mean() / sums[lam]:.2f}")
            lines.append(f"| {label_of(metric)} | {lam:g} | {' | '.join(cells)} |")
    return "\n".join(lines)
