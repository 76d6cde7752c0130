"""What the chapter on the plane says of the published rows: every sentence and table is made from them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from iterative_retraining.errors import RunError
from iterative_retraining.models.gain import evaluations, sampler_gain
from iterative_retraining.studies.report.arms import arm_label
from iterative_retraining.studies.report.claims import Claim, read_claims
from iterative_retraining.studies.report.comparisons import interval
from iterative_retraining.studies.toy2d.budget import arm, ends
from iterative_retraining.studies.toy2d.distributions import GaussianMixture
from iterative_retraining.studies.toy2d.fitted import recursion
from iterative_retraining.studies.toy2d.parts import FITTED, LARGE, LONG, Part, Scale, network_parts
from iterative_retraining.studies.toy2d.samplers import EXACT, SAMPLERS, gain_by_std, mixture_gain

COMMAND = "python -m iterative_retraining.studies.toy2d"
CLAIMS = (
    "sampler-without-network",
    "figure-3-accurate-sampler",
    "figure-3-contracting-sampler",
    "figure-3-mixture",
    "figure-4",
    "theorem-2-excess-network",
)
DRAWN = tuple(name for name in SAMPLERS if name not in ("dopri5", "heun_80", "ddim_100"))  # as many as colours
MODELS = {"edm": "EDM", "edm_long": "EDM, ten times the points", "spline": "spline flow"}


def read_rows(results: Path) -> pd.DataFrame:
    """The published rows. Raises RunError if there are none."""
    file = results / "plane.csv"
    if not file.is_file():
        raise RunError(f"there is no {file}; `{COMMAND}` makes it")
    return pd.read_csv(file)


def claims_of(file: Path) -> list[Claim]:
    """The claims that the study in the plane decides, from claims.yml."""
    return [claim for claim in read_claims(file) if claim.id in CLAIMS]


def samplers_table(target: GaussianMixture) -> str:
    """A Markdown table: of each sampler its evaluations, its gain on one mode, and on all of ``target``."""
    lines = ["| sampler | evaluations | gain on one mode | on all modes |", "|---|---|---|---|"]
    for name, process in SAMPLERS.items():
        if process is not None:
            count = evaluations(process) or "adapts"
            gains = f"{sampler_gain(process, target.std):.4f} | {mixture_gain(name, target, 2**12):.3f}"
            lines.append(f"| `{name}` | {count} | {gains} |")
    return "\n".join(lines)


def fitted_curves(rows: pd.DataFrame, n: int = 1000) -> tuple[Mapping, Mapping]:
    """For `plots.spread_curves`: the fully synthetic rows without a network of `DRAWN`, and the recursion of each."""
    simulated, recursions = {}, {}
    for name in DRAWN:
        table = arm(rows, FITTED, name).pivot_table(index="generation", columns="seed", values="spread")
        simulated[name] = (table.index.to_numpy(), table.to_numpy())
        recursions[name] = recursion(0.08, gain_by_std(name), int(table.index.max()), n=n, n_modes=8)
    return simulated, recursions


def fitted_table(rows: pd.DataFrame) -> str:
    """A Markdown table of the last spread without a network: samplers by schemes, and both sizes of sample."""
    last = rows[(rows.generation == rows.n_retrain) & rows.model.isin([FITTED, LARGE])].copy()
    last["arm"] = [arm_label(s, lam) for s, lam in zip(last.scheme, last.lam, strict=True)]
    last["n"] = last.n.map(lambda n: f"{n:,}".replace(",", " "))
    table = last.groupby(["sampler", "n", "arm"], sort=False).spread.mean().unstack("arm", sort=False)
    order = [*dict.fromkeys(last.arm)]
    return table[order].reset_index().to_markdown(index=False, floatfmt=".3f")


def fitted_sentence(rows: pd.DataFrame, truth: float = 0.08) -> str:
    """What became of the spread by sampler, fully synthetic, without a network."""
    found = ends(rows)
    own = found[(found.model == FITTED) & (found.scheme == "fully_synthetic")].set_index("sampler")["last"]
    shrunk, grown = own[own < truth / 2], own[own > 2 * truth]
    return (
        f"After {int(rows.n_retrain.max())} retrainings the spread of {truth:g} is {own[EXACT]:.3f} with exact draws: "
        f"that much is the size of the sample alone. {_list(shrunk, 'It has fallen below half of the truth')} "
        f"{_list(grown, 'It has risen above twice the truth')} No network was involved in any of these."
    )


def _list(values: pd.Series, begin: str) -> str:
    if values.empty:
        return f"{begin} with none of the samplers."
    return f"{begin} with {', '.join(f'`{name}` ({value:.3g})' for name, value in values.items())}."


def start_sentence(rows: pd.DataFrame, truth: float = 0.08) -> str:
    """Whether theta_0 of EDM is converged by the criterion of the study."""
    first = arm(rows, "edm", "accurate").query("generation == 0").spread.to_numpy()
    if not len(first):
        return f"EDM was not run; `{COMMAND}` runs it."
    off = first.mean() / truth - 1
    word = "meets" if abs(off) <= 0.05 else "does not meet"
    return (
        f"θ_0 has the spread {interval(first)} over {len(first)} seeds, {100 * off:+.1f} % off the truth: it {word} "
        "the criterion of 5 %."
    )


def network_table(rows: pd.DataFrame, dataset: str = "eight_gaussians") -> str:
    """A Markdown table of the arms with a network: spread at both ends with its 95 % interval, modes, log KL."""
    own = rows[(rows.dataset == dataset) & rows.model.isin(list(MODELS))]
    lines = ["| model | sampler | arm | retrainings | spread, first | last | modes, last | log KL, first | last |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for (model, sampler, scheme, lam), table in own.groupby(
        ["model", "sampler", "scheme", "lam"], dropna=False, sort=False
    ):
        first, last = table[table.generation == 0], table[table.generation == table.n_retrain]
        cells = [MODELS[model], f"`{sampler}`", arm_label(scheme, lam), str(table.n_retrain.iloc[0])]
        cells += [interval(first.spread.to_numpy()), interval(last.spread.to_numpy()), f"{last.modes.mean():.2f}"]
        cells += [interval(one.log_kl.to_numpy(), 2) for one in (first, last)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else "*Not run.*"


def long_sentence(rows: pd.DataFrame) -> str:
    """Where the spread went in retrainings of ten times the points, by sampler: first, last and least mean of seeds."""
    said = []
    for sampler, table in rows[rows.model == LONG].groupby("sampler", sort=False):
        means = table.groupby("generation").spread.mean()
        least = f"least at {means.idxmin()} retrainings with {means.min():.3f}"
        said.append(f"with `{sampler}` from {means.iloc[0]:.3f} to {means.iloc[-1]:.3f} at {means.index[-1]}, {least}")
    if not said:
        return f"Retrainings of ten times the points were not run; `{COMMAND}` runs them."
    return (
        f"With ten times the points in a retraining, fully synthetic, the spread goes {'; '.join(said)}. "
        "No contract was written for these arms."
    )


def missing_note(rows: pd.DataFrame) -> str:
    """One line that says which parts of the study the rows do not have, and the command that makes them."""
    there = set(rows.run_id.str.replace(r"-seed\d+$", "", regex=True))
    gone = [part.name for part in network_parts(Scale()) if part.name not in there]
    if not gone:
        return "All parts of the study were run."
    return f"Not run: {', '.join(f'`{name}`' for name in gone)}. The command `{COMMAND}` makes what is missing."


def shown_maps(maps: Mapping[str, Mapping[int, np.ndarray]], parts: Mapping[str, Part]) -> tuple[dict, list[str]]:
    """For `plots.density_maps`: the maps of those ``parts``, by the name to show, that were run, and their titles."""
    rows = {name: maps[part.name] for name, part in parts.items() if part.name in maps}
    times = sorted(set.intersection(*(set(own) for own in rows.values()))) if rows else []
    return {name: [own[t] for t in times] for name, own in rows.items()}, [f"{t} retrainings" for t in times]


def excess_sentence(rows: pd.DataFrame, lam: float = 1.0) -> str:
    """The stationary excess of a flow's KL against that of Theorem 2: mean over the second half, log KL less that of
    lambda = 0 of the same seeds."""
    levels = []
    for own in (lam, 0.0):
        table = arm(rows, "spline", EXACT, own)
        late = table[table.generation >= table.n_retrain / 2]
        levels.append(late.groupby("seed").log_kl.mean())
    gaps = (levels[0] - levels[1]).dropna().to_numpy()
    if len(gaps) < 2:
        return f"The flow was not run; `{COMMAND}` runs it."
    predicted = np.log(1 + lam / (1 + 2 * lam))
    return (
        f"At λ = {lam:g} the log KL is {interval(gaps)} above that of λ = 0 (mean over {len(gaps)} seeds ± 95 % "
        f"t-interval); Theorem 2 for an exact maximum of a well-specified family: ln(1 + λ/(1+2λ)) = {predicted:.3f}."
    )
