"""What made a run: written into its manifest at every attempt, and read by the chapters."""

import datetime
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.errors import RunError
from iterative_retraining.files import data_sha256, sealed, state_sha256, write_json
from iterative_retraining.runs.directory import Run
from iterative_retraining.runs.reading import read_manifest as read_manifest
from iterative_retraining.runs.source import Pair, definitions, of_run, source_sha256

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


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


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
    world_size: int = 1,
    initial_state: Mapping[str, np.ndarray] | None = None,
    initial_identity: Mapping[str, Any] | None = None,
    features: str | None = None,
    metrics: Collection[str] | None = None,
    how: Mapping[str, Any] | None = None,
) -> None:
    """Adds this attempt to the run's ``manifest.json``: when, from which generation on, code, versions, hardware.

    ``world_size``: how many processes work on it. ``initial_identity``: the configuration of the run that it starts
    from, so that this can be run again too. ``how``: settings that change time, memory and rounding alone, by name.
    ``features``, ``metrics``: their names in the registries; None if any of them may be used. The code is told by the
    hash of the definitions that the run can reach, and under ``sources`` they stand, once for each hash.
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
    manifest["measured"] = {"features": features, "metrics": None if metrics is None else sorted(metrics)}
    pairs = sources_here(manifest)
    source = source_sha256(pairs)
    manifest["sources"] = manifest.get("sources", {}) | {source: pairs}
    attempt = {"started": _now(), "first_generation": len(run.rows), "keep_every": run.keep_every}
    attempt |= {"keep_samples": run.keep_samples, "world_size": world_size, **(how or {})}
    manifest["attempts"].append(attempt | {"source_sha256": source, **this_machine(device)})
    write_json(run.path / "manifest.json", sealed(manifest))


def measured_here(device: str) -> dict[str, Any]:
    """An attempt at measuring a run again: when, by what code, on what machine."""
    source = source_sha256(definitions(roots=("metrics.ImageMetrics",)))
    return {"started": _now(), "source_sha256": source, **this_machine(device)}


def sources_here(manifest: Mapping[str, Any]) -> list[Pair]:
    """The definitions in the code here that decide the numbers of the run of a manifest, see `source.of_run`."""
    return of_run(manifest["config"], **manifest.get("measured", {}))


def finish_attempt(run: Run, outcome: str, message: str, seconds: float) -> None:
    """Completes the last attempt in the manifest: how it ended ("complete", "stopped" or "failed"), the message of what
    ended it, the most memory that its process has held so far, and its wall time. An attempt that was killed has none
    of these."""
    import torch

    manifest = read_manifest(run.path)
    ending = {"ended": _now(), "outcome": outcome, "message": message, "seconds": seconds}
    manifest["attempts"][-1] |= ending | {"last_generation": len(run.rows) - 1, "peak_memory_bytes": peak_memory()}
    if torch.cuda.is_initialized():
        manifest["attempts"][-1]["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated()
    write_json(run.path / "manifest.json", sealed(manifest))


def add_reproduced(published: Path, again: Path, generations: int) -> None:
    """Adds to the manifest of ``published`` that the run in ``again`` came out the same, up to that generation.

    The code is recorded as far as ``published`` reaches it: what is only measured since is left out. Raises RunError if
    the code here is not the one that began ``again``.
    """
    found, manifest = read_manifest(again), read_manifest(published)
    attempt = found["attempts"][-1]
    if attempt["source_sha256"] != source_sha256(sources_here(found)):
        raise RunError(f"the code has changed since {again} was begun; remove it, and run the published run again")
    made_by = {key: attempt[key] for key in ("git", "python", "packages", "hardware")}
    manifest.setdefault("measured", found["measured"])  # that of earlier code does not have it
    source = source_sha256(sources_here(manifest))
    about = {"when": _now(), "generations": generations, "source_sha256": source}
    manifest.setdefault("reproduced", []).append(about | made_by)
    write_json(published / "manifest.json", sealed(manifest))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
