"""torchcfm's checkpoints of CIFAR-10, ``otcfm_cifar10_weights_step_400000.pt`` and its kin (Tong et al. 2024)."""

from collections.abc import Mapping
from pathlib import Path

from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.foreign_networks import ADMConfig
from iterative_retraining.models.pretrained.record import Pretrained, PretrainedError, named_arrays, read_torch


class PretrainedOTCFM(Pretrained):
    """Called, it is the velocity: ``net(x, t)`` at x (B, C, H, W) and times t (B,) from 0, noise, to 1, data."""

    model = "flow_matching"
    process_options = ("time_scale",)


def load_otcfm_checkpoint(
    path: str | Path, key: str = "ema_model", network: ADMConfig | None = None
) -> PretrainedOTCFM:
    """The network under ``key``, "ema_model" or "net_model", sampled as published: dopri5 at a tolerance of 1e-5.

    The file says nothing of the network's shape: it has to be that of ``network``, by default the published one.
    Raises PretrainedError if the file is missing, damaged, asks for more than tensors, or holds another network.
    """
    path, network = Path(path), network or ADMConfig()
    content = read_torch(path)
    if not isinstance(content, Mapping) or not isinstance(content.get(key), Mapping):
        held = ", ".join(map(repr, content)) if isinstance(content, Mapping) else type(content).__name__
        raise PretrainedError(f"{path} holds no network under the key {key!r}, but: {held}")
    tensors = {str(name).removeprefix("module."): tensor for name, tensor in content[key].items()}
    try:
        state = named_arrays(tensors, network, "inner.")
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}") from error
    return PretrainedOTCFM(network, FlowMatching(time_scale=1.0, solver="dopri5"), state)
