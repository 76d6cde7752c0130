"""Folders of diffusers' models, such as google/ddpm-cifar10-32 (Ho, Jain and Abbeel 2020)."""

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iterative_retraining.errors import PretrainedError
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.networks.foreign import DiffusersUNetConfig, require
from iterative_retraining.models.pretrained.own import read_safetensors
from iterative_retraining.models.pretrained.record import Pretrained, named_arrays, naming, plain_names, read_torch

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# What older versions of diffusers called the layers of attention.
RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


class PretrainedDDPM(Pretrained):
    """Called, it predicts the noise: ``net(x, t)`` at x (B, C, H, W) and levels t (B,), of 0 to n_levels - 1."""

    model = "ddpm"
    process_options = ("n_levels", "beta_first", "beta_last", "time_scale")


def diffusers_weights(path: str | Path) -> Path | None:
    """The file of weights of a diffusers model's folder, or of the folder ``unet`` of a pipeline; None without one."""
    files = (Path(path) / folder / name for folder in ("", "unet") for name in WEIGHTS)
    return next((file for file in files if file.is_file()), None)


def load_ddpm(path: str | Path) -> PretrainedDDPM:
    """The U-Net in a folder as diffusers writes it (config.json beside the weights), or in that of a pipeline.

    The noise schedule is that of scheduler_config.json, where there is one, else that of the paper.
    Raises PretrainedError if a file is missing or damaged, or the network is none that predicts noise without classes
    and that `DiffusersUNetConfig` can have.
    """
    require("diffusers", "ddpm")
    path, file = Path(path), diffusers_weights(path)
    if file is None:
        raise PretrainedError(f"{path} holds no weights of a diffusers model: neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
    tensors = _tensors(file)
    with naming(path):
        network = _network(_json(file.parent / "config.json"))
        return PretrainedDDPM(network, _process(file.parent), named_arrays(tensors, network, "inner."))


def _tensors(file: Path) -> Any:
    """Tensors by the names that diffusers gives them today."""
    tensors = read_torch(file) if file.suffix == ".bin" else read_safetensors(file)
    if not isinstance(tensors, Mapping):
        return tensors
    return {_renamed(name): tensor for name, tensor in plain_names(tensors).items()}


def _renamed(name: str) -> str:
    block, _, layer = name.rpartition(".attentions.")
    number, _, rest = layer.partition(".")
    old, _, kind = rest.partition(".")
    return f"{block}.attentions.{number}.{RENAMED[old]}.{kind}" if old in RENAMED else name


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise PretrainedError(f"{file.name} is missing or damaged: {error}") from error
    if not isinstance(content, dict):
        raise PretrainedError(f"{file.name} is damaged: it holds no object")
    return content


def _network(config: Mapping[str, Any]) -> DiffusersUNetConfig:
    """The configuration that builds what a config.json says, which is compared item by item. Raises PretrainedError."""
    from diffusers import UNet2DModel

    name = config.get("_class_name")
    if name != "UNet2DModel":
        raise PretrainedError(f"it holds a {name}; only UNet2DModel can be read")
    if config.get("num_class_embeds") or config.get("class_embed_type"):
        classes = f"num_class_embeds = {config.get('num_class_embeds')!r}"
        raise PretrainedError(f"it is a class-conditional network ({classes}); wanted is one without classes")
    parameters = inspect.signature(UNet2DModel.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    given = defaults | {key: value for key, value in config.items() if not key.startswith("_")}
    network = _closest(given)
    built = json.loads(json.dumps(defaults | network.arguments()))
    for key, value in json.loads(json.dumps(given)).items():
        if value != built.get(key):
            raise PretrainedError(f"{key} = {value!r} is not a network of this package, which has {built.get(key)!r}")
    return network


def _closest(given: Mapping[str, Any]) -> DiffusersUNetConfig:
    channels, size = given["block_out_channels"][0], given["sample_size"]
    if not isinstance(size, int):
        raise PretrainedError(f"sample_size = {size!r} says not how large its square images are")
    attended = [size >> level for level, kind in enumerate(given["down_block_types"]) if kind.startswith("Attn")]
    return DiffusersUNetConfig(
        resolution=size,
        colours=given["in_channels"],
        channels=channels,
        multipliers=tuple(width // channels for width in given["block_out_channels"]),
        blocks_per_level=given["layers_per_block"],
        attention_resolutions=tuple(attended),
        dropout=given["dropout"],
        head_channels=given["attention_head_dim"] or 0,
        norm_groups=given["norm_num_groups"],
        downsample_padding=given["downsample_padding"],
        flip_sin_to_cos=given["flip_sin_to_cos"],
        freq_shift=given["freq_shift"],
        norm_eps=given["norm_eps"],
    )


def _process(folder: Path) -> DDPM:
    """The process of the scheduler that belongs to the network in ``folder``, whose file is there or beside it."""
    files = (folder / "scheduler_config.json", folder.parent / "scheduler" / "scheduler_config.json")
    given = next((_json(file) for file in files if file.is_file()), {})
    needed = {"beta_schedule": "linear", "prediction_type": "epsilon", "trained_betas": None}
    for name, allowed in needed.items():
        if given.get(name, allowed) != allowed:
            raise PretrainedError(f"{name} = {given[name]!r} is not the DDPM of this package, which has {allowed!r}")
    n_levels = given.get("num_train_timesteps", given.get("timesteps", 1000))  # the second name is of older versions
    beta_first, beta_last = given.get("beta_start", 1e-4), given.get("beta_end", 0.02)
    return DDPM(n_levels=n_levels, beta_first=beta_first, beta_last=beta_last, n_steps=min(100, n_levels))
