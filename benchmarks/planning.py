"""How long Snakemake takes to plan a sweep of 10 000 runs, of which none is there yet.

python benchmarks/planning.py [--seeds 2000]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "workflow"))


def large_profile(n_seeds: int) -> dict:
    """A sweep of five arms a seed, theta_0 beside them."""
    arms = [{"scheme": "fully_synthetic"}, {"scheme": "mix", "lam": [0.0, 0.1, 0.5, 1.0]}]
    run = {"dataset": "digits", "model": "gaussian", "n_retrain": 2}
    return {"description": "large", "seeds": list(range(n_seeds)), "run": run, "arms": arms}


def copy_project(folder: Path) -> None:
    """What Snakemake needs to plan, without any run."""
    for name in ("book", "notebooks", "profiles", "workflow"):
        ignore = shutil.ignore_patterns("_build", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    for name in ("Snakefile", "_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder / name)


def seconds_to_plan(folder: Path) -> tuple[float, str]:
    """Wall seconds of a dry run, and the line of its table that counts the runs. Raises RuntimeError if it fails."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "snakemake", "-n", "sweep", "--config", "profile=large"]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return seconds, next(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("run "))


if __name__ == "__main__":
    from profiles import load_profile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="five arms each")
    n_seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder)
        path = folder / "profiles" / "large.yml"
        path.write_text(yaml.safe_dump(large_profile(n_seeds)))
        start = time.perf_counter()
        profile = load_profile(path)
        print(f"load_profile: {time.perf_counter() - start:.1f} s for {len(profile.runs)} runs")
        seconds, counted = seconds_to_plan(folder)
        print(f"snakemake -n sweep: {seconds:.1f} s; it counts: {' '.join(counted.split())}")
