"""What published runs have taken: wall time, core hours and memory, by the figure of the paper that they stand for."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from iterative_retraining.models import MODELS
from iterative_retraining.runs.reading import read_config, read_ledger, read_manifest

FIGURES = {
    ("fashion_mnist14", "edm"): "1",
    ("digits", "edm"): "2",
    ("digits", "flow_matching"): "2",
    ("digits", "ddpm"): "5",
}
"""Data set and model of our version of a figure of the paper; figures 3 and 4 are of the study in the plane."""
PLANE = {"eight_gaussians": "3", "two_moons": "4"}
HEAD = (
    "| figure | what was run | runs | retrainings | one run, minutes | all, core hours | memory of a run, GB |\n"
    "|---|---|---|---|---|---|---|"
)


def spent_table(paths: Iterable[str | Path], plane: str | Path | None = None) -> str:
    """A Markdown table of the runs at ``paths``, a row a data set and model, and of the study in the plane whose
    plane.json is given, a row a distribution.

    Minutes: median over runs of all their complete generations. Core hours: wall time by threads. Memory: the most that
    a process held. A dash is what was not recorded. The training of a theta_0 that runs share is in none of them.
    """
    rows = _runs(paths) + (_plane(Path(plane)) if plane is not None and Path(plane).is_file() else [])
    cells = sorted(rows, key=lambda row: (row[0] == "–", row[0], row[1]))
    return "\n".join([HEAD, *(f"| {' | '.join(row)} |" for row in cells)])


def _runs(paths: Iterable[str | Path]) -> list[tuple[str, ...]]:
    studies: dict[tuple[str, str], list[tuple[float, int, int, int]]] = defaultdict(list)
    for path in map(Path, paths):
        identity, ledger, attempts = read_config(path)["identity"], read_ledger(path), read_manifest(path)["attempts"]
        seconds = sum(value for row in ledger for key, value in row.items() if key.startswith("seconds_"))
        threads = max((a["hardware"].get("threads", 1) for a in attempts), default=1)
        memory = max((a.get("peak_memory_bytes", 0) for a in attempts), default=0)
        studies[identity["dataset"], identity["model"]].append((seconds, threads, len(ledger) - 1, memory))
    return [_row(study, found) for study, found in studies.items()]


def _row(study: tuple[str, str], found: list[tuple[float, int, int, int]]) -> tuple[str, ...]:
    seconds, _, retrainings, memory = zip(*found, strict=True)
    hours = sum(wall * threads for wall, threads, *_ in found) / 3600
    name = f"{study[0].replace('_', ' ')}, {MODELS[study[1]].label}"
    counts = (f"{len(found)}", f"{sum(retrainings)}", f"{median(seconds) / 60:.0f}", f"{hours:.1f}")
    return FIGURES.get(study, "–"), name, *counts, f"{max(memory) / 1e9:.1f}" if max(memory) else "–"


def _plane(file: Path) -> list[tuple[str, ...]]:
    told: Mapping[str, Mapping[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    rows = []
    for distribution, figure in PLANE.items():
        parts = [about for name, about in told.items() if name.startswith(f"plane-{distribution}-")]
        runs = sum(about["scale"]["n_seeds"] for about in parts)
        seconds = [about["seconds"] for about in parts if "seconds" in about]
        hours = f"{sum(seconds) / 3600:.1f}"
        if len(seconds) < len(parts):
            hours = f"{hours}, by {len(seconds)} of {len(parts)} arms" if seconds else "–"
        if parts:
            rows.append((figure, f"{distribution.replace('_', ' ')}, in the plane", f"{runs}", "–", "–", hours, "–"))
    return rows
