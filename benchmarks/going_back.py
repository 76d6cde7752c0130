"""Going back from a retraining on own samples (Neon, arXiv 2510.03597): does theta_0 - w (theta_1 - theta_0) help?

    python benchmarks/going_back.py runs/digits_edm/digits-edm-fully_synthetic-seed*

Of each run directory theta_0 and its last weights theta_1 are taken; w = 0 is theta_0 and -1 is theta_1. The held-out
images are halved: w is the one of least FID against the first half, and is judged by FID against the second half and
against the training images. With several runs: the mean of what it gains on w = 0, with its 95 % t-interval.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iterative_retraining import build_features, build_model, load_dataset
from iterative_retraining.metrics.fid import FID
from iterative_retraining.models.going_back import going_back
from iterative_retraining.runs.directory import read_config, read_ledger, read_state
from iterative_retraining.runs.reading import check_file
from iterative_retraining.seeding import generator, stage_seed
from iterative_retraining.studies.report.comparisons import interval

WEIGHTS = (-1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 1.0)
SETS = ("first half of the held-out", "second half of the held-out", "training")


def fids(path: Path, weights: Sequence[float], n_samples: int) -> np.ndarray:
    """FID of every weight against each of SETS, (len(weights), 3), from the same latents. Raises RunError."""
    from safetensors.numpy import load_file

    identity, rows = read_config(path)["identity"], read_ledger(path)
    start, retrained = load_file(check_file(path, "checkpoint", rows[0])), read_state(path)
    train, _ = load_dataset(identity["dataset"])
    test, _ = load_dataset(identity["dataset"], split="test")
    order = generator(0).permutation(len(test))
    space = build_features("auto", identity["dataset"])
    real = [space(images) for images in (test[order[::2]], test[order[1::2]], train)]
    model = build_model(identity["model"], train.shape[1:], identity["options"])
    found = []
    for weight in weights:
        model.load_state_dict(going_back(start, retrained, weight))
        features = space(model.sample(n_samples, seed=stage_seed(identity["seed"], 0, "going back")))
        found.append([FID()(features, real=own)["fid"] for own in real])
        print(f"{path.name}, w = {weight:g}: " + ", ".join(f"{f:.4f}" for f in found[-1]), flush=True)
    return np.array(found)


def gains(table: np.ndarray, weights: Sequence[float]) -> tuple[float, np.ndarray]:
    """The weight with the least FID against the first set, and what it gains on w = 0 against the others, (2,)."""
    best = int(np.argmin(table[:, 0]))
    return weights[best], table[list(weights).index(0.0), 1:] - table[best, 1:]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run directories of a network, retrained at least once")
    parser.add_argument("--weights", nargs="+", type=float, default=WEIGHTS, metavar="W", help="0 is added")
    parser.add_argument("--samples", type=int, default=1500)
    given = parser.parse_args()
    weights = sorted({0.0, *given.weights})
    print(f"FID against: {', '.join(SETS)}")
    found = [gains(fids(path, weights, given.samples), weights) for path in given.runs]
    for path, (weight, gained) in zip(given.runs, found, strict=True):
        print(f"{path.name}: w = {weight:g}, gains {gained[0]:+.4f} held out, {gained[1]:+.4f} training")
    for k, name in enumerate(SETS[1:]):
        values = np.array([gained[k] for _, gained in found])
        print(f"gain against {name}: {interval(values, 4)} over {len(values)} run(s)")


if __name__ == "__main__":
    main()
