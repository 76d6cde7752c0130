"""Checkpoints of github.com/tqch/ddpm-torch, such as cifar10_2040.pt, the code of DDPM that the authors' code took."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from iterative_retraining.errors import PretrainedError
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.networks.foreign import DiffusersUNetConfig, attended_levels, require
from iterative_retraining.models.pretrained.ddpm import PretrainedDDPM
from iterative_retraining.models.pretrained.record import adam_moments, named_arrays, naming, plain_names

FIRST = "in_conv.weight"  # a name that this network has and no other that is read here


def holds_ddpm_torch(content: Any) -> bool:
    """Whether what torch has read is a checkpoint of that code: a dict with ``model``, or the weights alone."""
    return isinstance(content, Mapping) and any(FIRST in plain_names(found) for found in (content, *content.values()))


def load_ddpm_torch(
    path: Path, content: Mapping[str, Any], network: DiffusersUNetConfig | None = None
) -> PretrainedDDPM:
    """The network of a checkpoint that torch has read: its EMA, ``ema{shadow}``, where there is one, else ``model``.

    The network is that of Ho et al. (2020), which diffusers builds too, under other names. The file says nothing of its
    shape: it has to be that of ``network``, by default the published one for CIFAR-10; nor of the levels of noise: they
    are those of the paper. Where the file holds them, the raw weights and Adam's moments are read too.
    Raises PretrainedError if it holds another network.
    """
    require("diffusers", "ddpm")
    network = network or DiffusersUNetConfig()
    ema = content.get("ema")
    weights = ema.get("shadow") if isinstance(ema, Mapping) else content.get("model", content)
    with naming(f"{path}, a checkpoint of ddpm-torch"):
        return PretrainedDDPM(network, DDPM(), _arrays(weights, network), _training(content, network))


def _arrays(tensors: Any, network: DiffusersUNetConfig) -> dict[str, np.ndarray]:
    return named_arrays(_converted(tensors, network), network, "inner.")


def _training(content: Mapping[str, Any], network: DiffusersUNetConfig) -> dict[str, np.ndarray]:
    """Raw weights and Adam's moments; torch numbers these in the order of the parameters, which is that of the file."""
    if "model" not in content:
        return {}
    raw = {f"raw/{name}": array for name, array in _arrays(content["model"], network).items()}
    if "optimizer" not in content:
        return raw
    return raw | adam_moments(content["optimizer"], list(content["model"]), lambda t: _arrays(t, network))


def _converted(tensors: Any, network: DiffusersUNetConfig) -> dict[str, Any]:
    """Tensors under diffusers' names; those of layers that this network does not have keep theirs."""
    left, found = plain_names(tensors), {}
    for theirs, ours in _layers(network):
        for kind in ("weight", "bias"):
            tensor = left.pop(f"{theirs}.{kind}", None)
            if tensor is not None:
                found |= dict(zip([f"{name}.{kind}" for name in ours], _split(tensor, ours), strict=True))
    return found | left


def _split(tensor: Any, ours: tuple[str, ...]) -> list[Any]:
    """A tensor in the shape of the layers ``ours``: attention has convolutions of one pixel there, matrices here."""
    if not isinstance(tensor, Tensor) or ".attentions." not in ours[0] or "group_norm" in ours[0]:
        return [tensor]
    if len(tensor) % len(ours):
        raise PretrainedError(
            f"{ours[0]} and its like have {len(tensor)} rows together, which {len(ours)} cannot share"
        )
    return list(tensor.flatten(1).chunk(len(ours)) if tensor.ndim > 1 else tensor.chunk(len(ours)))


def _layers(network: DiffusersUNetConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Layers by their names there, and by those that diffusers has for them: three for queries, keys and values."""
    last, n = len(network.multipliers) - 1, network.blocks_per_level
    outer = {"embed.0": "time_embedding.linear_1", "embed.2": "time_embedding.linear_2", "in_conv": "conv_in"}
    for theirs, ours in (outer | {"out_conv.0": "conv_norm_out", "out_conv.2": "conv_out"}).items():
        yield theirs, (ours,)
    for level in range(last + 1):
        attended = level in attended_levels(network)
        down, up = f"down_blocks.{level}", f"up_blocks.{last - level}"
        for j in range(n):
            yield from _block(f"downsamples.level_{level}.{j}", down, j, attended)
        for j in range(n + 1):
            yield from _block(f"upsamples.level_{level}.{j}", up, j, attended)
        yield f"downsamples.level_{level}.{n}.1", (f"{down}.downsamplers.0.conv",)
        yield f"upsamples.level_{level}.{n + 1}.1", (f"{up}.upsamplers.0.conv",)
    yield from _residual("middle.0", "mid_block.resnets.0")
    yield from _attention("middle.1", "mid_block.attentions.0")
    yield from _residual("middle.2", "mid_block.resnets.1")


def _block(theirs: str, ours: str, j: int, attended: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from _residual(f"{theirs}.0" if attended else theirs, f"{ours}.resnets.{j}")
    if attended:
        yield from _attention(f"{theirs}.1", f"{ours}.attentions.{j}")


def _residual(theirs: str, ours: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    renamed = {"fc": "time_emb_proj", "skip": "conv_shortcut"}
    for layer in ("norm1", "conv1", "fc", "norm2", "conv2", "skip"):
        yield f"{theirs}.{layer}", (f"{ours}.{renamed.get(layer, layer)}",)


def _attention(theirs: str, ours: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{theirs}.norm", (f"{ours}.group_norm",)
    yield f"{theirs}.project_in", tuple(f"{ours}.to_{which}" for which in "qkv")
    yield f"{theirs}.project_out", (f"{ours}.to_out.0",)
