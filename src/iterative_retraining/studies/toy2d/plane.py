"""The study in the plane as a whole: its folder, what each part records of itself, and the table that it leaves."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iterative_retraining.errors import RunError, refuse_unknown
from iterative_retraining.files import write_file, write_json
from iterative_retraining.runs.locks import lock
from iterative_retraining.runs.provenance import this_machine
from iterative_retraining.studies.toy2d.folder import FolderRun, read_arrays, read_lines, write_arrays
from iterative_retraining.studies.toy2d.parts import (
    FITTED,
    LARGE,
    LONG,
    Part,
    Scale,
    first_of,
    fitted_parts,
    fitted_rows,
    is_measured,
    network_parts,
    network_rows,
    network_run,
)

FITTED_NAME, MAPS = "plane-fitted", "plane-densities.npz"
SHOWN, BINS = (0, 10, 20, 50, 100), 64


def scale_of(changes: Mapping[str, Any]) -> Scale:
    """The published scale with ``changes``. Raises ConfigError for a name that it does not have."""
    refuse_unknown("part of the scale", changes, [f.name for f in fields(Scale)])
    return Scale(**changes)


def make(folder: Path, changes: Mapping[str, Any] | None = None, only: Sequence[str] = ()) -> Scale:
    """Makes what is missing of all parts, or of those whose names begin with one of ``only``.

    Raises RunError if the folder is in use, or was begun at another scale.
    """
    scale = scale_of(changes or {})
    taken = lock(folder)
    try:
        if _wanted(FITTED_NAME, only):
            _make_fitted(folder / FITTED_NAME, scale)
        for part in network_parts(scale):
            if _wanted(part.name, only) and not _complete(folder / part.name, part):
                _begin(folder / part.name, scale)
                model = "edm" if part.model == LONG else part.model  # which has the same theta_0
                first = first_of(part.dataset, model, scale, folder / f"first-{part.dataset}-{model}")
                network_run(part, scale, folder / part.name, first)
    finally:
        taken.release()
    return scale


def _wanted(name: str, only: Sequence[str]) -> bool:
    return not only or any(name.startswith(start) for start in only)


def _complete(path: Path, part: Part) -> bool:
    file = path / "ledger.jsonl"
    return file.is_file() and len(read_lines(file.read_text())) > part.n_retrain


def _make_fitted(path: Path, scale: Scale) -> None:
    if not (path / "rows.csv").is_file():
        started = _begin(path, scale)
        rows = pd.concat([fitted_rows(part, scale, started) for part in fitted_parts(scale)])
        _write_table(rows, path / "rows.csv")


def _begin(path: Path, scale: Scale) -> str:
    """Records when and how a part was begun; of one that was begun before, looks whether it is the same."""
    file = path / "part.json"
    if file.is_file():
        told = json.loads(file.read_text())
        if Scale(**told["scale"]) != scale:  # what an older file does not have is as by default
            raise RunError(f"{path} was begun at another scale; take another folder, or the scale in {file}")
        return told["started"]
    path.mkdir(parents=True, exist_ok=True)
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(file, {"started": started, "scale": asdict(scale), "machine": this_machine()})
    return started


def publish(folder: Path, results: Path, scale: Scale) -> int:
    """Writes plane.csv, plane.json and maps of all complete parts into ``results``; returns the number of rows.

    Parts that are published there and are not in ``folder`` stay as they are. Raises RunError if no part is complete.
    """
    tables, told, maps = [], {}, {}
    if (folder / FITTED_NAME / "rows.csv").is_file():
        tables.append(pd.read_csv(folder / FITTED_NAME / "rows.csv"))
        told[FITTED_NAME] = json.loads((folder / FITTED_NAME / "part.json").read_text())
    for part in network_parts(scale):
        path = folder / part.name
        if _complete(path, part):
            run = FolderRun(path)
            seconds = sum(value for row in run.rows for key, value in row.items() if key.startswith("seconds_"))
            told[part.name] = json.loads((path / "part.json").read_text()) | {"seconds": round(seconds, 1)}
            tables.append(network_rows(part, scale, run.rows, told[part.name]["started"]))
            shown = [t for t in SHOWN if t <= part.n_retrain and is_measured(part, scale, t)]
            maps |= {f"{part.name}/{t}": density(run.samples(t).reshape(-1, 2)) for t in shown}
    if not tables:
        raise RunError(f"no part of the study in {folder} is complete; the same command goes on")
    results.mkdir(parents=True, exist_ok=True)
    tables, told, maps = _with_published(results, tables, told, maps)
    table = pd.concat(tables, ignore_index=True)
    _write_table(table, results / "plane.csv")
    write_json(results / "plane.json", told)
    write_arrays(results / MAPS, maps)
    return len(table)


def _with_published(
    results: Path, tables: list[pd.DataFrame], told: dict[str, Any], maps: dict[str, np.ndarray]
) -> tuple[list[pd.DataFrame], dict[str, Any], dict[str, np.ndarray]]:
    """The three with the parts of ``results`` before them that ``told`` does not name."""
    if not (results / "plane.json").is_file():
        return tables, told, maps
    before = json.loads((results / "plane.json").read_text())
    kept = {name: about for name, about in before.items() if name not in told}
    rows = pd.read_csv(results / "plane.csv")
    names = rows.run_id.str.rsplit("-seed", n=1).str[0]
    names = names.where(~rows.model.isin([FITTED, LARGE]), FITTED_NAME)
    pictures = {name: counts for name, counts in read_arrays(results / MAPS).items() if name.rpartition("/")[0] in kept}
    return [rows[names.isin(list(kept))], *tables], kept | told, pictures | maps


def density(points: np.ndarray) -> np.ndarray:
    """Counts of points (n, 2) in `BINS` x `BINS` squares of [-1.6, 1.6]^2, the first coordinate first, uint16."""
    low, high = -1.6, 1.6
    counts, *_ = np.histogram2d(*points[np.isfinite(points).all(axis=1)].T, bins=BINS, range=[(low, high)] * 2)
    return counts.astype(np.uint16)


def read_densities(results: Path) -> dict[str, dict[int, np.ndarray]]:
    """The published maps: by part, by generation. Raises RunError if they are missing."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for name, counts in read_arrays(results / MAPS).items():
        part, _, generation = name.rpartition("/")
        found.setdefault(part, {})[int(generation)] = counts
    return found


def _write_table(table: pd.DataFrame, path: Path) -> None:
    text = table.to_csv(index=False, float_format="%.6g")
    write_file(path, lambda file: file.write(text.encode()))
