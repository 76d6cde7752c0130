"""The cost of a retraining: operations against counts by hand, evaluations against their formulas."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.ddpmpp import Attention, UNetConfig
from iterative_retraining.studies.report.costs import Cost, cost_table, evaluations, forward_flops, retraining_cost


class OneConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2, padding=1)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.conv(x)


@dataclass
class OneConvolutionConfig:
    resolution: int = 8
    colours: int = 3

    def build(self) -> nn.Module:
        return OneConvolution()


def test_one_convolution_by_hand():
    assert forward_flops(OneConvolutionConfig()) == 2 * (4 * 4) * 5 * (3 * 3 * 3)


def counted_by_hooks(net: nn.Module, x: Tensor, level: Tensor) -> int:
    """Multiply-adds, twice each, of layers as they run: convolutions, linear layers, the two products of attention."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += 2 * output[0].numel() * layer.in_channels * layer.kernel_size[0] ** 2
        elif isinstance(layer, nn.Linear):
            total += 2 * layer.in_features * layer.out_features
        elif isinstance(layer, Attention):
            channels, height, width = inputs[0].shape[1:]
            total += 2 * 2 * (height * width) ** 2 * channels

    for layer in net.modules():
        layer.register_forward_hook(count)
    net(x, level)
    return total


def test_a_small_network_layer_by_layer():
    config = UNetConfig(
        resolution=8, colours=1, channels=8, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
        augment_labels=0,
    )  # fmt: skip
    by_hand = counted_by_hooks(config.build().eval(), torch.randn(1, 1, 8, 8), torch.randn(1))
    assert forward_flops(config) == by_hand > 0


def test_the_published_cifar10_network():
    assert forward_flops(UNetConfig()) / 1e9 == pytest.approx(42.4, abs=0.05)


@pytest.mark.parametrize(
    ("process", "count"),
    [
        (EDM(n_steps=18), 2 * 18 - 1),
        (EDM(n_steps=40), 2 * 40 - 1),
        (FlowMatching(n_steps=8), 4 * 8),
        (FlowMatching(solver="dopri5"), None),
        (DDPM(n_steps=50, spacing="uniform"), 50),
        (DDPM(), len(DDPM().visited())),
    ],
)
def test_evaluations_a_sample(process, count):
    assert evaluations(process) == count


def test_one_published_retraining():
    """1 Mimg of CIFAR-10 and 50 000 samples of 35 evaluations: 2.0e17 operations."""
    cost = retraining_cost("cifar10", "edm", {}, size=32, colours=3, n_images=1_000_000, n_samples=50_000)
    assert cost.fit_flops == 3 * 1_000_000 * cost.forward_flops
    assert cost.sample_flops == 35 * (50_000 + 16) * cost.forward_flops
    assert cost.fit_flops + cost.sample_flops == pytest.approx(2.0e17, rel=0.01)
    assert cost.hours_at(1e14) == pytest.approx(2.01e17 / 1e14 / 3600, rel=0.01)
    assert cost.hours_measured(1000, 50) == pytest.approx((1_000_000 / 1000 + 50_016 / 50) / 3600)


def test_a_solver_that_adapts_leaves_the_cost_of_sampling_open():
    cost = Cost(n_images=10, n_samples=2, n_evaluations=None, forward_flops=1_000_000_000)
    assert (cost.fit_flops, cost.sample_flops, cost.hours_at(1e12)) == (3e10, None, None)
    row = cost_table({"it": cost}, {"it": 1e12}, {}).splitlines()[2]
    assert row == "| it | 1.0 | 3e+10 | chosen by the solver | known after a run | known after a run | not measured |"


def test_measured_speeds_are_in_the_table():
    cost = Cost(n_images=7200, n_samples=3600, n_evaluations=2, forward_flops=10**9)
    lines = cost_table({"it": cost}, {"it": 1e9}, {"it": [2, 1]}).splitlines()
    assert {line.count("|") for line in lines} == {8}
    assert lines[2].endswith(f"| {(3 * 7200 + 2 * 3600) / 3600:.2g} | 2 |")
