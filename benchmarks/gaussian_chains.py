"""Fully synthetic Gaussian chains: sufficient statistics from their distribution against a loop that draws all samples.

    python benchmarks/gaussian_chains.py

The peers draw n samples per chain and generation, chain by chain or all chains at once; they are timed on fewer chains
or generations and scaled up, which is exact for loops whose steps cost the same.
"""

import argparse
import time

import numpy as np

from iterative_retraining.studies.theory.gaussian_chains import simulate_std


def loop_over_chains(n: int, generations: int, n_chains: int) -> np.ndarray:
    """Per-sample simulation, chain by chain: sample n points, take mean and unbiased variance, repeat."""
    rng, last = np.random.default_rng(0), np.empty(n_chains)
    for chain in range(n_chains):
        mean, std = 0.0, 1.0
        for _ in range(generations):
            x = mean + std * rng.standard_normal(n)
            mean, std = x.mean(), x.std(ddof=1)
        last[chain] = std
    return last


def vectorised_samples(n: int, generations: int, n_chains: int) -> np.ndarray:
    """Per-sample simulation of all chains at once."""
    rng = np.random.default_rng(0)
    mean, std = np.zeros(n_chains), np.ones(n_chains)
    for _ in range(generations):
        x = mean + std * rng.standard_normal((n, n_chains))
        mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
    return std


def seconds(function, *arguments, **keywords) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    function(*arguments, **keywords)
    return time.perf_counter() - start


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    n, generations, n_chains = 100, 1000, 10_000
    simulate_std(n, 10, n_chains, seed=0)
    exact = min(seconds(simulate_std, n, generations, n_chains, seed=0) for _ in range(3))
    loop = seconds(loop_over_chains, n, generations, 50) * n_chains / 50
    vectorised = seconds(vectorised_samples, n, 20, n_chains) * generations / 20
    print(f"n = {n}, {n_chains} chains, {generations} generations")
    print("| | seconds | ratio |\n|---|---|---|")
    print(f"| sufficient statistics | {exact:.2f} | 1 |")
    print(f"| NumPy loop over chains, every sample drawn (from 50 chains) | {loop:.0f} | {loop / exact:.0f} |")
    print(f"| all chains at once, samples drawn (from 20 generations) | {vectorised:.0f} | {vectorised / exact:.0f} |")
