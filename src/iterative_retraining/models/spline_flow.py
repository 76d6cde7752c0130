"""A neural spline flow (Durkan et al. 2019, by zuko) on images: fitted by maximum likelihood, its density is exact."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.process import Draw, Uncoupled, check_numbers

MOST_LAYERS, MOST_WEIGHTS = 1000, 10**9
LEVEL = 2 / 255  # the step between neighbouring pixel values in [-1, 1]


@dataclass(frozen=True, kw_only=True)
class SplineFlowConfig:
    """The shape of a flow on images (B, colours, resolution, resolution).

    n_passes: in how many groups the pixels follow one another, each given those before it; 2 is a coupling flow.
    """

    resolution: int = 8
    colours: int = 1
    n_transforms: int = 6
    n_passes: int = 2
    n_bins: int = 8
    width: int = 256
    n_layers: int = 2

    eager: ClassVar[bool] = True  # zuko computes with the weights as it makes them: no meta device, nothing compiled

    def __post_init__(self) -> None:
        names = [f.name for f in fields(self)]
        check_numbers(self, counts=names)
        if self.n_transforms * self.n_layers > MOST_LAYERS or self._n_weights() > MOST_WEIGHTS:
            shape = ", ".join(f"{name} = {getattr(self, name)}" for name in names)
            raise ValueError(
                f"{shape} is not allowed: a flow has at most {MOST_LAYERS} layers in all its transforms and about "
                f"{MOST_WEIGHTS:.0e} weights"
            )

    def _n_weights(self) -> int:
        """About how many weights the flow has: masked, and so not all in use."""
        n_pixels = self.colours * self.resolution**2
        return self.n_transforms * self.width * (3 * self.n_bins * n_pixels + n_pixels + self.n_layers * self.width)

    def build(self) -> nn.Module:
        """The flow, with zuko's random weights from torch's generator."""
        from zuko.flows import NSF

        hidden = (self.width,) * self.n_layers
        n_pixels = self.colours * self.resolution**2
        passes = min(self.n_passes, n_pixels)
        return NSF(n_pixels, transforms=self.n_transforms, bins=self.n_bins, hidden_features=hidden, passes=passes)


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood(Uncoupled):
    """Exact likelihoods of dequantised pixels: each value is spread evenly over its level (Theis et al. 2016)."""

    def loss_terms(self, net: nn.Module, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """Negative log-likelihoods in nats a dimension, (B,); the uniform noise is made of ``noise``."""
        spread = x + (torch.special.ndtr(noise) - 0.5) * LEVEL
        return -self.log_prob(net, spread) / x[0].numel()

    def bits_per_dimension(self, loss: float) -> float:
        """The loss as a code length of 8-bit pixels in bits a dimension, an upper bound (Theis et al. 2016)."""
        return (loss - math.log(LEVEL)) / math.log(2)

    def log_prob(self, net: nn.Module, x: Tensor) -> Tensor:
        """Log densities in nats at x (B, C, H, W) in [-1, 1], (B,)."""
        return net().log_prob(x.flatten(1))

    def sample(self, net: nn.Module, draw: Draw) -> Tensor:
        """The latents ``draw(0)`` taken through the inverse transform."""
        noise = draw(0)
        return net().transform.inv(noise.flatten(1)).view(noise.shape).double()


SPLINE_FLOW_FAMILY = NetworkFamily(
    "spline_flow", "spline flow", MaximumLikelihood, configs={"": SplineFlowConfig}, has_density=True
)
