"""What one retraining costs: evaluations of the network, floating-point operations, hours."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.gain import evaluations
from iterative_retraining.retrain import N_PREVIEW

TRAINING_FACTOR = 3  # a training step is a forward pass, and a backward pass of twice its operations


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The work of one retraining.

    n_images: shown in training. n_samples: drawn. n_evaluations: of the network, a sample; None if a solver chooses
    them as it goes. forward_flops: of one image through the network; a multiply-add counts 2.
    """

    n_images: int
    n_samples: int
    n_evaluations: int | None
    forward_flops: int

    @property
    def fit_flops(self) -> int:
        """Operations of the training."""
        return TRAINING_FACTOR * self.forward_flops * self.n_images

    @property
    def sample_flops(self) -> int | None:
        """Operations of the sampling; None if they are not known before it."""
        return self.n_evaluations and self.n_evaluations * self.forward_flops * self.n_samples

    def hours_at(self, flops_per_second: float) -> float | None:
        """Hours of training and sampling at so many operations a second, sustained; None as `sample_flops`."""
        return self.sample_flops and (self.fit_flops + self.sample_flops) / flops_per_second / 3600

    def hours_measured(self, images_per_second: float, samples_per_second: float) -> float:
        """Hours of training and sampling at measured throughputs."""
        return (self.n_images / images_per_second + self.n_samples / samples_per_second) / 3600


def retraining_cost(
    dataset: str, model: str, options: Mapping[str, Any], *, size: int, colours: int, n_images: int, n_samples: int
) -> Cost:
    """The cost of a retraining with these options of a network model, on images of ``size`` x ``size`` pixels.

    Previews are counted beside the ``n_samples``. Raises ValueError for options that the model does not have.
    """
    resolved = resolve_options(model, dataset, options)
    built = build_model(model, (size, size, colours), resolved, n_images_initial=0, n_images_per_retraining=n_images)
    return Cost(
        n_images=n_images,
        n_samples=n_samples + N_PREVIEW,
        n_evaluations=evaluations(built.process),
        forward_flops=forward_flops(built.config.network),
    )


def forward_flops(network: Any) -> int:
    """Operations of one image through a network, counted by torch on tensors without content; a multiply-add counts 2.

    network: the configuration of a network, such as `UNetConfig`: its resolution, its colours, and what builds it.
    Convolutions and products of matrices count; additions, norms and activations do not.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = network.build().eval()
        net(torch.empty(1, network.colours, network.resolution, network.resolution), torch.empty(1))
    return counter.get_total_flops()


def cost_table(
    costs: Mapping[str, Cost], flops_per_second: Mapping[str, float], throughput: Mapping[str, Sequence[float]]
) -> str:
    """A Markdown table of retrainings by name: their work, and their hours at so many operations a second, by name too.

    throughput: by name, measured images a second in training and samples a second.
    """
    lines = [
        "| a retraining of | forward, GFLOP an image | training, FLOP | evaluations a sample | sampling, FLOP | hours, "
        "assumed speed | hours, measured speeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, cost in costs.items():
        cells = (
            f"{cost.forward_flops / 1e9:.1f}",
            f"{cost.fit_flops:.2g}",
            cost.n_evaluations or "chosen by the solver",
            f"{cost.sample_flops:.2g}" if cost.sample_flops else "known after a run",
            f"{cost.hours_at(flops_per_second[name]):.2g}" if cost.sample_flops else "known after a run",
            f"{cost.hours_measured(*throughput[name]):.2g}" if name in throughput else "not measured",
        )
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
