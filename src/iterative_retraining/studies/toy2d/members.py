"""The members of an ensemble: what many small models in the plane compute at once, their weights stacked."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.process import Process, check_numbers
from iterative_retraining.seeding import torch_seed

N_FREQUENCIES = 8
Weights = dict[str, Tensor]  # stacked: (M, ...) each
MemberDraw = Callable[[int], Tensor]  # of k: unit Gaussian noise (M, n, 2) number k; number 0 is the latent


class Members(Protocol):
    """M models of one family, whose numbers depend on their own weights and data alone."""

    def new_weights(self, seed: int) -> Weights:
        """The random weights of one member, without the leading dimension."""

    def couple_noise(self, x: Tensor, noise: Tensor, size: int) -> Tensor:
        """The noise (M, B, 2) that belongs to each point x (M, B, 2); coupled within groups of ``size``, if at all."""

    def loss_terms(self, weights: Weights, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """The terms of the losses at x (M, B, 2) with unit Gaussian number (M, B) and noise (M, B, 2); (M, ...)."""

    def sample(self, weights: Weights, draw: MemberDraw) -> Tensor:
        """Points (M, n, 2) made from ``draw(0)``."""


@dataclass(frozen=True)
class ProcessMembers:
    """A process with a plain network of ``n_layers`` layers of ``width`` units, every layer one batched product."""

    process: Process
    width: int = 128
    n_layers: int = 3

    def __post_init__(self) -> None:
        check_numbers(self, counts=("width", "n_layers"))

    def new_weights(self, seed: int) -> Weights:
        """Weights (in, out) and biases (1, out), layer by layer; the last layer starts as nearly nothing."""
        sizes = [2 + 2 * N_FREQUENCIES, *[self.width] * self.n_layers, 2]
        with torch_seed(seed):
            weights = [torch.randn(a, b) * math.sqrt(2 / a) for a, b in pairwise(sizes)]
        weights[-1] *= 1e-2
        return {f"{i}.{k}": v for i, w in enumerate(weights) for k, v in _layer(w).items()}

    def network(self, weights: Weights, x: Tensor, level: Tensor) -> Tensor:
        """What the networks make of x (M B, 2), the members one after another, at level (M B,)."""
        angles = level[:, None] * (2.0 ** torch.arange(N_FREQUENCIES) / 2)
        h = torch.cat([x, angles.sin(), angles.cos()], dim=1).view(len(weights["0.bias"]), -1, 2 + 2 * N_FREQUENCIES)
        for i in range(self.n_layers + 1):
            h = torch.nn.functional.silu(h) if i else h
            h = torch.baddbmm(weights[f"{i}.bias"], h, weights[f"{i}.weight"])
        return h.view(-1, 2)

    def couple_noise(self, x: Tensor, noise: Tensor, size: int) -> Tensor:
        """As the process does."""
        pieces = zip(x.split(size, dim=1), noise.split(size, dim=1), strict=True)
        return torch.cat([self.process.couple_noise(*piece) for piece in pieces], dim=1)

    def loss_terms(self, weights: Weights, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """As the process has them, (M, B, 2)."""
        flat = (v.flatten(0, 1) for v in (x, level_noise, noise))
        return self.process.loss_terms(partial(self.network, weights), *flat).view_as(x)

    def sample(self, weights: Weights, draw: MemberDraw) -> Tensor:
        """As the process does."""
        x = self.process.sample(partial(self.network, weights), lambda k: draw(k).flatten(0, 1))
        return x.view(len(weights["0.bias"]), -1, 2)


def _layer(weight: Tensor) -> Weights:
    return {"weight": weight, "bias": torch.zeros(1, weight.shape[1])}


@dataclass(frozen=True)
class SplineMembers:
    """An autoregressive neural spline flow (Durkan et al. 2019, by zuko), fitted by maximum likelihood.

    Its density is exact. The splines act on [-5, 5]; outside, the flow is the identity.
    """

    n_transforms: int = 3
    n_bins: int = 8
    width: int = 64
    n_layers: int = 2

    def __post_init__(self) -> None:
        check_numbers(self, counts=("n_transforms", "n_bins", "width", "n_layers"))

    @cached_property
    def _flow(self) -> torch.nn.Module:
        return self._new_flow()

    def _new_flow(self) -> torch.nn.Module:
        from zuko.flows import NSF

        return NSF(2, transforms=self.n_transforms, bins=self.n_bins, hidden_features=(self.width,) * self.n_layers)

    def new_weights(self, seed: int) -> Weights:
        """As zuko initialises them."""
        with torch_seed(seed):
            return {name: p.detach() for name, p in self._new_flow().named_parameters()}

    def couple_noise(self, x: Tensor, noise: Tensor, size: int) -> Tensor:
        """``noise``, which the likelihood does not use."""
        return noise

    def log_prob(self, weights: Weights, x: Tensor) -> Tensor:
        """Log densities in nats at x (M, B, 2), (M, B)."""
        return self._each(weights, lambda flow, x: flow.log_prob(x), x)

    def loss_terms(self, weights: Weights, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """Negative log-likelihoods in nats, (M, B)."""
        return -self.log_prob(weights, x)

    def sample(self, weights: Weights, draw: MemberDraw) -> Tensor:
        """The latents ``draw(0)`` taken through the inverse transform."""
        return self._each(weights, lambda flow, z: flow.transform.inv(z), draw(0))

    def _each(self, weights: Weights, function: Callable[[Any, Tensor], Tensor], x: Tensor) -> Tensor:
        module = _Call(self._flow, function)
        named = {f"flow.{name}": tensor for name, tensor in weights.items()}
        return vmap(lambda w, x: functional_call(module, w, (x,)))(named, x)


class _Call(torch.nn.Module):
    """A function of the distribution that a flow builds, as a module, so that its weights can be exchanged."""

    def __init__(self, flow: torch.nn.Module, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.flow, self.function = flow, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.flow(), x)


# Levels run from about -2 to 2 in all of them; for distributions whose coordinates have a variance of about 0.5.
# One pass of a sampler keeps the standard deviation of Gaussian data, 0.06 to 0.7, within 0.5 % (`models.gain`).
_KARRAS = {"solver": "dpmpp_3m", "n_steps": 24, "sigma_max": 20.0, "start_data_std": 0.7}
PLANE_FAMILIES: dict[str, Members] = {
    "ddpm": ProcessMembers(DDPM(time_scale=0.004, solver="dpmpp_3m", n_steps=27, spacing="quadratic_0.8", clip=False)),
    "edm": ProcessMembers(EDM(sigma_data=0.6, **_KARRAS)),
    "flow_matching": ProcessMembers(FlowMatching(time_scale=4.0, spacing="karras", **_KARRAS)),
    "spline_flow": SplineMembers(),
}
