"""The memory of a training step: what is counted before it, and what a real step takes.

    python benchmarks/memory.py
    python benchmarks/memory.py --device cuda    # the published batches; the count has to hold within 10 %

On a CPU a batch of ``--batch`` images is really trained on, and what autograd keeps is counted with
`torch.autograd.graph.saved_tensors_hooks`. On a GPU it is the peak of torch's allocator at the batch of the presets.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.memory import training_bytes
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.training_set import TrainingSet

NETWORKS = {
    "CIFAR-10": (UNetConfig(), 0.12),
    "FFHQ-64": (UNetConfig(resolution=64, multipliers=(1, 2, 2, 2), dropout=0.05), 0.15),
}
PRECISIONS = ("float32", "bfloat16")
BATCH = 256  # of the presets


def configured(name: str, precision: str, batch: int) -> TrainingConfig:
    """The training of a preset."""
    network, augmented = NETWORKS[name]
    budgets = {"n_images_initial": batch, "n_images_per_retraining": batch}
    return TrainingConfig(
        network=network, batch_size=batch, augment_probability=augmented, precision=precision, **budgets
    )


def kept_bytes(config: TrainingConfig) -> int:
    """What autograd keeps for the backward pass of a real batch on the CPU, without the weights."""
    model, kept = NetworkModel(EDM(), config), {}
    model._new_network(0)
    own = {p.untyped_storage().data_ptr() for p in model.net.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    size = config.network.resolution
    images = torch.zeros((config.batch_size, size, size, config.network.colours), dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model._loss(images, torch.Generator().manual_seed(0))
    del loss
    return sum(kept.values())


def on_cpu(batch: int) -> None:
    """Prints what autograd keeps for ``batch`` more images, and what is counted at the batch of the presets."""
    print(
        f"| network | precision | kept for backward, MB an image | counted, MB an image | "
        f"counted at {BATCH}, GB | at {BATCH // 2} | at {BATCH // 4} |\n|---|---|---|---|---|---|---|"
    )
    for name in NETWORKS:
        for precision in PRECISIONS:
            config = configured(name, precision, BATCH)
            # by two batches: under autocast copies of the weights are kept too, once
            kept = kept_bytes(replace(config, batch_size=2 * batch)) - kept_bytes(replace(config, batch_size=batch))
            at = [training_bytes(EDM(), config, n) for n in (BATCH, BATCH // 2, BATCH // 4)]
            cells = [kept / batch / 1e6, (at[0] - at[1]) / (BATCH - BATCH // 2) / 1e6, *(n / 1e9 for n in at)]
            print(f"| {name} | {precision} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


def on_gpu(device: str) -> None:
    """Prints the peak of the allocator over two steps in pieces of several sizes, beside what is counted."""
    print(
        "| network | precision | images at once | peak, GB | counted, GB | counted / peak |\n|---|---|---|---|---|---|"
    )
    for name in NETWORKS:
        for precision in PRECISIONS:
            config = configured(name, precision, BATCH)
            for n in (32, 64, 128):
                model = NetworkModel(EDM(), replace(config, n_images_initial=2 * BATCH), device)
                model.split_batches(n)
                size = config.network.resolution
                images = np.zeros((BATCH, size, size, 3), np.uint8)
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
                model.fit(TrainingSet.of(images), seed=0)
                peak, counted = torch.cuda.max_memory_allocated(device), training_bytes(EDM(), config, n)
                numbers = f"{n} | {peak / 1e9:.1f} | {counted / 1e9:.1f} | {counted / peak:.2f}"
                print(f"| {name} | {precision} | {numbers} |", flush=True)
                del model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=1, help="images of the real step on a CPU, and twice as many")
    given = parser.parse_args()
    if given.device == "cpu":
        on_cpu(given.batch)
    else:
        on_gpu(given.device)
