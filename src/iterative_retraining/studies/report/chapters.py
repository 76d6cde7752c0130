"""What chapters say of runs and show of them: groups of runs, previews by arm, and what made them."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from iterative_retraining.runs.provenance import read_manifest, this_machine
from iterative_retraining.runs.reading import read_config, read_ledger
from iterative_retraining.runs.results import read_previews, read_runs
from iterative_retraining.studies.report.arms import arms, has_selector
from iterative_retraining.studies.report.groups import group_of
from iterative_retraining.studies.report.protocol import family_label


def read_families(paths: Iterable[str | Path]) -> dict[str, pd.DataFrame]:
    """`read_runs` of each group of runs that differ in their arm and seed alone, under a name that tells how it
    retrains (`family_label`); empty without ``paths``. Runs with a selector are left out: `read_selected`."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in map(Path, paths):
        identity = dict(read_config(path)["identity"])
        if identity.get("selector"):
            continue
        groups.setdefault((family_label(identity), group_of(identity)), []).append(path)
    families: dict[str, pd.DataFrame] = {}
    for (label, _), own in groups.items():
        again = f"\n({len(families) + 1})" if label in families else ""
        families[label + again] = read_runs(own)
    return families


def read_selected(paths: Iterable[str | Path]) -> dict[str, pd.DataFrame]:
    """`read_runs` of the runs with a selector, in groups as in `read_families`, each with those without one that differ
    from it in nothing else; up to the last generation that all have."""
    groups: dict[str, list[Path]] = {}
    for path in map(Path, paths):
        identity = dict(read_config(path)["identity"])
        groups.setdefault(group_of(identity), []).append(path)
    families: dict[str, pd.DataFrame] = {}
    for own in groups.values():
        runs = read_runs(own)
        chosen = runs[has_selector(runs)]
        if len(chosen):
            label = family_label(read_config(chosen.path.iloc[0])["identity"])
            last = runs.groupby("run_id").generation.max().min()
            again = f"\n({len(families) + 1})" if label in families else ""
            families[label + again] = runs[
                (runs.scheme.isin(chosen.scheme) | (runs.lam == 0)) & (runs.generation <= last)
            ]
    return families


def arm_previews(runs: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """Label and `read_previews` of every arm of the first seed in ``runs``, in their order."""
    first = runs[runs.seed == runs.seed.min()].drop_duplicates("run_id")
    of_models = [(str(model), pair) for model, table in first.groupby("model") for pair in arms(table)]
    return [(f"{model}\n{arm.label}", read_previews(table.path.iloc[0])) for model, (arm, table) in of_models]


def run_facts(paths: Iterable[str | Path]) -> str:
    """A Markdown list of what the runs at ``paths`` are about: real images, and by model its sampler and first budget.

    Runs of earlier code, which did not record the solver of EDM, had Heun's.
    """
    lines: dict[str, None] = {}
    for path in paths:
        identity, n_real = read_config(Path(path))["identity"], read_ledger(Path(path))[0]["n_real"]
        options = identity["options"]
        lines[f"- `{identity['dataset']}`: {n_real} real images"] = None
        if "n_steps" in options:
            sampler = f"sampled by `{options.get('solver', 'heun')}` in {options['n_steps']} steps"
            lines[f"- `{identity['model']}`: {sampler}, dropout {options['dropout']:g}"] = None
    return "\n".join(lines)


def scale_note(scale: str, paths: Iterable[str | Path] = ()) -> str:
    """One Markdown paragraph: the scale and, of the runs at ``paths``, how many, which, and the code and hardware."""
    manifests = [read_manifest(path) for path in paths]
    attempts = [attempt for manifest in manifests for attempt in manifest["attempts"]] or [this_machine()]
    commits = sorted({str(a["git"]["commit"])[:10] + (" (modified)" if a["git"]["dirty"] else "") for a in attempts})
    machines = sorted({f"{a['hardware']['name']}, {a['hardware']['threads']} thread(s) a run" for a in attempts})
    torch = sorted({a["packages"]["torch"] for a in attempts})
    words = [f"**Scale** `{scale}`."]
    if manifests:
        words.append(f"{len(manifests)} runs: {', '.join('`' + m['run_id'] + '`' for m in manifests)}.")
    words.append(f"Code at commit {', '.join(commits)}; PyTorch {', '.join(torch)}; {'; '.join(machines)}.")
    return " ".join(words)
