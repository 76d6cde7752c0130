"""Images per second of EDM training on digits: our `fit` against a plain eager loop on the same network and data.

    python benchmarks/edm_training.py --threads 2 --batch-sizes 64 128 256

The plain loop is the textbook one: Adam and EMA parameter by parameter, default memory format. A test asserts that both
compute the same weights. They are timed in turn, and the ratio is taken pair by pair.
"""

import argparse
import time
from copy import deepcopy

import numpy as np
import torch

from iterative_retraining.datasets import load_dataset
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.fitting import shuffled_batches
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.seeding import stage_seed
from iterative_retraining.training_set import TrainingSet


def plain_training(model: NetworkModel, data: TrainingSet, *, seed: int, n_images: int) -> torch.nn.Module:
    """What ``model.fit`` computes as a refit, by the textbook loop; returns the EMA as a network."""
    shadow = NetworkModel(model.process, model.config)
    net = shadow.net = deepcopy(model.net).to(memory_format=torch.contiguous_format)
    for p in net.parameters():
        p.grad = None
    adam = torch.optim.Adam(net.parameters(), lr=model.config.learning_rate, foreach=False)
    ema, n_seen = deepcopy(net), 0
    net.train()
    rng = torch.Generator().manual_seed(stage_seed(seed, 0, "noise"))
    for index in shuffled_batches(len(data), n_images, model.config.batch_size, stage_seed(seed, 0, "order")):
        loss = shadow._loss(torch.from_numpy(data[index]), rng)
        adam.zero_grad()
        loss.backward()
        adam.step()
        n_seen += len(index)
        decay = model.config.ema_decay(len(index), n_seen, from_scratch=False)
        with torch.no_grad():
            for kept, p in zip(ema.parameters(), net.parameters(), strict=True):
                kept.mul_(decay).add_(p, alpha=1 - decay)
        loss.item()
    return ema


def measure(batch_size: int, n_images: int, repeats: int) -> tuple[float, float, np.ndarray]:
    """Median images/s of the plain loop and of `NetworkModel.fit`, and the ratio of each pair."""
    real, _ = load_dataset("digits")
    data, options = TrainingSet.of(real), resolve_options("edm", "digits", {"batch_size": batch_size})
    model = build_model("edm", real.shape[1:], options, n_images_initial=2048, n_images_per_retraining=n_images)
    model.fit(data, seed=0)
    plain_training(model, data, seed=0, n_images=1024)
    seconds = []
    for repeat in range(repeats):
        start = time.perf_counter()
        plain_training(model, data, seed=repeat, n_images=n_images)
        middle = time.perf_counter()
        model.fit(data, seed=repeat)
        seconds.append((middle - start, time.perf_counter() - middle))
    plain, ours = np.array(seconds).T
    return n_images / np.median(plain), n_images / np.median(ours), plain / ours


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print("| threads | batch | plain, img/s | ours, img/s | ratio: median (min to max) |\n|---|---|---|---|---|")
    for batch_size in arguments.batch_sizes:
        plain, ours, ratio = measure(batch_size, arguments.images, arguments.repeats)
        spread = f"{np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f})"
        print(f"| {arguments.threads} | {batch_size} | {plain:.0f} | {ours:.0f} | {spread} |", flush=True)
