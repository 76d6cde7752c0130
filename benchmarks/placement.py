"""Two cores and many small runs: one run a core at a time, or one after another with both cores each?

    python benchmarks/placement.py --rounds 3

EDM with the options of digits is trained and sampled in one process of two threads, then in two processes of one
thread at once, ratios round by round. Wall times, so nothing else may run. The Snakefile gives a run one core.
"""

import argparse
import multiprocessing
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

import numpy as np

from allocator import model_of_digits, print_ratios


def work(threads: int, n_images: int, n_samples: int, begin: Barrier, found: Queue) -> None:
    """Puts images a second in training and samples a second; begins with the others, after a short fit."""
    model, data = model_of_digits(n_images, threads)
    begin.wait()
    start = time.perf_counter()
    model.fit(data, seed=1)
    begin.wait()
    trained = time.perf_counter()
    model.sample(n_samples, seed=1)
    begin.wait()
    found.put((n_images / (trained - start), n_samples / (time.perf_counter() - trained)))


def speeds(processes: int, threads: int, n_images: int, n_samples: int) -> np.ndarray:
    """Images a second in training and samples a second, of all ``processes`` together."""
    context = multiprocessing.get_context("spawn")
    begin, found = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=work, args=(threads, n_images, n_samples, begin, found)) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    rows = [found.get(timeout=3600) for _ in workers]
    for worker in workers:
        worker.join()
    return np.sum(rows, axis=0)


def main(given: argparse.Namespace) -> None:
    """Prints a row for training and one for sampling."""
    ways = ((1, given.cores), (given.cores, 1))
    rounds = [[speeds(*way, given.images, given.samples) for way in ways] for _ in range(given.rounds)]
    print_ratios((f"{given.cores} threads a run", "a run a core"), np.array(rounds))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--images", type=int, default=20_000, help="of the training")
    parser.add_argument("--samples", type=int, default=1_024)
    main(parser.parse_args())
