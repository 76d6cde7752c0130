"""Publishing the small part of runs, described in one crate."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iterative_retraining.errors import RunError
from iterative_retraining.runs.reading import read_config, read_ledger, read_manifest, read_strip

CRATE = "ro-crate-metadata.json"
FILES = ("config.json", "manifest.json", "ledger.jsonl", "floor.json")  # of a run; its previews become one picture
MEASURED_AGAIN = ("manifest-*.json", "ledger-*.jsonl", "floor-*.json")


def publish(runs: Sequence[str | Path], results: str | Path) -> list[Path]:
    """Copies the small part of each run into ``results/<run id>``, its previews joined into one samples.png, and
    describes all of ``results`` in a crate (`write_crate`).

    Returns the folders written. Raises RunError for a rehearsal, before anything is written.
    """
    for run in runs:
        config = read_config(run)
        if config["identity"].get("rehearsal") or "rehearsal" in config["run_id"]:
            raise RunError(f"{run} is a rehearsal ({config['run_id']}), and never published; publish the run itself")
    targets = []
    for run in map(Path, runs):
        target = Path(results) / read_config(run)["run_id"]
        target.mkdir(parents=True, exist_ok=True)
        targets.append(target)
        strips = [read_strip(run / f"preview-{t:04d}.png") for t in range(len(read_ledger(run)))]
        measured_again = [file.name for pattern in MEASURED_AGAIN for file in run.glob(pattern)]
        for name in (*FILES, *measured_again):
            if strips or name != "ledger.jsonl":  # a run may fail before its first generation
                shutil.copyfile(run / name, target / name)
        if strips:
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
    for run in sorted(p.parent for p in results.glob("*/config.json")):
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
