"""Metrics against their known implementations: seconds, peak memory and values, each in a process of its own.

python benchmarks/metrics.py [--threads 2] [--large]

--large: instead, this package alone at 50 000 x 2048 (a quarter of an hour on two cores).
"""

import argparse
import contextlib
import io
import multiprocessing
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch


def features(n: int, dim: int, scale: float, seed: int) -> np.ndarray:
    """Correlated Gaussian features, float32 (n, dim)."""
    mixing = np.random.default_rng(9).normal(size=(dim, dim)).astype(np.float32) / np.sqrt(dim)
    x = np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
    return scale * (x @ mixing + x)


def pair(n: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    return features(n, dim, 1.05, 0), features(n, dim, 1.0, 1)


def statistics(n: int, dim: int) -> tuple[np.ndarray, ...]:
    return tuple(
        part for x in pair(n, dim) for part in (x.mean(axis=0, dtype=np.float64), np.cov(x.astype(np.float64).T))
    )


def frechet_here(*stats: np.ndarray) -> float:
    from iterative_retraining.metrics.fid import frechet_distance

    return frechet_distance(*stats)


def frechet_cleanfid(*stats: np.ndarray) -> float:
    from cleanfid.fid import frechet_distance

    return frechet_distance(*stats)


def frechet_pytorch_fid(*stats: np.ndarray) -> float:
    from pytorch_fid.fid_score import calculate_frechet_distance

    return calculate_frechet_distance(*stats)


def frechet_torch_fidelity(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    first, second = {"mu": mean1, "sigma": cov1}, {"mu": mean2, "sigma": cov2}
    return fid_statistics_to_metric(first, second, False)["frechet_inception_distance"]


def neighbours_here(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from iterative_retraining.metrics import compare

    names = ["precision_recall", "density_coverage", "memorisation"]
    return dict(compare(a, real=b, names=names, k=3, k_density=3))


def precision_recall_here(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from iterative_retraining.metrics import compare

    return dict(compare(a, real=b, names=["precision_recall"]))


def neighbours_prdc(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from prdc import compute_prdc

    return {name: float(value) for name, value in compute_prdc(b, a, nearest_k=3).items()}


def precision_recall_torch_fidelity(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from torch_fidelity.metric_prc import prc_features_to_metric

    found = prc_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), verbose=False)
    return {name: found[name] for name in ("precision", "recall")}


def fid_large(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from iterative_retraining.metrics import compare

    return dict(compare(a, real=b, names=["fid"]))


def kid_large(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    from iterative_retraining.metrics import compare

    return dict(compare(a, real=b, names=["kid"]))


def two_iterations_of_fld(a: np.ndarray, b: np.ndarray) -> float:
    """10 000 Gaussians on generated points, fitted to all real ones: two of at most 100 iterations."""
    from iterative_retraining.metrics.likelihood import fit_mixture
    from iterative_retraining.metrics.pairs import Rows

    return fit_mixture(Rows(a[:10_000])[:], Rows(b), n_iterations=2).log_variances.mean().item()


def peak_mb() -> float:
    """Peak resident memory of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(call: Callable, make: Callable, shape: tuple[int, int], threads: int) -> tuple[float, float, object]:
    """Seconds, peak MB above the inputs, and the value. Runs in a process of its own."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    inputs = make(*shape)
    with contextlib.redirect_stdout(io.StringIO()):
        call(*make(200, 16))  # imports and start-up are not measured
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from what is in use
    before = peak_mb()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        value = call(*inputs)
    return time.perf_counter() - start, peak_mb() - before, value


def table(title: str, calls: dict[str, Callable], make: Callable, shape: tuple[int, int], threads: int, n: int) -> None:
    """Times every call ``n`` times, alternating, and prints medians and the ratio to the first one."""
    print(f"\n{title}, {threads} thread(s), median of {n}\n")
    print("| | seconds | ratio | MB above the inputs | value |\n|---|---|---|---|---|")
    found: dict[str, list] = {name: [] for name in calls}
    for _ in range(n):
        for name, call in calls.items():
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                found[name].append(process.submit(measure, call, make, shape, threads).result())
    first = np.median([row[0] for row in next(iter(found.values()))])
    for name, rows in found.items():
        seconds, memory = (np.median([row[i] for row in rows]) for i in (0, 1))
        value = rows[0][2]
        shown = f"{value:.8g}" if isinstance(value, float) else ", ".join(f"{k} {v:.6f}" for k, v in value.items())
        print(f"| {name} | {seconds:.2f} | {seconds / first:.1f} | {memory:.0f} | {shown} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    if options.large:
        calls = {"FID": fid_large, "six of neighbours": neighbours_here, "KID": kid_large}
        calls["FLD, two iterations"] = two_iterations_of_fld
        table("This package at 50 000 x 2048", calls, pair, (50_000, 2048), options.threads, 1)
        raise SystemExit
    peers = {
        "this package": frechet_here,
        "clean-fid (sqrtm)": frechet_cleanfid,
        "pytorch-fid (sqrtm)": frechet_pytorch_fid,
        "torch-fidelity": frechet_torch_fidelity,
    }
    table("Frechet distance at 2048 dimensions", peers, statistics, (6000, 2048), options.threads, options.repeat)
    peers = {
        "this package, all six": neighbours_here,
        "this package, two": precision_recall_here,
        "prdc, all four": neighbours_prdc,
        "torch-fidelity, two": precision_recall_torch_fidelity,
    }
    table("Nearest neighbours at 20 000 x 512", peers, pair, (20_000, 512), options.threads, options.repeat)
