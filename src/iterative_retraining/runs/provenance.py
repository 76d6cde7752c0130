"""What made a run: written into its manifest at every attempt, and read by the chapters."""

import ast
import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.errors import RunError
from iterative_retraining.files import data_sha256, state_sha256, write_json
from iterative_retraining.runs.directory import Run
from iterative_retraining.runs.reading import read_manifest as read_manifest

# The modules that decide a run's numbers, relative to the package; what draws, reads or tells of them is not here.
DECIDING = (
    "cache.py",
    "training_set.py",
    "datasets",
    "schemes",
    "seeding.py",
    "distributed.py",
    "retrain.py",
    "models",
    "metrics",
)
PACKAGES = ("iterative-retraining", "torch", "numpy", "scipy", "scikit-learn")


def git_state() -> dict[str, Any]:
    """Commit and whether tracked files differ from it; nulls where the package is not in a git checkout."""
    here = Path(__file__).parents[1]

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def source_sha256(package: Path = Path(__file__).parents[1]) -> str:
    """SHA-256 of the code that decides a run's numbers, without comments, docstrings and layout.

    Results that were made by other code than is here now have another value: they are stale.
    """
    digest = hashlib.sha256()
    for name in DECIDING:
        place = package / name
        for file in [place] if place.is_file() else sorted(place.rglob("*.py")):
            tree = ast.parse(file.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    _drop_docstring(node)
            digest.update(f"{file.relative_to(package).as_posix()}\n{ast.unparse(tree)}\n".encode())
    return digest.hexdigest()


def _drop_docstring(node: Any) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:] or [ast.Pass()]


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(device: str) -> dict[str, Any]:
    """Device name, cores, threads, and the instruction set that PyTorch uses on the processor, such as AVX2: like the
    number of threads, it decides how sums are rounded, and processors of one name may differ in it."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()
    here = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return {"device": device, "name": name, **here, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def this_machine(device: str = "cpu") -> dict[str, Any]:
    """Code, versions and hardware, as an attempt in a manifest records them."""
    return {
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "hardware": hardware(device),
    }


def write_manifest(
    run: Run,
    *,
    n_retrain: int,
    device: str,
    real: np.ndarray,
    initial_state: Mapping[str, np.ndarray] | None = None,
    initial_identity: Mapping[str, Any] | None = None,
) -> None:
    """Adds this attempt to the run's ``manifest.json``: when, from which generation on, code, versions, hardware.

    ``initial_identity``: the configuration of the run that it starts from, so that this can be run again too.
    Raises RunError, and gives the directory free, if earlier attempts had other real images.
    """
    manifest, digest = {"run_id": run.config.run_id} | read_manifest(run.path), data_sha256(real)
    before = manifest.get("real_sha256", digest)
    if before != digest:
        run.close()
        raise RunError(
            f"{run.path} was begun with other real images (SHA-256 {before[:10]}..., now {digest[:10]}...); "
            "set data_dir as before, or take another run_dir"
        )
    manifest |= {"config": run.config.identity(), "n_retrain": n_retrain, "real_sha256": digest}
    manifest["initial_weights_sha256"] = None if initial_state is None else state_sha256(initial_state)
    manifest["initial_identity"] = initial_identity
    manifest["attempts"].append(
        {
            "started": _now(),
            "first_generation": len(run.rows),
            "keep_every": run.keep_every,
            "source_sha256": source_sha256(),
            **this_machine(device),
        }
    )
    write_json(run.path / "manifest.json", manifest)


def finish_attempt(run: Run, outcome: str, message: str, seconds: float) -> None:
    """Completes the last attempt in the manifest: how it ended ("complete", "stopped" or "failed"), the message of what
    ended it, and its wall time. An attempt that was killed has none of these."""
    manifest = read_manifest(run.path)
    ending = {"ended": _now(), "outcome": outcome, "message": message, "seconds": seconds}
    manifest["attempts"][-1] |= ending | {"last_generation": len(run.rows) - 1}
    write_json(run.path / "manifest.json", manifest)


def add_reproduced(published: Path, again: Path, generations: int) -> None:
    """Adds to the manifest of ``published`` that the run in ``again`` came out the same, up to that generation."""
    attempt = read_manifest(again)["attempts"][-1]
    made_by = {key: attempt[key] for key in ("source_sha256", "git", "python", "packages", "hardware")}
    manifest = read_manifest(published)
    manifest.setdefault("reproduced", []).append({"when": _now(), "generations": generations} | made_by)
    write_json(published / "manifest.json", manifest)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
