"""A feature space that says nothing of quality: pytorch-fid's Inception with random weights, for rehearsals."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from unittest import mock

import torch
from torch import Tensor, nn

from iterative_retraining.metrics.features.inception import InceptionSpace
from iterative_retraining.seeding import torch_seed

N_FEATURES = 2048


@dataclass(frozen=True)
class NoFile:
    """In the place of a file of weights: none is read."""

    sha256: str = "00000000"

    def find(self, given: str | Path) -> Path:
        """Nothing is looked for."""
        return Path()


@dataclass(frozen=True)
class RandomInceptionSpace(InceptionSpace):
    """The shape, the speed and the memory of "inception-legacy_pytorch", with weights drawn from seed 0."""

    needs_weights: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "inception-random"


def _random_network(file: Path, device: str) -> Callable[[Tensor], Tensor]:
    """pytorch-fid's network as clean-fid carries it, weights as He et al. (2015) draw them, features turned at random.

    Of single units of a random network many are 0 for every image, and metrics refuse a feature that is constant.
    """
    from cleanfid import inception_pytorch

    with (
        torch_seed(0),
        mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value={}),
        mock.patch.object(nn.Module, "load_state_dict"),
    ):
        net = inception_pytorch.InceptionV3([3], resize_input=False).eval().requires_grad_(False)
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        directions = (torch.randn(N_FEATURES, N_FEATURES) / N_FEATURES**0.5).to(device)
    net.to(device)
    return lambda x: net(x / 255)[0][:, :, 0, 0] @ directions


INCEPTION_RANDOM = RandomInceptionSpace("legacy_pytorch", NoFile(), _random_network)
