"""EDM against its reference implementation, training and sampling: the same network, in one run.

    git clone https://github.com/NVlabs/edm    # licensed for non-commercial use; no part of this package
    python benchmarks/edm_reference.py --reference edm
    python benchmarks/edm_reference.py --reference edm --device cuda --network cifar10 --batch 256 --images 5120

The first is for a CPU, the second for a GPU, with the published network. Both loops train for the same number of images
in turn, and ratios are taken pair by pair. The reference's loop is what its training script does at every step (its
loss, its network, Adam, its repair of gradients, an EMA parameter by parameter), without its wrapper for several GPUs
and without augmentation, which the two do differently. Before anything is timed, the outputs of both networks are
compared.
"""

import argparse
import copy
import itertools
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig, shuffled_batches
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.pretrained import load_edm_pickle
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.studies.report.costs import forward_flops
from iterative_retraining.training_set import TrainingSet

NETWORKS = {
    "small": UNetConfig(channels=32, multipliers=(1, 2, 2), blocks_per_level=1, augment_labels=0),
    "cifar10": UNetConfig(augment_labels=0),
    "ffhq64": UNetConfig(resolution=64, multipliers=(1, 2, 2, 2), dropout=0.05, augment_labels=0),
}
VARIANTS = {  # of this package: options of `TrainingConfig`
    "float32": {},
    "float32, compiled": {"compile": True},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}


class Reference:
    """The reference's network, loss and sampler, from a clone of its repository."""

    def __init__(self, folder: Path, network: UNetConfig, device: str, fp16: bool) -> None:
        sys.path.insert(0, str(folder))
        from generate import edm_sampler
        from training.loss import EDMLoss
        from training.networks import EDMPrecond

        self.sampler, self.loss, self.device = edm_sampler, EDMLoss(), device
        torch.manual_seed(0)
        self.net = EDMPrecond(
            network.resolution, network.colours, use_fp16=fp16, model_type="SongUNet",
            model_channels=network.channels, channel_mult=list(network.multipliers), dropout=network.dropout,
            num_blocks=network.blocks_per_level, attn_resolutions=list(network.attention_resolutions),
        ).to(device)  # fmt: skip

    def train(self, images: np.ndarray, n_images: int, batch_size: int) -> None:
        """Trains on uint8 ``images`` (N, H, W, C) as the reference's script does."""
        net, loader = self.net.train(), torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        ema, adam = copy.deepcopy(net).requires_grad_(False), torch.optim.Adam(net.parameters(), lr=1e-3)
        for index in shuffled_batches(len(images), n_images, batch_size, 0):
            x = loader[index].to(self.device).float() / 127.5 - 1
            adam.zero_grad(set_to_none=True)
            self.loss(net, x).sum().mul(1 / len(index)).backward()
            for p in net.parameters():
                torch.nan_to_num(p.grad, nan=0, posinf=1e5, neginf=-1e5, out=p.grad)
            adam.step()
            for kept, p in zip(ema.parameters(), net.parameters(), strict=True):
                kept.copy_(p.detach().lerp(kept, 0.999))

    @torch.no_grad()
    def sample(self, n: int) -> None:
        """Samples one batch with 18 steps."""
        net = self.net.eval()
        noise = torch.randn(n, net.img_channels, net.img_resolution, net.img_resolution, device=self.device)
        self.sampler(net, noise)


def ours(network: UNetConfig, given: argparse.Namespace, options: Mapping[str, Any]) -> NetworkModel:
    """A model of this package, not fitted yet."""
    budgets = {"n_images_initial": given.batch, "n_images_per_retraining": given.images}
    sizes = {"batch_size": given.batch, "sampling_batch_size": given.samples}
    return NetworkModel(EDM(), TrainingConfig(network=network, **budgets, **sizes, **options), given.device)


@torch.no_grad()
def compare(reference: Reference) -> float:
    """The largest difference of the outputs of both networks, relative to their spread, from one file of weights.

    The reference writes the file, random weights made larger than a fresh network's, and `load_edm_pickle` reads it.
    """
    net, rng = copy.deepcopy(reference.net).cpu().eval(), torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.add_(0.02 * torch.randn(p.shape, generator=rng))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pkl"
        path.write_bytes(pickle.dumps({"ema": net}))
        loaded = load_edm_pickle(path)
    x = torch.randn(4, net.img_channels, net.img_resolution, net.img_resolution, generator=rng)
    sigma = torch.tensor([0.01, 0.3, 2.0, 50.0])
    theirs = net(x * sigma.view(-1, 1, 1, 1), sigma)
    return ((loaded(x * sigma.view(-1, 1, 1, 1), sigma) - theirs).abs().max() / theirs.std()).item()


def seconds(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall seconds of ``call``, and the peak memory of the GPU in GB meanwhile (NaN on a CPU)."""
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    call()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() / 1e9 if gpu else float("nan")


def rows(
    title: str, peer: str, calls: Mapping[str, Callable[[], object]], n: int, given: argparse.Namespace, flop: int
) -> None:
    """Times the calls in turn, prints a table: images/s, the ratio to ``peer`` pair by pair, memory, utilisation."""
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        print(f"{title}, {name}: first time {time.perf_counter() - start:.1f} s (compilation, caches)", flush=True)
    taken = {name: [] for name in calls}
    for _, (name, call) in itertools.product(range(given.repeats), calls.items()):
        taken[name].append(seconds(call, given.device))
    print(f"\n| {title} | images / s | ratio to {peer}: median (min to max) | peak memory, GB | of peak FLOP/s |")
    print("|---|---|---|---|---|")
    for name, pairs in taken.items():
        wall, memory = np.array(pairs).T
        ratio = np.array(taken[peer])[:, 0] / wall
        used = f"{100 * flop * n / np.median(wall) / given.peak_flops:.1f} %" if given.peak_flops else ""
        print(
            f"| {name} | {n / np.median(wall):.1f} | {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}) "
            f"| {memory.max():.2f} | {used} |",
            flush=True,
        )


def main(given: argparse.Namespace) -> None:
    """Compares, then times training and sampling."""
    if given.threads:
        torch.set_num_threads(given.threads)
    network, peer = NETWORKS[given.network], "reference, float32"
    references = {peer: Reference(given.reference, network, given.device, fp16=False)}
    if given.device.startswith("cuda"):
        references["reference, float16"] = Reference(given.reference, network, given.device, fp16=True)
    print(f"outputs differ by {compare(references[peer]):.1e} of their spread")
    size = network.resolution
    images = np.random.default_rng(0).integers(0, 256, (2048, size, size, network.colours), dtype=np.uint8)
    data, forward = TrainingSet.of(images), forward_flops(network)
    models = {name: ours(network, given, VARIANTS[name]) for name in given.variants}
    for model in models.values():
        model.fit(data, seed=0)
    training = {name: partial(r.train, images, given.images, given.batch) for name, r in references.items()}
    training |= {f"this package, {name}": partial(m.fit, data, seed=1) for name, m in models.items()}
    rows("training", peer, training, given.images, given, 3 * forward)
    sampling = {name: partial(r.sample, given.samples) for name, r in references.items()}
    sampling |= {f"this package, {name}": partial(m.sample, given.samples, seed=1) for name, m in models.items()}
    rows("sampling, 18 steps", peer, sampling, given.samples, given, 35 * forward)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a clone of github.com/NVlabs/edm")
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=512, help="images of one timed training")
    parser.add_argument("--samples", type=int, default=64, help="images of one timed sampling, a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument(
        "--peak-flops", type=float, default=0.0, help="of the device, e.g. 989e12: prints the share used"
    )
    main(parser.parse_args())
