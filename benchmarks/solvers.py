"""Solvers on one small network, and what sampling gains by the group norm by sums.

    python benchmarks/solvers.py --threads 1

An EDM is trained briefly on digits. Every solver takes the same latents through it; its error is the root mean square
difference from Heun's method in 200 steps, over all pixels and as the median over images. Gains are exact: what one
pass does to the standard deviation of Gaussian data with the exact score. Speed: whole sampling passes with torch's
group norm and with this package's, in turn, ratios pair by pair; and the norm alone by size.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from iterative_retraining.datasets import load_dataset
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.gain import evaluations, sampler_gain
from iterative_retraining.models.networks.ddpmpp import GroupNorm, UNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.training_set import TrainingSet

STDS = (0.05, 0.08, 0.2, 1.0)
TRUTH = EDM(n_steps=200)
NARROW = {"sigma_max": 20.0, "start_data_std": 0.54}
SAMPLERS = {
    "Heun 18, as published": EDM(),
    "Heun 64": EDM(n_steps=64),
    "DDIM 35": EDM(solver="ddim", n_steps=35),
    "DPM-Solver++(2M) 35": EDM(solver="dpmpp_2m", n_steps=35),
    "DPM-Solver++(3M) 20": EDM(solver="dpmpp_3m", n_steps=20),
    "DPM-Solver++(3M) 24": EDM(solver="dpmpp_3m", n_steps=24),
    "DPM-Solver++(3M) 35": EDM(solver="dpmpp_3m", n_steps=35),
    "DPM-Solver++(3M) 30, rho 10": EDM(solver="dpmpp_3m", n_steps=30, rho=10.0),
    "DPM-Solver++(3M) 20, from 20": EDM(solver="dpmpp_3m", n_steps=20, **NARROW),
    "DPM-Solver++(3M) 26, from 20": EDM(solver="dpmpp_3m", n_steps=26, **NARROW),
    "RK4 in time, 9 levels": EDM(solver="rk4", n_steps=9),
    "dopri5, tolerance 1e-3": EDM(solver="dopri5", tolerance=1e-3),
}
SIZES = [(512, 16, 8), (512, 32, 8), (512, 32, 4), (256, 64, 14), (128, 32, 28), (64, 128, 16), (64, 64, 32)]


def trained(n_images: int, seed: int) -> NetworkModel:
    """The default EDM for digits after ``n_images`` images."""
    real, _ = load_dataset("digits")
    options = resolve_options("edm", "digits", {})
    model = build_model("edm", real.shape[1:], options, n_images_initial=n_images, n_images_per_retraining=0)
    return model.fit(TrainingSet.of(real), seed=seed)


@torch.inference_mode()
def solver_table(model: NetworkModel, n_samples: int) -> None:
    """Prints evaluations, gains and errors of `SAMPLERS`."""
    draw, net = partial(model._noise, 1, range(n_samples)), model.net.eval()
    exact = TRUTH.sample(net, draw)
    print(
        f"| sampler | evaluations | gain at sd {', '.join(map(str, STDS))} | RMS error (median of images) | variance |"
    )
    print("|---|---|---|---|---|")
    for name, process in SAMPLERS.items():
        x = process.sample(net, draw)
        of_images = (x - exact).flatten(1).square().mean(dim=1)
        gains = ", ".join(f"{sampler_gain(process, std):.3f}" for std in STDS)
        errors = f"{of_images.mean().sqrt():.4f} ({of_images.sqrt().median():.4f})"
        print(f"| {name} | {evaluations(process) or 'adapts'} | {gains} | {errors} | {x.var():.4f} |", flush=True)
    print(f"| Heun 200, the truth | {evaluations(TRUTH)} | | 0 | {exact.var():.4f} |\n")


def pairs(slow: Callable[[], object], fast: Callable[[], object], repeats: int) -> tuple[float, float, np.ndarray]:
    """Median seconds of both, run in turn after one call each, and the ratio of each pair."""
    seconds = np.zeros((repeats + 1, 2))
    for row in seconds:
        for i, call in enumerate((slow, fast)):
            start = time.perf_counter()
            call()
            row[i] = time.perf_counter() - start
    of_slow, of_fast = seconds[1:].T
    return float(np.median(of_slow)), float(np.median(of_fast)), of_slow / of_fast


def with_torch_norm(call: Callable[[], np.ndarray]) -> np.ndarray:
    """``call`` with torch's own group norm in the networks of this package."""
    own = GroupNorm.forward
    GroupNorm.forward = nn.GroupNorm.forward
    try:
        return call()
    finally:
        GroupNorm.forward = own


def sampling_rows(models: dict[str, tuple[NetworkModel, int]], repeats: int) -> None:
    """Prints images a second with either norm, for models by name with how many images they sample."""
    print(
        "| sampling | torch's norm, img/s | by sums, img/s | ratio: median (min to max) | pixels that differ, of 255 |"
    )
    print("|---|---|---|---|---|")
    for name, (model, n) in models.items():
        call = partial(model.sample, n, seed=1)
        off = np.abs(with_torch_norm(call).astype(int) - call())
        slow, fast, ratio = pairs(partial(with_torch_norm, call), call, repeats)
        spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        changed = f"{(off > 0).mean():.1e}, at most by {off.max()}"
        print(f"| {name} | {n / slow:.1f} | {n / fast:.1f} | {spread} | {changed} |", flush=True)


@torch.inference_mode()
def norm_rows(repeats: int) -> None:
    """Prints the milliseconds of one group norm on channels_last memory, by both ways, whichever is in use."""
    print("\n| batch, channels, size | torch's, ms | by sums, ms | ratio |\n|---|---|---|---|")
    for batch, channels, size in SIZES:
        norm = GroupNorm(min(32, channels // 4), channels, eps=1e-6)
        x = torch.randn(batch, channels, size, size).to(memory_format=torch.channels_last)
        theirs: Callable[[], Tensor] = partial(nn.GroupNorm.forward, norm, x)
        slow, fast, ratio = pairs(theirs, partial(norm._by_sums, x), 5 * repeats)
        print(
            f"| {batch}, {channels}, {size} x {size} | {1e3 * slow:.2f} | {1e3 * fast:.2f} | {np.median(ratio):.2f} |"
        )


def main(given: argparse.Namespace) -> None:
    """Trains, then prints the three tables."""
    torch.set_num_threads(given.threads)
    digits = trained(given.images, seed=0)
    solver_table(digits, given.samples)
    shape = UNetConfig(channels=32, multipliers=(1, 2, 2), blocks_per_level=1, augment_labels=0)
    config = TrainingConfig(network=shape, n_images_initial=64, n_images_per_retraining=0, sampling_batch_size=32)
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    large = NetworkModel(EDM(n_steps=5), config).fit(TrainingSet.of(images), seed=0)
    digits.process = large.process
    rows = {"digits, batches of 512": (digits, 512), "32 x 32, 32 channels, batches of 32": (large, 32)}
    sampling_rows(rows, given.repeats)
    norm_rows(given.repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--images", type=int, default=20_000, help="of the training")
    parser.add_argument("--samples", type=int, default=128, help="images that each solver makes")
    parser.add_argument("--repeats", type=int, default=7)
    main(parser.parse_args())
