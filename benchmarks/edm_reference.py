"""EDM against its reference implementation, training and sampling: the same network, in one run.

    git clone https://github.com/NVlabs/edm    # licensed for non-commercial use; no part of this package
    python benchmarks/edm_reference.py --reference edm --network digits --threads 1 --variants float32 \\
        --peak-flops 90e9
    python benchmarks/edm_reference.py --reference edm --threads 1 --variants float32 --peak-flops 90e9 --batch 64 \\
        --images 128 --samples 8
    python benchmarks/edm_reference.py --reference edm --device cuda --network cifar10 --batch 256 --images 5120 \\
        --samples 512 --peak-flops 989e12

The last is for a GPU, with the published network. Both loops train for the same number of images in turn, and ratios
are taken pair by pair. The reference's loop is what its training script does at every step (its loss, its network,
Adam, its repair of gradients, an EMA parameter by parameter), without its wrapper for several GPUs and without
augmentation, which the two do differently. Before anything is timed, the reference trains for a moment and writes its
weights as it does; this package reads them, the outputs of both networks are compared, and every sampler runs on these
weights from the same latents. Its error is the root mean square difference from the reference's sampler in 200 steps.
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

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.datasets import load_dataset
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig, shuffled_batches
from iterative_retraining.models.gain import evaluations
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.pretrained import PretrainedEDM, load_edm_pickle
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.studies.report.costs import forward_flops
from iterative_retraining.training_set import TrainingSet

NETWORKS = {  # and images of that size which ship inside scikit-learn
    "digits": (
        UNetConfig(
            resolution=8, colours=1, channels=16, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
            augment_labels=0,
        ),
        "digits",
    ),
    "small": (UNetConfig(channels=32, multipliers=(1, 2, 2), blocks_per_level=1, augment_labels=0), "photos32"),
    "cifar10": (UNetConfig(augment_labels=0), "photos32"),
    "ffhq64": (UNetConfig(resolution=64, multipliers=(1, 2, 2, 2), dropout=0.05, augment_labels=0), "photos64"),
}  # fmt: skip
GRAPHS = ", graphs"  # at the end of a name: replayed as CUDA graphs, which a CPU does not do
VARIANTS = {  # of this package: options of `TrainingConfig`
    "float32": {},
    "float32, compiled": {"compile": True},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, compiled": {"precision": "bfloat16", "compile": True},
}
VARIANTS |= {name + GRAPHS: options for name, options in VARIANTS.items()}
SAMPLERS = {
    "Heun 18": EDM(),
    "third order 30, rho 10": EDM(solver="dpmpp_3m", n_steps=30, rho=10.0),  # the default of digits
    "third order 24": EDM(solver="dpmpp_3m", n_steps=24),
    "third order 18": EDM(solver="dpmpp_3m", n_steps=18),
}
PEER = "reference, float32"


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

    def weights(self) -> PretrainedEDM:
        """The network as this package reads it from a file that the reference writes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.pkl"
            path.write_bytes(pickle.dumps({"ema": copy.deepcopy(self.net).cpu().eval()}))
            return load_edm_pickle(path)


def ours(network: UNetConfig, given: argparse.Namespace, process: EDM, variant: str) -> NetworkModel:
    """A model of this package, not fitted yet."""
    budgets = {"n_images_initial": given.batch, "n_images_per_retraining": given.images}
    sizes = {"batch_size": given.batch, "sampling_batch_size": given.samples}
    config = TrainingConfig(network=network, **budgets, **sizes, **VARIANTS[variant])
    model = NetworkModel(process, config, given.device)
    if variant.endswith(GRAPHS):
        model.replay_graphs()
    return model


@torch.no_grad()
def compare(reference: Reference, loaded: PretrainedEDM) -> float:
    """The largest difference of the outputs of both networks, relative to their spread."""
    net, rng = copy.deepcopy(reference.net).cpu().eval(), torch.Generator().manual_seed(0)
    x = torch.randn(4, net.img_channels, net.img_resolution, net.img_resolution, generator=rng)
    sigma = torch.tensor([0.01, 0.3, 2.0, 50.0])
    theirs = net(x * sigma.view(-1, 1, 1, 1), sigma)
    return ((loaded(x * sigma.view(-1, 1, 1, 1), sigma) - theirs).abs().max() / theirs.std()).item()


