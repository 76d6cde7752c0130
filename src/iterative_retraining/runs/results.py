"""Reading run directories: ledgers as one table, sample strips, floors."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from iterative_retraining.errors import RunError
from iterative_retraining.runs.reading import read_config, read_ledger, read_strip
from iterative_retraining.runs.reading import read_floor as read_floor
from iterative_retraining.runs.reading import read_manifest as read_manifest


def find_results(start: str | Path = ".") -> list[Path]:
    """The published run directories: those in the nearest ``results`` folder at or above ``start``.

    Raises FileNotFoundError if there is none.
    """
    for folder in [Path(start).resolve(), *Path(start).resolve().parents]:
        found = sorted(p.parent for p in (folder / "results").glob("*/ledger.jsonl"))
        if found:
            return found
    raise FileNotFoundError(f"no folder 'results' with runs at or above {Path(start).resolve()}; give run_dirs instead")


def read_runs(paths: Iterable[str | Path], measurement: str = "") -> pd.DataFrame:
    """One row per run and generation: the ledger's columns, and run_id, path, dataset, model, scheme, lam,
    scheme_options (JSON text), selector, keep_rate, selector_options (JSON text), seed.

    measurement: the name of a later one, whose ledger is read instead, see `iterative_retraining.remeasure`.
    ``lam`` is NaN for a scheme that has none, selector "" and keep_rate NaN for a run without.
    Raises RunError for a directory that is no run or has no generation yet.
    """
    tables = []
    for path in map(Path, paths):
        config, rows = read_config(path), read_ledger(path, measurement)
        if not rows:
            what = f"measurement {measurement!r}" if measurement else "complete generation yet"
            raise RunError(f"{path} holds no {what}")
        identity = config["identity"]
        columns = {key: identity[key] for key in ("dataset", "model", "scheme", "seed")}
        columns |= {key: json.dumps(identity.get(key, {})) for key in ("scheme_options", "selector_options")}
        columns |= {"selector": identity.get("selector", ""), "keep_rate": identity.get("keep_rate", np.nan)}
        columns["lam"] = np.nan if identity["lam"] is None else identity["lam"]
        tables.append(pd.DataFrame(rows).assign(run_id=config["run_id"], path=str(path), **columns))
    if not tables:
        raise RunError("no run directories were given")
    return pd.concat(tables, ignore_index=True)


def of_dataset(paths: Iterable[str | Path], *datasets: str) -> list[Path]:
    """The run directories among ``paths`` whose real data are one of ``datasets``."""
    return [path for path in map(Path, paths) if read_config(path)["identity"]["dataset"] in datasets]


def read_previews(path: str | Path) -> np.ndarray:
    """The preview images of every complete generation, uint8 (generations, 16, H, W[, C]), same latents in each.

    Raises RunError if there is none, or if a picture is missing, damaged or of another size.
    """
    path, n = Path(path), len(read_ledger(path))
    if not n:
        raise RunError(f"{path} holds no complete generation yet")
    whole = path / "samples.png"
    rows = [whole] if whole.is_file() else [path / f"preview-{t:04d}.png" for t in range(n)]
    pictures = [read_strip(file) for file in rows]
    height, width = pictures[0].shape[:2]
    size = height * len(rows) // n
    alike = all(picture.shape == pictures[0].shape for picture in pictures)
    if not alike or size == 0 or size * n != height * len(rows) or width % size:
        raise RunError(f"{path}: its pictures {rows[0].name} ... are not those of {n} generations; restore them")
    strips = np.concatenate(pictures)
    return strips.reshape(n, size, -1, size, *strips.shape[2:]).swapaxes(1, 2)
