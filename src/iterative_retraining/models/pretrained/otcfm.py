"""torchcfm's checkpoints of CIFAR-10, ``otcfm_cifar10_weights_step_400000.pt`` and its kin (Tong et al. 2024)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iterative_retraining.errors import PretrainedError
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.foreign import ADMConfig
from iterative_retraining.models.pretrained.record import Pretrained, named_arrays, read_torch


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
    path, network = Path(path), network or ADMConfig()
    content = read_torch(path)
    if not isinstance(content, Mapping) or not isinstance(content.get(key), Mapping):
        held = ", ".join(map(repr, content)) if isinstance(content, Mapping) else type(content).__name__
        raise PretrainedError(f"{path} holds no network under the key {key!r}, but: {held}")
    try:
        state, training = _weights(content[key], network), _training(content, network)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}") from error
    return PretrainedOTCFM(network, FlowMatching(time_scale=1.0, solver="dopri5"), state, training)


def _weights(tensors: Mapping[str, Any], network: ADMConfig) -> dict[str, np.ndarray]:
    named = {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}
    return named_arrays(named, network, "inner.")


def _training(content: Mapping[str, Any], network: ADMConfig) -> dict[str, np.ndarray]:
    """Raw weights and Adam's moments, which torch numbers in the order of the parameters."""
    found = {}
    if "net_model" in content:
        found |= {f"raw/{name}": array for name, array in _weights(content["net_model"], network).items()}
    if "optim" not in content:
        return found
    with torch.device("meta"):
        names = [name for name, _ in network.build().named_parameters()]
    try:
        adam = content["optim"]["state"]
        for kind in ("exp_avg", "exp_avg_sq") if adam else ():
            tensors = {name: adam[k][kind] for k, name in enumerate(names)}
            found |= {f"{kind}/{name}": array for name, array in named_arrays(tensors, network).items()}
            found["adam_steps"] = np.array(float(adam[0]["step"]))
    except (LookupError, TypeError, ValueError, AttributeError, PretrainedError) as error:
        raise PretrainedError(f"the moments under 'optim' are not Adam's of this network: {error!r}") from error
    return found
