"""The error budget: how much of what a retraining does to the spread is sample size, sampler, start, and the rest."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from iterative_retraining.studies.report.comparisons import half_width
from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS
from iterative_retraining.studies.toy2d.parts import FITTED, LONG
from iterative_retraining.studies.toy2d.samplers import EXACT, gain_by_std

N_RETRAIN = 10
TRUTH = DISTRIBUTIONS["eight_gaussians"].std
# Model and sampler of the arm that tells what the start does: one theta_0 for all samplers and budgets of EDM.
CONTROLS = {"edm": ("edm", "accurate"), LONG: ("edm", "accurate"), "spline": ("spline", EXACT)}
NAMES = ("statistical", "sampler", "start", "rest")


def rate(rows: pd.DataFrame, n_retrain: int = N_RETRAIN) -> np.ndarray:
    """By seed: the change of log spread a retraining, over the first ``n_retrain``; empty without those rows."""
    by_seed = rows.pivot_table(index="seed", columns="generation", values="spread")
    if not {0, n_retrain} <= set(by_seed):
        return np.empty(0)
    return (np.log(by_seed[n_retrain] / by_seed[0]) / n_retrain).to_numpy()


def arm(rows: pd.DataFrame, model: str, sampler: str, lam: float | None = None) -> pd.DataFrame:
    """The rows of an arm on eight Gaussians; ``lam`` None is fully synthetic, else the mix."""
    own = rows[(rows.dataset == "eight_gaussians") & (rows.model == model) & (rows.sampler == sampler)]
    return own[own.scheme == "fully_synthetic"] if lam is None else own[(own.scheme == "mix") & (own.lam == lam)]


def budget(rows: pd.DataFrame, model: str, sampler: str) -> dict[str, float]:
    """Of the fully synthetic arm, the change of log spread a retraining: "total" and its half width (95 %, over seeds),
    and what makes it up.

    statistical: fitted Gaussians with exact draws, n real data. sampler: the logarithm of its gain at the truth.
    start: the model's lambda = 0 arm, which goes on training on the same real data; 0 without a network. rest: the
    network's own error, and how the causes act together. NaN for what was not run.
    """
    total = rate(arm(rows, model, sampler))
    parts = {
        "statistical": _mean(rate(arm(rows, FITTED, EXACT))),
        "sampler": float(np.log(gain_by_std(sampler)(np.array([TRUTH]))[0])),
        "start": 0.0 if model == FITTED else _mean(rate(arm(rows, *CONTROLS[model], 0.0))),
    }
    width = half_width(total) if len(total) > 1 else np.nan
    return {"total": _mean(total), "half_width": width, **parts, "rest": _mean(total) - sum(parts.values())}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def budget_table(rows: pd.DataFrame, families: Mapping[str, tuple[str, str]]) -> str:
    """A Markdown table of `budget` in per cent a retraining, of pairs of model and sampler by the name to show."""
    lines = [f"| fully synthetic | total | {' | '.join(NAMES)} |", "|---|---|" + "---|" * len(NAMES)]
    for name, (model, sampler) in families.items():
        found = budget(rows, model, sampler)
        if not np.isnan(found["total"]):
            total = f"{_cell(found['total'])} ± {100 * found['half_width']:.2f}"
            lines.append(f"| {' | '.join([name, total, *(_cell(found[part]) for part in NAMES)])} |")
    return "\n".join(lines) + f"\n\nPer cent of the spread a retraining, over the first {N_RETRAIN}; mean over seeds."


def _cell(value: float) -> str:
    return "not run" if np.isnan(value) else f"{100 * value:+.2f}"


def ends(rows: pd.DataFrame, dataset: str = "eight_gaussians") -> pd.DataFrame:
    """First and last spread, modes and log_kl of every arm on a distribution: means over seeds, and the spread's half
    width (95 %)."""
    own = rows[rows.dataset == dataset]
    found = []
    for key, table in own.groupby(["model", "sampler", "scheme", "lam"], dropna=False, sort=False):
        last = table[table.generation == table.n_retrain]
        first = table[table.generation == 0]
        width = half_width(last.spread.to_numpy()) if len(last) > 1 else np.nan
        found.append(
            dict(zip(("model", "sampler", "scheme", "lam"), key, strict=True))
            | {"n_seeds": last.seed.nunique(), "n_retrain": int(table.n_retrain.iloc[0])}
            | {"first": first.spread.mean(), "last": last.spread.mean(), "half_width": width}
            | {"modes": last.modes.mean(), "log_kl_first": first.log_kl.mean(), "log_kl": last.log_kl.mean()}
        )
    return pd.DataFrame(found)
