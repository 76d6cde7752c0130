"""What bfloat16 does to EDM: the loss while it trains, and the FID of its samples, against float32.

    python benchmarks/precision.py --folder precision

For each seed the same network is trained twice on Fashion-MNIST, in float32 and with its evaluations under bfloat16
autocast, from the same weights, on the same batches, noise levels and noise, and sampled from the same latents in the
precision that it was trained in. So every difference is taken within a seed. What is done is kept in ``--folder``:
killed, the same command goes on after the last network that was finished. On a GPU, on the whole data set:

    python benchmarks/precision.py --folder precision-gpu --device cuda --images 2000000 --real 60000 --channels 32 \
        --halflife 50000 --samples 10000 --steps 18
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from iterative_retraining.datasets import load_dataset
from iterative_retraining.files import write_json
from iterative_retraining.metrics.features import build_features
from iterative_retraining.metrics.fid import FID
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import PRECISIONS, TrainingConfig
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.studies.report.comparisons import interval
from iterative_retraining.training_set import TrainingSet

SHAPE = {"resolution": 28, "colours": 1, "multipliers": (1, 2, 2), "blocks_per_level": 1, "attention_resolutions": (7,)}
BATCH = 128
WINDOWS = 5  # of the training, over which the loss is averaged


class Recorded(NetworkModel):
    """A model that keeps the loss of every batch."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.losses: list[torch.Tensor] = []

    def _losses(self, *given: Any) -> Iterator[torch.Tensor]:
        self.losses.append(torch.zeros((), device=self.device))
        for loss in super()._losses(*given):
            self.losses[-1] += loss.detach()
            yield loss


def measured(given: argparse.Namespace, precision: str, seed: int) -> dict[str, object]:
    """The losses of one training, (WINDOWS,), the FID of its samples against held-out images, and its seconds."""
    images, held_out = (load_dataset("fashion_mnist", given.data_dir, split)[0] for split in ("train", "test"))
    network = UNetConfig(**SHAPE, channels=given.channels, dropout=0.0, augment_labels=0)
    budgets = {"n_images_initial": given.images, "n_images_per_retraining": 0, "ema_halflife_images": given.halflife}
    config = TrainingConfig(network=network, **budgets, batch_size=BATCH, precision=precision)
    model = Recorded(EDM(n_steps=given.steps), config, given.device)
    start = time.perf_counter()
    model.fit(TrainingSet.of(images[: given.real]), seed=seed)
    losses = torch.stack(model.losses).tolist()  # on a GPU this waits for the training to end
    seconds = time.perf_counter() - start
    samples = model.sample(given.samples, seed=seed)
    features = build_features("auto", "fashion_mnist")
    windows = [float(np.mean(part)) for part in np.array_split(losses, WINDOWS)]
    return {"losses": windows, "fid": FID()(features(samples), real=features(held_out))["fid"], "seconds": seconds}


def floor(given: argparse.Namespace) -> float:
    """The FID of as many real images as there are samples, none of the held-out ones, against those."""
    images, held_out = (load_dataset("fashion_mnist", given.data_dir, split)[0] for split in ("train", "test"))
    features = build_features("auto", "fashion_mnist")
    return FID()(features(images[-given.samples :]), real=features(held_out))["fid"]


def table(found: dict[str, list[dict]]) -> str:
    """A row for each part of the training, and one of FID: float32, its spread over seeds, bfloat16 less float32, and
    the largest difference in the 95 % t-interval of that, in units of the spread."""
    columns = {name: np.array([[*one["losses"], one["fid"]] for one in runs]) for name, runs in found.items()}
    plain, gaps = columns["float32"], columns["bfloat16"] - columns["float32"]
    names = [f"loss, images {k}/{WINDOWS} to {k + 1}/{WINDOWS}" for k in range(WINDOWS)] + ["FID"]
    head = "| | float32, mean over seeds | spread over seeds (sd) | bfloat16 less float32 | at most, in spreads |"
    lines = [head, "|---|---|---|---|---|"]
    most = abs(gaps.mean(axis=0)) + stats.t.ppf(0.975, len(gaps) - 1) * stats.sem(gaps)
    for name, values, gap, large in zip(names, plain.T, gaps.T, most, strict=True):
        spread = values.std(ddof=1)
        share = f"{large / spread:.2f}" if spread else ""
        cells = (name, f"{values.mean():.4g}", f"{spread:.2g}", interval(gap, digits=5), share)
        lines.append(f"| {' | '.join(cells)} |")
    ratios = np.array([b["seconds"] / a["seconds"] for a, b in zip(found["float32"], found["bfloat16"], strict=True)])
    times = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
    note = f"{len(plain)} seeds, 95 % t-intervals of paired differences; bfloat16 takes {times} times as long to train."
    return "\n".join(lines) + f"\n\n{note}"


def main(given: argparse.Namespace) -> None:
    """Trains what is missing in the folder, then prints the table."""
    if given.images < WINDOWS * BATCH:
        raise SystemExit(f"--images {given.images} is not allowed: at least {WINDOWS * BATCH}, a batch for every part")
    given.folder.mkdir(parents=True, exist_ok=True)
    asked = {name: value for name, value in vars(given).items() if name not in ("folder", "data_dir", "seeds")}
    found: dict[str, list[dict]] = {name: [] for name in PRECISIONS}
    for seed in given.seeds:
        for precision in PRECISIONS:
            path = given.folder / f"{precision}-seed{seed}.json"
            if not path.is_file():
                write_json(path, asked | measured(given, precision, seed))
                print(path, flush=True)
            found[precision].append(one := json.loads(path.read_text()))
            if other := {name: one[name] for name, value in asked.items() if one[name] != value}:
                raise SystemExit(f"{path} is of other parameters, {other}; take another --folder")
    if len(given.seeds) > 1:
        print(table(found))
    print(f"FID of {given.samples} real images: {floor(given):.3g}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where what is done is kept")
    parser.add_argument("--data-dir", help="of Fashion-MNIST; empty for where Debian's package puts it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(8)])
    parser.add_argument("--real", type=int, default=500, help="real images, the first of the data set")
    parser.add_argument("--images", type=int, default=5_120, help="images of a training")
    parser.add_argument("--halflife", type=int, default=1_000, help="of the EMA, in images")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--steps", type=int, default=10, help="of Heun's method")
    main(parser.parse_args())
