"""What a run gains on a CPU where glibc keeps large blocks of memory, as the Snakefile has it, or returns them.

    python benchmarks/allocator.py --pairs 3

Each measurement is a process of its own, since glibc reads MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ once:
EDM with the options of digits is trained and sampled, first plain, then kept, ratios pair by pair. All have to draw the
same samples.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

KEPT = {f"MALLOC_{what}_THRESHOLD_": str(2**30) for what in ("MMAP", "TRIM")}  # as in the Snakefile


def model_of_digits(n_images: int, threads: int) -> tuple[Any, Any]:
    """EDM with the options of digits, fitted and sampled for a moment, whose next fit takes ``n_images``; its data."""
    import torch

    from iterative_retraining.datasets import load_dataset
    from iterative_retraining.models import build_model, resolve_options
    from iterative_retraining.training_set import TrainingSet

    torch.set_num_threads(threads)
    real, _ = load_dataset("digits")
    budgets = {"n_images_initial": 512, "n_images_per_retraining": n_images}
    model = build_model("edm", real.shape[1:], resolve_options("edm", "digits", {}), **budgets)
    data = TrainingSet.of(real)
    model.fit(data, seed=0).sample(64, seed=0)
    return model, data


def print_ratios(names: tuple[str, str], speeds: np.ndarray) -> None:
    """A Markdown table of two ways called ``names``: ``speeds`` of them (pairs, way, training or sampling), and their
    ratios, the second over the first, pair by pair."""
    print(f"| digits, EDM | {', a second | '.join(names)}, a second | ratio: median (min to max) |")
    print("|---|---|---|---|")
    for name, (first, second) in zip(("training", "sampling"), speeds.transpose(2, 1, 0), strict=True):
        ratio = second / first
        spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        print(f"| {name} | {np.median(first):.0f} | {np.median(second):.0f} | {spread} |")


def measure(n_images: int, n_samples: int, threads: int) -> tuple[str, tuple[float, float]]:
    """The SHA-256 of the samples, and images a second in training and samples a second, after one short fit and one
    batch that are not counted.

    With one thread in the processor's seconds, so that other work on the machine counts less.
    """
    from iterative_retraining.files import data_sha256

    model, data = model_of_digits(n_images, threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    model.fit(data, seed=1)
    between = clock()
    samples = model.sample(n_samples, seed=1)
    return data_sha256(samples), (n_images / (between - start), n_samples / (clock() - between))


def in_a_process(arguments: list[str], kept: bool) -> tuple[str, list[float]]:
    """`measure` in a new process, with or without kept memory."""
    plain = {name: value for name, value in os.environ.items() if name not in KEPT}
    command = [sys.executable, __file__, "--measure", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain | (KEPT if kept else {}))
    digest, speeds = done.stdout.splitlines()[-2:]
    return digest, json.loads(speeds)


def main(given: argparse.Namespace) -> None:
    """Prints a row for training and one for sampling. Raises RuntimeError if not all samples are the same."""
    arguments = ["--images", str(given.images), "--samples", str(given.samples), "--threads", str(given.threads)]
    pairs = [[in_a_process(arguments, kept) for kept in (False, True)] for _ in range(given.pairs)]
    if len({digest for pair in pairs for digest, _ in pair}) != 1:
        raise RuntimeError("the samples of plain and kept memory differ")
    print_ratios(("plain", "kept"), np.array([[found for _, found in pair] for pair in pairs]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--images", type=int, default=20_000, help="of the training")
    parser.add_argument("--samples", type=int, default=1_024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="one measurement, as JSON")
    given = parser.parse_args()
    if given.measure:
        digest, speeds = measure(given.images, given.samples, given.threads)
        print(f"{digest}\n{json.dumps(speeds)}")
    else:
        main(given)
