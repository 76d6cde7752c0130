"""Reading run directories: ledgers as one table, sample strips, floors; and publishing the small part of a run."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from iterative_retraining.studies.report.comparisons import arm_label
from iterative_retraining.studies.report.protocol import family_label
from iterative_retraining.runs.provenance import read_manifest as read_manifest
from iterative_retraining.runs.provenance import this_machine
from iterative_retraining.runs.reading import read_config, read_ledger, read_strip
from iterative_retraining.errors import RunError
from iterative_retraining.runs.directory import read_floor as read_floor

CRATE = "ro-crate-metadata.json"
PUBLISHED = ("config.json", "manifest.json", "ledger.jsonl", "floor.json")


def find_results(start: str | Path = ".") -> list[Path]:
    """The published run directories: those in the nearest ``results`` folder at or above ``start``.

    Raises FileNotFoundError if there is none.
    """
    for folder in [Path(start).resolve(), *Path(start).resolve().parents]:
        found = sorted(p.parent for p in (folder / "results").glob("*/ledger.jsonl"))
        if found:
            return found
    raise FileNotFoundError(f"no folder 'results' with runs at or above {Path(start).resolve()}; give run_dirs instead")


def read_runs(paths: Iterable[str | Path]) -> pd.DataFrame:
    """One row per run and generation: the ledger's columns, and run_id, path, dataset, model, scheme, lam, seed.

    ``lam`` is NaN for a scheme that has none. Raises RunError for a directory that is no run or has no generation yet.
    """
    tables = []
    for path in map(Path, paths):
        config, rows = read_config(path), read_ledger(path)
        if not rows:
            raise RunError(f"{path} holds no complete generation yet")
        columns = {key: config["identity"][key] for key in ("dataset", "model", "scheme", "seed")}
        lam = config["identity"]["lam"]
        columns["lam"] = np.nan if lam is None else lam
        tables.append(pd.DataFrame(rows).assign(run_id=config["run_id"], path=str(path), **columns))
    if not tables:
        raise RunError("no run directories were given")
    return pd.concat(tables, ignore_index=True)


def of_dataset(paths: Iterable[str | Path], *datasets: str) -> list[Path]:
    """The run directories among ``paths`` whose real data are one of ``datasets``."""
    return [path for path in map(Path, paths) if read_config(path)["identity"]["dataset"] in datasets]


def read_families(paths: Iterable[str | Path]) -> dict[str, pd.DataFrame]:
    """`read_runs` of each group of runs that differ in scheme, lambda and seed alone, under a name that tells how it
    retrains (`family_label`); empty without ``paths``."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in map(Path, paths):
        identity = dict(read_config(path)["identity"])
        shared = {key: value for key, value in identity.items() if key not in ("scheme", "lam", "seed", "init")}
        groups.setdefault((family_label(identity), json.dumps(shared, sort_keys=True)), []).append(path)
    families: dict[str, pd.DataFrame] = {}
    for (label, _), own in groups.items():
        again = f"\n({len(families) + 1})" if label in families else ""
        families[label + again] = read_runs(own)
    return families


def read_previews(path: str | Path) -> np.ndarray:
    """The preview images of every complete generation, uint8 (generations, 16, H, W[, C]), same latents in each."""
    path, n = Path(path), len(read_ledger(Path(path)))
    whole = path / "samples.png"
    rows = [whole] if whole.is_file() else [path / f"preview-{t:04d}.png" for t in range(n)]
    strips = np.concatenate([read_strip(file) for file in rows])
    size = strips.shape[0] // n
    return strips.reshape(n, size, -1, size, *strips.shape[2:]).swapaxes(1, 2)


def arm_previews(runs: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """Label and `read_previews` of every arm of the first seed in ``runs``, fully synthetic first, then by lambda."""
    first = runs[runs.seed == runs.seed.min()].drop_duplicates("run_id")
    first = first.sort_values(["model", "lam"], na_position="first")
    return [(f"{r.model}\n{arm_label(r.scheme, r.lam)}", read_previews(r.path)) for r in first.itertuples()]


def publish(runs: Sequence[str | Path], results: str | Path) -> list[Path]:
    """Copies the small part of each run into ``results/<run id>``, its previews joined into one samples.png, and
    describes all of ``results`` in a crate (`write_crate`).

    Returns the folders written.
    """
    targets = []
    for run in map(Path, runs):
        target = Path(results) / read_config(run)["run_id"]
        target.mkdir(parents=True, exist_ok=True)
        targets.append(target)
        for name in PUBLISHED:
            shutil.copyfile(run / name, target / name)
        strips = [read_strip(run / f"preview-{t:04d}.png") for t in range(len(read_ledger(run)))]
        Image.fromarray(np.concatenate(strips)).save(target / "samples.png", optimize=True)
    write_crate(results)
    return targets


def write_crate(results: str | Path) -> Path:
    """Describes all published runs below ``results`` in one RO-Crate 1.1: ``ro-crate-metadata.json``.

    Every run is a data set with its files, their SHA-256 and sizes; every attempt at it an action with its software,
    start, end and outcome. Returns the file written.
    """
    from rocrate.model.contextentity import ContextEntity
    from rocrate.rocrate import ROCrate

    results, crate = Path(results), ROCrate()
    crate.name = "Published runs of iterative retraining"
    crate.description = "Ledgers, manifests, real-vs-real floors and sample strips, one folder a run."
    crate.license = "https://spdx.org/licenses/MIT"
    for run in sorted(p.parent for p in results.glob("*/ledger.jsonl")):
        manifest, rows = read_manifest(run), read_ledger(run)
        about = {
            "name": manifest["run_id"],
            "description": f"{len(rows)} generations",
            "identifier": manifest["run_id"],
        }
        folder = crate.add_dataset(dest_path=f"{run.name}/", properties=about)
        for file in sorted(p for p in run.iterdir() if not p.name.startswith(".")):
            content = file.read_bytes()
            said = {"sha256": hashlib.sha256(content).hexdigest(), "contentSize": str(len(content))}
            entity = crate.add_file(dest_path=f"{run.name}/{file.name}", properties={"name": file.name, **said})
            folder.append_to("hasPart", entity)
        for number, one in enumerate(manifest["attempts"]):
            action = {"@type": "CreateAction", "name": f"attempt {number + 1} at {manifest['run_id']}"}
            action |= {"startTime": one["started"], "result": {"@id": folder.id}, "instrument": software(one)}
            action |= {"endTime": one["ended"], "description": one["outcome"]} if "ended" in one else {}
            crate.add(ContextEntity(crate, f"#{run.name}-attempt-{number + 1}", properties=action))
    crate.metadata.write(results)
    return results / CRATE


def software(attempt: Mapping[str, Any]) -> str:
    """Commit, packages and device of an attempt, in words."""
    packages = ", ".join(f"{name} {version}" for name, version in attempt["packages"].items())
    modified = " (modified)" if attempt["git"]["dirty"] else ""
    hardware = ", ".join(attempt["hardware"][key] for key in ("name", "cpu_capability") if key in attempt["hardware"])
    return f"commit {attempt['git']['commit']}{modified}; {packages}; {hardware}"


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
