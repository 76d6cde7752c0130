"""Published weights, read without importing or executing anything that their files contain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.errors import PretrainedError
from iterative_retraining.models import MODELS, resolve_options
from iterative_retraining.models.fitting import persistent_kinds
from iterative_retraining.models.networks.foreign import ADMConfig
from iterative_retraining.models.pretrained.ddpm import PretrainedDDPM, diffusers_weights, load_ddpm
from iterative_retraining.models.pretrained.edm import PretrainedEDM, load_edm_pickle
from iterative_retraining.models.pretrained.otcfm import PretrainedOTCFM, load_otcfm_checkpoint
from iterative_retraining.models.pretrained.record import Pretrained
from iterative_retraining.models.training import CARRIED

__all__ = [
    "Pretrained",
    "PretrainedDDPM",
    "PretrainedEDM",
    "PretrainedError",
    "PretrainedOTCFM",
    "diffusers_weights",
    "load_ddpm",
    "load_edm_pickle",
    "load_otcfm_checkpoint",
    "read_weights",
    "state_that_fits",
    "where_from",
]

WEIGHTS_URLS = {  # published files and folders of weights by name, and where they are
    "edm-cifar10-32x32-uncond-vp.pkl": "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-uncond-vp.pkl",
    "edm-ffhq-64x64-uncond-vp.pkl": "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-ffhq-64x64-uncond-vp.pkl",
    "otcfm_cifar10_weights_step_400000.pt": "https://github.com/atong01/conditional-flow-matching/releases/download/"
    "1.0.4/otcfm_cifar10_weights_step_400000.pt",
    "ddpm-cifar10-32": "https://huggingface.co/google/ddpm-cifar10-32",
}


def where_from(path: str | Path) -> str:
    """Words for an error message: where missing weights that are published come from; "" for any other name."""
    url = WEIGHTS_URLS.get(Path(path).name)
    return f"; it comes from {url}: download it to that place, or set init to where it is" if url else ""


def read_weights(path: str | Path, network: ADMConfig | None = None) -> Pretrained:
    """What is at ``path``: an EDM pickle (.pkl), a checkpoint of torchcfm (.pt, .pth) or a folder of diffusers.

    ``network``: see `load_otcfm_checkpoint`. Raises PretrainedError.
    """
    path = Path(path)
    if path.is_dir():
        return load_ddpm(path)
    if path.suffix == ".pkl":
        return load_edm_pickle(path)
    if path.suffix in (".pt", ".pth"):
        return load_otcfm_checkpoint(path, network=network)
    raise PretrainedError(
        f"{path} is no file of weights that can be read: .pkl (EDM), .pt or .pth (torchcfm), or a folder of diffusers"
    )


def state_that_fits(
    path: str | Path, *, model: str, dataset: str, item_shape: tuple[int, ...], options: Mapping[str, Any]
) -> Mapping[str, np.ndarray]:
    """The weights at ``path``, for a run of ``model`` with resolved ``options`` on items of ``item_shape``, (H, W, C).

    With the options next_start = "raw" and keep_optimizer, also the raw weights and Adam's moments that the file holds.
    Raises PretrainedError if they cannot be read, or are not those of such a network; the message says of which.
    """
    own = MODELS[model].network_config(item_shape, options) if options.get("network") == "adm" else None
    found = read_weights(path, own)
    shape = (found.network.resolution, found.network.resolution, found.network.colours)
    if shape != tuple(item_shape):
        raise PretrainedError(
            f"{path} is for images of {_times(shape)}; the items of {dataset} are {_times(item_shape)}"
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
    kinds = persistent_kinds(options["next_start"], options["keep_optimizer"])
    carried = {name: array for name, array in found.training.items() if name.partition("/")[0] in kinds}
    return {**found.state, **{f"{CARRIED}{name}": array for name, array in carried.items()}}


def _differing(needed: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in needed.items() if value != options[name]}


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
