"""Random weights in the layouts of the published files: what a rehearsal reads where those are missing."""

import collections
import json
import pickle
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from iterative_retraining.models import MODELS
from iterative_retraining.models.networks import NetworkConfig
from iterative_retraining.models.pretrained.edm import _names
from iterative_retraining.seeding import torch_seed

FUNCTION = "_reconstruct_persistent_obj"  # of torch_utils.persistence: what the published pickles call


def write_stand_in(path: Path, *, model: str, item_shape: tuple[int, ...], options: Mapping[str, Any]) -> Path:
    """Writes weights drawn from seed 0 for a run of ``model`` with resolved ``options``, whole or not at all.

    An EDM pickle, a checkpoint of torchcfm, or a folder of diffusers, by the option ``network``. Returns where they
    are: ``path`` with the ending of their kind. Raises ValueError for a network that is not published.
    """
    network, kind = MODELS[model].network_config(item_shape, options), str(options.get("network", ""))
    if kind not in _WRITERS:
        raise ValueError(f"network = {kind!r} has no published layout; it has: {', '.join(_WRITERS)}")
    ending, write = _WRITERS[kind]
    path = path.with_name(path.name + ending)
    if path.exists():
        return path
    with torch_seed(0):
        net = network.build()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    write(part, net, network, options)
    part.replace(path)
    return path


class _Persistent:
    """Pickles as NVIDIA's persistence does: a call of one function with a mapping."""

    def __init__(self, class_name: str, **state: Any) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": "", "class_name": class_name, "state": state}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return getattr(sys.modules["torch_utils.persistence"], FUNCTION), (self.meta,)


def _module(class_name: str, tensors: Mapping[str, Tensor], children: Mapping[str, Any], **more: Any) -> _Persistent:
    parameters = {name: nn.Parameter(tensor) for name, tensor in tensors.items()}
    state = {"training": False, "_parameters": parameters, "_buffers": {}, "_modules": dict(children)}
    return _Persistent(class_name, **state, _non_persistent_buffers_set=set(), **more)


def _tree(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Dotted names as nested modules; the two dictionaries of blocks are torch's own class, as in published files."""
    groups: dict[str, dict[str, Tensor]] = collections.defaultdict(dict)
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        groups[head][rest] = tensor
    children: dict[str, Any] = {}
    for name, inside in groups.items():
        if name in ("enc", "dec"):
            children[name] = nn.ModuleDict()
            children[name]._modules.update(_tree(inside))
        else:
            own = {key: value for key, value in inside.items() if "." not in key}
            children[name] = _module("Layer", own, _tree({k: v for k, v in inside.items() if "." in k}))
    return children


def _interleaved(name: str, tensor: Tensor) -> Tensor:
    """Queries, keys and values channel by channel, as the published files have them."""
    if ".qkv." not in name:
        return tensor
    return tensor.reshape(3, -1, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)


def _write_edm(path: Path, net: nn.Module, network: NetworkConfig, options: Mapping[str, Any]) -> None:
    own = net.state_dict()
    theirs = {a.removeprefix("model."): _interleaved(b, own[b]).clone() for a, b in _names(network) if b in own}
    keywords = {
        "model_type": "SongUNet",
        "model_channels": network.channels,
        "channel_mult": list(network.multipliers),
        "num_blocks": network.blocks_per_level,
        "attn_resolutions": list(network.attention_resolutions),
        "dropout": network.dropout,
        "augment_dim": network.augment_labels,
    }
    state = {"img_resolution": network.resolution, "img_channels": network.colours, "label_dim": 0}
    state |= {"sigma_data": options.get("sigma_data", 0.5), "_init_args": (), "_init_kwargs": keywords}
    package, persistence = types.ModuleType("torch_utils"), types.ModuleType("torch_utils.persistence")

    def called(meta: Mapping[str, Any]) -> None:
        """Nobody calls it: our reader has a function of its own in its place."""

    called.__module__, called.__qualname__, called.__name__ = persistence.__name__, FUNCTION, FUNCTION
    setattr(persistence, FUNCTION, called)
    with mock.patch.dict(sys.modules, {"torch_utils": package, "torch_utils.persistence": persistence}):
        content = {"ema": _module("EDMPrecond", {}, {"model": _module("SongUNet", {}, _tree(theirs))}, **state)}
        path.write_bytes(pickle.dumps(content))


def _write_otcfm(path: Path, net: nn.Module, network: NetworkConfig, options: Mapping[str, Any]) -> None:
    state = {name.removeprefix("inner."): tensor for name, tensor in net.state_dict().items()}
    torch.save({"ema_model": state, "net_model": state, "step": 0}, path)


def _write_ddpm(path: Path, net: Any, network: NetworkConfig, options: Mapping[str, Any]) -> None:
    net.inner.save_pretrained(path)
    levels = {"num_train_timesteps": options["n_levels"], "beta_schedule": "linear", "prediction_type": "epsilon"}
    levels |= {"beta_start": options["beta_first"], "beta_end": options["beta_last"]}
    (path / "scheduler_config.json").write_text(json.dumps(levels))


_WRITERS: dict[str, tuple[str, Callable[..., None]]] = {
    "ddpmpp": (".pkl", _write_edm),
    "adm": (".pt", _write_otcfm),
    "diffusers": ("", _write_ddpm),
}
