"""torchcfm's checkpoints of CIFAR-10, ``otcfm_cifar10_weights_step_400000.pt`` and its kin (Tong et al. 2024)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iterative_retraining.errors import PretrainedError
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.foreign import ADMConfig
from iterative_retraining.models.pretrained.record import (
    Pretrained,
    adam_moments,
    named_arrays,
    naming,
    plain_names,
    read_torch,
)


class PretrainedOTCFM(Pretrained):
    """Called, it is the velocity: ``net(x, t)`` at x (B, C, H, W) and times t (B,) from 0, noise, to 1, data."""

    model = "flow_matching"
    process_options = ("time_scale",)


def load_otcfm_checkpoint(
    path: str | Path, key: str = "ema_model", network: ADMConfig | None = None
) -> PretrainedOTCFM:
    """The network under ``key``, "ema_model" or "net_model", sampled as published: dopri5 at a tolerance of 1e-5.

    The file says nothing of the network's shape: it has to be that of ``network``, by default the published one. Where
    the file holds them, the raw weights and Adam's moments are read too.
    Raises PretrainedError if the file is missing, damaged, asks for more than tensors, or holds another network.
    """
    path = Path(path)
    return otcfm_network(path, read_torch(path), key, network)


def otcfm_network(
    path: Path, content: Any, key: str = "ema_model", network: ADMConfig | None = None
) -> PretrainedOTCFM:
    """See `load_otcfm_checkpoint`: the network in what torch has read at ``path``."""
    network = network or ADMConfig()
    if not isinstance(content, Mapping) or not isinstance(content.get(key), Mapping):
        held = ", ".join(map(repr, content)) if isinstance(content, Mapping) else type(content).__name__
        raise PretrainedError(f"{path} holds no network under the key {key!r}, but: {held}")
    with naming(path):
        state, training = _weights(content[key], network), _training(content, network)
    return PretrainedOTCFM(network, FlowMatching(time_scale=1.0, solver="dopri5"), state, training)


def _weights(tensors: Mapping[str, Any], network: ADMConfig) -> dict[str, np.ndarray]:
    if "label_emb.weight" in plain_names(tensors):
        raise PretrainedError("it is a class-conditional network; wanted is one without classes")
    return named_arrays(tensors, network, "inner.")


def _training(content: Mapping[str, Any], network: ADMConfig) -> dict[str, np.ndarray]:
    """Raw weights and Adam's moments, which torch numbers in the order of the parameters."""
    found = {}
    if "net_model" in content:
        found |= {f"raw/{name}": array for name, array in _weights(content["net_model"], network).items()}
    if "optim" not in content:
        return found
    with torch.device("meta"):
        names = [name for name, _ in network.build().named_parameters()]
    return found | adam_moments(content["optim"], names, lambda tensors: named_arrays(tensors, network))