@torch.no_grad()
def errors(reference: Reference, models: Mapping[str, NetworkModel], n: int) -> dict[str, str]:
    """By sampler, on equal weights and ``n`` equal latents: root mean square error, and its median over images."""
    net = reference.net.eval()
    draw = partial(next(iter(models.values()))._noise, 1, range(n))
    exact = reference.sampler(net, draw(0), num_steps=200)

    def error(x: Tensor) -> str:
        of_images = (x - exact).flatten(1).square().mean(dim=1)
        return f"{of_images.mean().sqrt():.4f} ({of_images.sqrt().median():.4f})"

    found = {PEER: error(reference.sampler(net, draw(0)))}
    return found | {name: error(model.process.sample(model.net.eval(), draw)) for name, model in models.items()}


def seconds(call: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds of ``call``, and the peak memory of the GPU in GB meanwhile (NaN on a CPU).

    With one thread on a CPU they are the processor's, so that other work on the machine counts less.
    """
    gpu = device.startswith("cuda")
    clock = time.perf_counter if gpu or torch.get_num_threads() > 1 else time.process_time
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = clock()
    call()
    if gpu:
        torch.cuda.synchronize()
    return clock() - start, torch.cuda.max_memory_allocated() / 1e9 if gpu else float("nan")


def rows(
    title: str,
    calls: Mapping[str, tuple[Callable[[], object], float]],
    n: int,
    given: argparse.Namespace,
    of_error: Mapping[str, str],
) -> None:
    """Times the calls in turn, prints a table: images/s, the ratio to `PEER` pair by pair, error, memory, utilisation.

    calls: by name, with the operations that an image takes.
    """
    for name, (call, _) in calls.items():
        start = time.perf_counter()
        call()
        print(f"{title}, {name}: first time {time.perf_counter() - start:.1f} s (compilation, caches)", flush=True)
    taken = {name: [] for name in calls}
    for _, (name, (call, _)) in itertools.product(range(given.repeats), calls.items()):
        taken[name].append(seconds(call, given.device))
    print(
        f"\n| {title} | images / s | ratio to {PEER}: median (min to max) | error | peak memory, GB | of peak FLOP/s |"
    )
    print("|---|---|---|---|---|---|")
    for name, pairs in taken.items():
        wall, memory = np.array(pairs).T
        ratio = np.array(taken[PEER])[:, 0] / wall
        used = f"{100 * calls[name][1] * n / np.median(wall) / given.peak_flops:.0f} %" if given.peak_flops else ""
        print(
            f"| {name} | {n / np.median(wall):.1f} | {np.median(ratio):.2f} ({ratio.min():.2f} to {ratio.max():.2f}) "
            f"| {of_error.get(name, '')} | {memory.max():.2f} | {used} |",
            flush=True,
        )


def main(given: argparse.Namespace) -> None:
    """Compares, then times training and sampling."""
    if given.threads:
        torch.set_num_threads(given.threads)
    network, dataset = NETWORKS[given.network]
    images = np.ascontiguousarray(load_dataset(dataset)[0])
    references = {PEER: Reference(given.reference, network, given.device, fp16=False)}
    references[PEER].train(images, given.train, given.batch)
    loaded = references[PEER].weights()
    print(f"outputs differ by {compare(references[PEER], loaded):.1e} of their spread")
    if given.device.startswith("cuda"):
        references["reference, float16"] = Reference(given.reference, network, given.device, fp16=True)
    data, forward = TrainingSet.of(images), forward_flops(network)
    training, sampling, exact = {}, {}, {}
    for name, reference in references.items():
        training[name] = partial(reference.train, images, given.images, given.batch), 3 * forward
        sampling[name] = partial(reference.sample, given.samples), evaluations(EDM()) * forward
    for variant, (name, process) in itertools.product(given.variants, SAMPLERS.items()):
        if variant != "float32" and process != EDM():  # what a precision costs, one sampler says
            continue
        model = ours(network, given, process, variant)
        model.load_state_dict(loaded.state)
        call = partial(model.sample, given.samples, seed=1)
        sampling[f"this package, {variant}, {name}"] = call, evaluations(process) * forward
        exact[f"this package, {variant}, {name}"] = model
    of_error = errors(references[PEER], exact, given.samples)
    rows("sampling", sampling, given.samples, given, of_error)
    for variant in given.variants:
        model = ours(network, given, EDM(), variant)
        model.load_state_dict(loaded.state)
        training[f"this package, {variant}"] = partial(model.fit, data, seed=1), 3 * forward
    rows("training", training, given.images, given, {})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a clone of github.com/NVlabs/edm")
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--train", type=int, default=4096, help="images that the weights see before all else")
    parser.add_argument("--images", type=int, default=4096, help="images of one timed training")
    parser.add_argument("--samples", type=int, default=256, help="images of one timed sampling, a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument(
        "--peak-flops", type=float, default=0.0, help="of the device, e.g. 989e12: prints the share used"
    )
    main(parser.parse_args())
