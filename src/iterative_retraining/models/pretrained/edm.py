"""NVIDIA's pickles of EDM networks, read without importing or executing anything that they contain."""

import collections
import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.errors import PretrainedError
from iterative_retraining.file_kinds import seems_to_be
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.pretrained.record import Pretrained, named_arrays, naming, where_from


class PretrainedEDM(Pretrained):
    """Called, it denoises: ``net(x, sigma)`` is the denoised x (B, C, H, W) at noise levels sigma (B,)."""

    model = "edm"
    process_options = ("sigma_data",)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.process.denoiser(self.net)(x, sigma)


class _Plain:
    """What stands for a pickled object: its class's name and its state, and no behaviour."""

    name = ""

    def __init__(self, name: str = "", state: Any = None) -> None:
        self.name, self.state = name, state

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _ModuleDict(_Plain):
    """torch.nn.modules.container.ModuleDict, as plain state."""


def _persistent(meta: Mapping[str, Any]) -> _Plain:
    """A persistent object of torch_utils as plain state; the source code it carries is not looked at."""
    return _Plain(meta["class_name"], meta["state"])


def _parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Tensor:
    return data


def _tensor_bytes(content: bytes) -> Any:
    """The nested file of a tensor's storage: torch reads it with its own allow list."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("torch.nn.modules.container", "ModuleDict"): _ModuleDict,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch.storage", "_load_from_bytes"): _tensor_bytes,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("dnnlib.util", "EasyDict"): dict,
    ("builtins", "set"): set,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "scalar"): np._core.multiarray.scalar,
    ("numpy._core.multiarray", "scalar"): np._core.multiarray.scalar,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise PretrainedError(
                f"it asks for {module}.{name}, which no published EDM network needs; nothing of it was executed"
            )
        return _ALLOWED[module, name]


def load_edm_pickle(path: str | Path, key: str = "ema") -> PretrainedEDM:
    """A network of Karras et al. (2022) from a ``.pkl`` as published, or a snapshot of one's own EDM training.

    Only the classes that such a file needs are let through, as plain records; the source code inside is not executed.
    ``key``: which of the file's networks. Raises PretrainedError if the file is missing, damaged, asks for anything
    else, or holds another network than an unconditional DDPM++.
    """
    path = Path(path)
    if not path.is_file():
        raise PretrainedError(
            f"{path} is not there; book/reproduce.md says where the published weights are{where_from(path)}"
        )
    try:
        with path.open("rb") as file:
            content = _Unpickler(file).load()
    except PretrainedError as error:
        raise PretrainedError(f"{path} is refused: {error}") from error
    except (pickle.UnpicklingError, EOFError, zipfile.BadZipFile, RuntimeError, ValueError, KeyError, TypeError,
            AttributeError, IndexError) as error:  # fmt: skip
        raise PretrainedError(
            f"{path} is damaged, or no pickle of an EDM network ({type(error).__name__}): it seems to be "
            f"{seems_to_be(path)}{where_from(path)}"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get(key), _Plain):
        held = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
        raise PretrainedError(f"{path} holds no network under the key {key!r}, but: {held}")
    with naming(path):
        return _edm(content[key])


def _edm(top: _Plain) -> PretrainedEDM:
    if top.name != "EDMPrecond":
        raise PretrainedError(f"it holds a {top.name}; only EDMPrecond can be read")
    given = dict(top.state["_init_kwargs"])
    network, theirs = _network_config(top.state, given), dict(_tensors(top))
    state = {ours: _converted(ours, theirs.pop(name)) for name, ours in _names(network) if name in theirs}
    state |= {name: tensor for name, tensor in theirs.items() if not name.endswith("resample_filter")}
    process = EDM(sigma_data=float(top.state["sigma_data"]), n_steps=18 if network.resolution <= 32 else 40)
    return PretrainedEDM(network, process, named_arrays(state, network))


def _network_config(state: Mapping[str, Any], given: Mapping[str, Any]) -> UNetConfig:
    """Our configuration of an EDMPrecond; defaults as those of the published code. Raises PretrainedError."""
    if state["label_dim"]:
        raise PretrainedError(
            f"it is a class-conditional network (label_dim = {state['label_dim']!r}); wanted is one without classes, "
            "whose published file has uncond in its name"
        )
    needed = {
        "model_type": ("SongUNet", given.get("model_type")),
        "embedding_type": ("positional", given.get("embedding_type", "positional")),
        "encoder_type": ("standard", given.get("encoder_type", "standard")),
        "decoder_type": ("standard", given.get("decoder_type", "standard")),
        "channel_mult_noise": (1, given.get("channel_mult_noise", 1)),
        "resample_filter": ([1, 1], list(given.get("resample_filter", [1, 1]))),
    }
    for name, (allowed, value) in needed.items():
        if value != allowed:
            raise PretrainedError(f"{name} = {value!r} is not DDPM++, which has {allowed!r}{_ncsnpp(given)}")
    return UNetConfig(
        resolution=int(state["img_resolution"]),
        colours=int(state["img_channels"]),
        channels=int(given.get("model_channels", 128)),
        multipliers=tuple(given.get("channel_mult", (1, 2, 2, 2))),
        blocks_per_level=int(given.get("num_blocks", 4)),
        attention_resolutions=tuple(given.get("attn_resolutions", (16,))),
        dropout=float(given.get("dropout", 0.10)),
        augment_labels=int(given.get("augment_dim", 0)),
    )


def _ncsnpp(given: Mapping[str, Any]) -> str:
    return (
        ": it seems to be NCSN++; take the file with vp in its name" if given.get("encoder_type") == "residual" else ""
    )


def _tensors(module: _Plain, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module's plain state, by their dotted names."""
    for name, tensor in {**module.state["_parameters"], **module.state["_buffers"]}.items():
        if tensor is not None:
            yield prefix + name, tensor
    for name, child in module.state["_modules"].items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def _names(network: UNetConfig) -> Iterator[tuple[str, str]]:
    """Pairs of names, of the published file and of `UNet`."""
    for theirs, ours in (("map_layer0", "embed.0"), ("map_layer1", "embed.2")):
        yield from _layer(f"model.{theirs}", ours)
    yield "model.map_augment.weight", "embed_labels.weight"
    levels = range(len(network.multipliers))
    sizes = [network.resolution >> level for level in levels]
    yield from _layer(f"model.enc.{sizes[0]}x{sizes[0]}_conv", "first")
    n, blocks = network.blocks_per_level, []
    for level, size in enumerate(sizes):
        blocks += [f"{size}x{size}_down"] if level else []
        blocks += [f"{size}x{size}_block{i}" for i in range(n)]
    yield from _blocks("model.enc", blocks, "encoder")
    last = f"{sizes[-1]}x{sizes[-1]}"
    yield from _blocks("model.dec", [f"{last}_in0", f"{last}_in1"], "bottom")
    blocks = []
    for level, size in reversed(list(enumerate(sizes))):
        blocks += [f"{size}x{size}_up"] if level < len(sizes) - 1 else []
        blocks += [f"{size}x{size}_block{i}" for i in range(n + 1)]
    yield from _blocks("model.dec", blocks, "decoder")
    yield from _layer(f"model.dec.{sizes[0]}x{sizes[0]}_aux_norm", "last.0")
    yield from _layer(f"model.dec.{sizes[0]}x{sizes[0]}_aux_conv", "last.2")


_OF_BLOCK = {
    "norm0": "norm0",
    "conv0": "conv0",
    "affine": "shift",
    "norm1": "norm1",
    "conv1": "conv1",
    "skip": "skip",
    "norm2": "attention.norm",
    "qkv": "attention.qkv",
    "proj": "attention.out",
}


def _blocks(theirs: str, blocks: list[str], ours: str) -> Iterator[tuple[str, str]]:
    for number, block in enumerate(blocks):
        for a, b in _OF_BLOCK.items():
            yield from _layer(f"{theirs}.{block}.{a}", f"{ours}.{number}.{b}")


def _layer(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for kind in ("weight", "bias"):
        yield f"{theirs}.{kind}", f"{ours}.{kind}"


def _converted(name: str, tensor: Tensor) -> Tensor:
    """Queries, keys and values, which the file interleaves channel by channel, one after another."""
    if ".qkv." not in name:
        return tensor
    return tensor.reshape(-1, 3, *tensor.shape[1:]).transpose(0, 1).reshape(tensor.shape)
