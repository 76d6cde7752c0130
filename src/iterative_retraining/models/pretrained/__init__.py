"""Published weights, read without importing or executing anything that their files contain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.errors import PretrainedError
from iterative_retraining.file_kinds import seems_to_be
from iterative_retraining.models import MODELS, resolve_options
from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.fitting import persistent_kinds
from iterative_retraining.models.networks import NetworkConfig
from iterative_retraining.models.networks.foreign import ADMConfig, DiffusersUNetConfig
from iterative_retraining.models.pretrained.ddpm import PretrainedDDPM, diffusers_weights, load_ddpm
from iterative_retraining.models.pretrained.ddpm_torch import holds_ddpm_torch, load_ddpm_torch
from iterative_retraining.models.pretrained.edm import PretrainedEDM, load_edm_pickle
from iterative_retraining.models.pretrained.otcfm import PretrainedOTCFM, load_otcfm_checkpoint, otcfm_network
from iterative_retraining.models.pretrained.own import load_own
from iterative_retraining.models.pretrained.record import WEIGHTS_URLS, Pretrained, read_torch, where_from
from iterative_retraining.models.training import CARRIED

__all__ = [
    "WEIGHTS_URLS",
    "Pretrained",
    "PretrainedDDPM",
    "PretrainedEDM",
    "PretrainedError",
    "PretrainedOTCFM",
    "diffusers_weights",
    "load_ddpm",
    "load_ddpm_torch",
    "load_edm_pickle",
    "load_otcfm_checkpoint",
    "read_weights",
    "state_that_fits",
    "where_from",
]


def read_weights(path: str | Path, network: NetworkConfig | None = None) -> Pretrained:
    """What is at ``path``: a pickle of EDM (.pkl), a checkpoint of torchcfm or ddpm-torch (.pt, .pth), or a folder of
    diffusers.

    ``network``: the shape that a checkpoint has, which does not say it; by default the published one. Raises
    PretrainedError.
    """
    path = Path(path)
    if path.is_dir():
        return load_ddpm(path)
    if path.suffix == ".pkl":
        return load_edm_pickle(path)
    if path.suffix in (".pt", ".pth"):
        content = read_torch(path)
        if holds_ddpm_torch(content):
            return load_ddpm_torch(path, content, network if isinstance(network, DiffusersUNetConfig) else None)
        return otcfm_network(path, content, network=network if isinstance(network, ADMConfig) else None)
    raise PretrainedError(
        f"{path} is no file of weights that can be read: .pkl (EDM), .pt or .pth (torchcfm, ddpm-torch), .safetensors "
        f"(of this package), or a folder of diffusers; it seems to be {seems_to_be(path)}"
    )


def state_that_fits(
    path: str | Path, *, model: str, dataset: str, item_shape: tuple[int, ...], options: Mapping[str, Any]
) -> Mapping[str, np.ndarray]:
    """The weights at ``path``, for a run of ``model`` with resolved ``options`` on items of ``item_shape``, (H, W, C).

    With the options next_start = "raw" and keep_optimizer, also the raw weights and Adam's moments that the file holds.
    Raises PretrainedError if they cannot be read, or are not those of such a network; the message says of which.
    """
    family = MODELS[model]
    own = family.network_config(item_shape, options) if isinstance(family, NetworkFamily) else None
    if Path(path).suffix == ".safetensors" and Path(path).is_file():
        if own is None:
            raise PretrainedError(f"{path}: a {model} starts from a run directory, not from a file of weights")
        state, training = load_own(Path(path), model, own)
        return _with_training(state, training, options)
    found = read_weights(path, own)
    shape = (found.network.resolution, found.network.resolution, found.network.colours)
    if shape != tuple(item_shape):
        raise PretrainedError(
            f"{path} is for images of {_times(shape)}; the items of {dataset} are {_times(item_shape)}: take weights "
            "of that resolution, or another dataset"
        )
    needed = found.options()
    network = {"network": needed["network"]}
    if model == found.model and options.get("network") == needed["network"]:
        wrong = _differing(needed, options)
    else:
        wrong = network | _differing(needed, resolve_options(found.model, dataset, network))
    if wrong:
        raise PretrainedError(
            f"the weights are of another network: {path} needs model = {found.model!r} and, in model_options, {wrong}"
        )
    return _with_training(found.state, found.training, options)


def _with_training(
    state: Mapping[str, np.ndarray], training: Mapping[str, np.ndarray], options: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The weights, and of the training what a fit with these options is handed."""
    kinds = persistent_kinds(options["next_start"], options["keep_optimizer"])
    carried = {name: array for name, array in training.items() if name.partition("/")[0] in kinds}
    return {**state, **{f"{CARRIED}{name}": array for name, array in carried.items()}}


def _differing(needed: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in needed.items() if value != options[name]}


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
