"""What made a run: written into its manifest at every attempt, and read by the chapters."""

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.runs import Run, write_json

PACKAGES = ("iterative-retraining", "torch", "numpy", "scipy", "scikit-learn")


def git_state() -> dict[str, Any]:
    """Commit and whether tracked files differ from it; nulls where the package is not in a git checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, check=False)
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(device: str) -> dict[str, Any]:
    """Device name, cores and threads."""
    import torch

    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name()
    return {"device": device, "name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def this_machine(device: str = "cpu") -> dict[str, Any]:
    """Code, versions and hardware, as an attempt in a manifest records them."""
    return {
        "git": git_state(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "hardware": hardware(device),
    }


def data_sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_manifest(run: Run, *, n_retrain: int, device: str, real: np.ndarray) -> None:
    """Adds this attempt to the run's ``manifest.json``: when, from which generation on, code, versions, hardware."""
    file = run.path / "manifest.json"
    manifest = json.loads(file.read_text()) if file.is_file() else {"run_id": run.config.run_id, "attempts": []}
    manifest |= {"config": run.config.identity(), "n_retrain": n_retrain, "real_sha256": data_sha256(real)}
    manifest["attempts"].append(
        {
            "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "first_generation": len(run.rows),
            **this_machine(device),
        }
    )
    write_json(file, manifest)
