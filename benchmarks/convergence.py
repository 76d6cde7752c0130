"""When theta_0 is trained long enough: the held-out loss of a model of the digits over the images that it has seen.

    python benchmarks/convergence.py --images 1080000 --options '{"dropout": 0.13}'

Trains once and looks at the EMA every so many images: the loss on the 297 held-out images and on as many training
images, with the same noise each time, and as a share of the least held-out loss. The criterion of the profiles: the
held-out loss is within 2 % of its least.
"""

import argparse
import json
from collections.abc import Mapping

import numpy as np
import torch

from iterative_retraining import TrainingSet, build_model, load_dataset, resolve_options
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.training_set import to_unit

N_NOISES = 40  # a held-out image is seen under so many noises


class Watch:
    """A store of fits that keeps none: it measures the EMA of each."""

    def __init__(self, model: NetworkModel, sets: Mapping[str, np.ndarray]) -> None:
        self.model, self.sets, self.rows = model, sets, []
        self.in_fit, self.stop = False, None
        self.net = model.config.network.build()  # here, not in the thread that measures: it draws random numbers

    def load_fit(self, seed: int) -> None:
        """Nothing to go on from."""

    def save_fit(self, seed: int, state: Mapping[str, np.ndarray]) -> None:
        """Measures and prints."""
        ema = {name.removeprefix("ema/"): torch.from_numpy(a) for name, a in state.items() if name.startswith("ema/")}
        self.net.load_state_dict(ema)
        losses = {name: loss(self.model, self.net.eval(), images) for name, images in self.sets.items()}
        self.rows.append({"images": int(state["n_seen"]), **losses})
        print(self.rows[-1], flush=True)


@torch.inference_mode()
def loss(model: NetworkModel, net: torch.nn.Module, images: np.ndarray) -> float:
    """The mean loss of ``net`` on uint8 images (N, H, W, C), with `N_NOISES` noises that are always the same."""
    rng = torch.Generator().manual_seed(0)
    x = torch.from_numpy(to_unit(images)).permute(0, 3, 1, 2)
    total = 0.0
    for _ in range(N_NOISES):
        level_noise, noise = torch.randn(len(x), generator=rng), torch.empty_like(x).normal_(generator=rng)
        total += model.process.loss_terms(net, x, level_noise, noise).mean().item()
    return total / N_NOISES


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="edm")
    parser.add_argument("--images", type=int, default=1_080_000)
    parser.add_argument("--every", type=int, default=90_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--options", type=json.loads, default={}, help="options of the model, as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    real, held_out = load_dataset("digits")[0], load_dataset("digits", split="test")[0]
    options = resolve_options(given.model, "digits", given.options)
    model = build_model(given.model, real.shape[1:], options, n_images_initial=given.images)
    watch = Watch(model, {"held_out": held_out, "training": real[: len(held_out)]})
    model.keep_fits(watch, given.every)
    model.fit(TrainingSet.of(real), seed=given.seed)
    least = min(row["held_out"] for row in watch.rows)
    print("| images seen | held-out loss | of the least | loss on training images |\n|---|---|---|---|")
    for row in watch.rows:
        print(f"| {row['images']} | {row['held_out']:.4f} | {row['held_out'] / least:.3f} | {row['training']:.4f} |")


if __name__ == "__main__":
    main()
