"""The loop's own share of a run: everything but fit, sample and metrics, writing the run directory included.

python benchmarks/loop_share.py
"""

import argparse
import tempfile
import time
from pathlib import Path

from iterative_retraining.experiment import open_experiment

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = {"n_images_initial": 18_000, "n_images_per_retraining": 18_000, "n_retrain": 3}
        experiment = open_experiment(run_dir=Path(folder) / "run", device="cpu", **arguments)
        start = time.perf_counter()
        records = list(experiment.records())
        total = time.perf_counter() - start
        experiment.run.close()
    stages = sum(r.seconds_fit + r.seconds_sample + r.seconds_metrics for r in records)
    print(
        f"{total:.2f} s in all, {total - stages:.3f} s outside fit, sample and metrics: {(total - stages) / total:.2%}"
    )
