"""The runs that count as evidence for claims, as one table."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from iterative_retraining.runs.reading import read_config, read_ledger, read_manifest
from iterative_retraining.runs.results import read_runs


def counts(path: Path) -> bool:
    """Whether a run directory is evidence: complete, and it has recorded the definitions that made it."""
    manifest = read_manifest(path)
    return bool(manifest.get("sources")) and len(read_ledger(path)) > manifest["n_retrain"]


def failure(path: Path) -> str:
    """What ended a run that has recorded its definitions, if that was an error, such as a loss that is not finite.

    "" for one that is complete, was interrupted or goes on.
    """
    manifest = read_manifest(path)
    last = manifest["attempts"][-1] if manifest["attempts"] else {}
    failed = last.get("outcome") == "failed" and bool(manifest.get("sources")) and not counts(path)
    return last["message"] if failed else ""


def read_evidence(results: str | Path) -> pd.DataFrame:
    """`read_runs` of all runs in a folder that count, a column more for each parameter and option of theirs, n_retrain
    and ``started`` (of the first attempt); and the rows of ``plane.csv``, if a study in the plane has left it there.

    A run that failed is one row, without a generation, whose column ``failed`` says why.
    """
    tables = [evidence_of(p.parent for p in Path(results).glob("*/config.json"))]
    plane = Path(results) / "plane.csv"
    if plane.is_file():
        tables.append(pd.read_csv(plane))
    return pd.concat([t for t in tables if len(t)], ignore_index=True) if any(map(len, tables)) else tables[0]


def evidence_of(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The rows of `read_evidence` of these run directories; those that do not count are left out."""
    tables = []
    for path in sorted(map(Path, paths)):
        if counts(path):
            tables.append(with_parameters(path))
        elif why := failure(path):
            about = {"run_id": read_config(path)["run_id"], "path": str(path), "generation": np.nan, "failed": why}
            tables.append(_described(pd.DataFrame([about]), path))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["dataset", "run_id", "generation"])


def with_parameters(path: Path) -> pd.DataFrame:
    """`read_runs` of one run directory, and a column more for each parameter and option, n_retrain and ``started``."""
    return _described(read_runs([path]), path)


def _described(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """``table`` with a column for each parameter of the run in ``path`` that it does not have yet."""
    identity, manifest = read_config(path)["identity"], read_manifest(path)
    given = identity | identity["options"]
    plain = {key: value for key, value in given.items() if isinstance(value, str | int | float) and key not in table}
    beside = {"n_retrain": manifest["n_retrain"], "started": min(a["started"] for a in manifest["attempts"])}
    return table.assign(**plain | beside)
