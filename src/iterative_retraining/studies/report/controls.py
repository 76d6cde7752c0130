"""Controls: what else than synthetic data could explain what an arm shows, the sampler and the budget."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from iterative_retraining.datasets import DATASETS, load_dataset
from iterative_retraining.models import MODELS, build_model, resolve_options
from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.gain import evaluations, sampler_gain, spectrum_gains
from iterative_retraining.models.paths import GaussianPaths
from iterative_retraining.runs.reading import read_config
from iterative_retraining.studies.report.arms import arm_label
from iterative_retraining.studies.report.arms import arms as arms_of
from iterative_retraining.studies.report.comparisons import interval, levels
from iterative_retraining.studies.report.groups import main_groups
from iterative_retraining.studies.report.labels import label_of

# Samplers whose gains are shown: that of the studies and the usual one.
SAMPLERS: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("edm", {}),
    ("edm", {"solver": "heun", "n_steps": 18, "rho": 7.0}),
    ("flow_matching", {}),
    ("flow_matching", {"solver": "rk4", "spacing": "time", "n_steps": 8, "rho": 7.0}),
    ("ddpm", {}),
    ("ddpm", {"solver": "ddim", "n_steps": 100}),
)
LEVEL_STD = 0.036
"""Standard deviation of rounding to grey levels that are 1/8 apart: eigenvectors below it are not resolved."""


def gains_table(dataset: str) -> str:
    """A Markdown table: samplers, their evaluations, and the least and greatest factor by which a pass multiplies the
    standard deviation of a Gaussian with the covariance of ``dataset``, along the eigenvectors above `LEVEL_STD`."""
    images, _ = load_dataset(dataset)
    eigenvalues = np.linalg.eigvalsh(np.cov((images.reshape(len(images), -1) / 127.5 - 1).T))
    resolved = eigenvalues[eigenvalues > LEVEL_STD**2]
    lines = ["| model | sampler | evaluations | least factor | greatest factor |", "|---|---|---|---|---|"]
    for model, options in SAMPLERS:
        resolved_options = resolve_options(model, dataset, options)
        process = build_model(model, images.shape[1:], resolved_options).process
        gains = spectrum_gains(process, resolved)
        name = f"`{process.solver}`, {process.n_steps} steps"
        cells = (MODELS[model].label, name, str(evaluations(process)), f"{gains.min():.3f}", f"{gains.max():.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\n{len(resolved)} eigenvectors of {len(eigenvalues)}."


def by_sampler(runs: pd.DataFrame) -> dict[str, list[tuple[str, pd.DataFrame]]]:
    """For each main group: label to the fully synthetic arm and lambda = 1 of it, and the fully synthetic arm of other
    samplers with the same seeds and budgets, each with what tells it."""
    found = {}
    for label, main in main_groups(runs).items():
        alike = runs[runs.apart_from_sampler == main.apart_from_sampler.iloc[0]]
        curves = []
        for (solver, n_steps), table in alike.groupby(["solver", "n_steps"], dropna=False, sort=False):
            own = [t for arm, t in arms_of(table) if arm.name == "fully_synthetic"]
            sampler = f"{solver} {n_steps:.0f}" if isinstance(solver, str) else "exact draws"
            curves += [(f"fully synthetic, {sampler}", t) for t in own]
        curves += [(arm.label, t) for arm, t in arms_of(main) if arm.name == "mix" and arm.lam == 1]
        found[label] = curves
    return found


def exposure_table(runs: pd.DataFrame) -> str:
    """A Markdown table: of every main group the arms of lambda at every budget; real images seen a retraining, and
    precision, the same against held-out images, and FID, means of the second half with 95 % t-intervals over seeds."""
    parts = []
    apart = runs.group.map(lambda text: json.dumps(json.loads(text) | {"n_images_per_retraining": None}))
    for label, main in main_groups(runs).items():
        alike = runs[(apart == apart[main.index[0]]) & (runs.scheme == "mix")]
        if alike.n_images_per_retraining.nunique() < 2:
            continue
        shown = [m for m in ("precision", "held_out_precision", "fid") if m in alike and alike[m].notna().all()]
        heads = ["arm", "images a retraining", "of them real", *map(label_of, shown), "seeds"]
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for (lam, budget), table in sorted(alike.groupby(["lam", "n_images_per_retraining"])):
            per_seed = levels(table, shown)
            cells = [arm_label("mix", lam), f"{budget:,.0f}", f"{budget / (1 + lam):,.0f}"]
            cells += [interval(per_seed[m].to_numpy()) for m in shown] + [str(table.seed.nunique())]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append(f"**{label}**\n\n" + "\n".join(lines))
    return "\n\n".join(parts) or "*Not run yet: these runs have one budget.*"


STDS = (0.05, 0.1, 0.2, 0.5)
LARGEST_ERROR = 0.005
"""Of a gain: what a study's sampler may be off by a pass."""


def gains_of_runs(paths: Iterable[str | Path]) -> str:
    """A Markdown list: of every sampler of the runs at ``paths`` the factors by which a pass multiplies the standard
    deviations `STDS` of a Gaussian, and whether the runs can be evidence of what retraining does; "" without runs."""
    found: dict[str, Sequence[float]] = {}
    for path in map(Path, paths):
        identity = read_config(path)["identity"]
        family = MODELS[identity["model"]]
        if not isinstance(family, NetworkFamily):
            continue
        process, _ = family.configured(DATASETS[identity["dataset"]].shape, identity["options"])
        if isinstance(process, GaussianPaths):
            name = f"{family.label}, `{process.solver}` in {process.n_steps} steps"
            found[name] = [sampler_gain(process, std) for std in STDS]
    lines = []
    for name, gains in found.items():
        told = ", ".join(f"{gain:.3f} at {std:g}" for gain, std in zip(gains, STDS, strict=True))
        worst = max(abs(gain - 1) for gain in gains)
        verdict = "they stand" if worst <= LARGEST_ERROR else "what these runs show is **withdrawn as evidence**"
        lines.append(
            f"- {name}: a pass multiplies the standard deviation of a Gaussian by {told}. Off by up to {worst:.1%} "
            f"(at most {LARGEST_ERROR:.1%} in a study): {verdict}."
        )
    return "\n".join(lines)
