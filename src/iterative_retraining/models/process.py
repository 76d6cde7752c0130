"""What a family of models is apart from its network: how data become noise, what the network learns, how it samples."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, Protocol

import torch
from torch import Tensor

from iterative_retraining.errors import shown

Net = Callable[[Tensor, Tensor], Tensor]  # of x (B, ...) and level (B,), like x
Draw = Callable[[int], Tensor]  # of k: unit Gaussian noise (B, ...) number k; number 0 is the latent


class Process(Protocol):
    """Serves images (B, C, H, W) and points (B, 2) alike; EDM, flow matching and DDPM are processes."""

    def couple_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """The noise that belongs to each item of G groups x (G, B, ...): ``noise``, in another order if coupled."""

    def loss_terms(self, net: Net, x: Tensor, level_noise: Tensor, noise: Tensor) -> Tensor:
        """The terms of the loss, like x (B, ...); their mean is the loss.

        level_noise (B,) unit Gaussian, from which the noise level follows; noise unit Gaussian, like x.
        """

    def sample(self, net: Net, draw: Draw) -> Tensor:
        """Items made from ``draw(0)``, float64; the network sees float32."""


class Uncoupled:
    """A process whose noise is independent of the data."""

    def couple_noise(self, x: Tensor, noise: Tensor) -> Tensor:
        """``noise`` as it is."""
        return noise


def wide(values: Tensor, x: Tensor) -> Tensor:
    """``values`` (B,) shaped to multiply x (B, ...)."""
    return values.view(-1, *[1] * (x.ndim - 1))


def evaluate(net: Net, x: Tensor, level: float | Tensor) -> Tensor:
    """``net`` in float32 at a float64 state x (B, ...) and one level for all, or (B,); float64."""
    if not isinstance(level, Tensor):
        level = torch.full((len(x),), level, device=x.device)
    return net(x.float(), level.float()).double()


def check_numbers(
    config: Any, *, counts: Iterable[str] = (), positive: Iterable[str] = (), at_most: Mapping[str, int] | None = None
) -> None:
    """Raises ValueError unless every int or float field of a dataclass is one, ``counts`` >= 1, ``positive`` > 0, and
    none above what it is ``at_most``."""
    for field in fields(config):
        value = getattr(config, field.name)
        if field.type in (int, float) and (isinstance(value, bool) or not isinstance(value, field.type | int)):
            raise ValueError(f"{field.name} = {value!r} is not allowed: it must be of type {field.type.__name__}")
    for name in counts:
        if getattr(config, name) < 1:
            raise ValueError(f"{name} = {getattr(config, name)} is not allowed: it must be at least 1")
    for name in positive:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} = {getattr(config, name)} is not allowed: it must be above 0")
    for name, largest in (at_most or {}).items():
        if getattr(config, name) > largest:
            raise ValueError(f"{name} = {getattr(config, name)} is not allowed: it must be at most {largest}")


def check_choice(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raises ValueError unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} = {shown(value)} is not allowed; allowed: {', '.join(map(str, allowed))}")
