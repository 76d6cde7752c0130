"""Weights of this package's own networks, as run directories keep them: a safetensors file of named arrays."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from iterative_retraining.errors import PretrainedError, shown
from iterative_retraining.file_kinds import seems_to_be
from iterative_retraining.models.networks import NetworkConfig
from iterative_retraining.models.pretrained.record import named_arrays, plain_names
from iterative_retraining.models.training import CARRIED


def load_own(path: Path, model: str, network: NetworkConfig) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights for ``network``, and what else its training goes on from, under the names of `Fit.state`.

    The file does not say which process it was trained for: where it still lies in its run directory, the configuration
    there has to be of ``model``. Raises PretrainedError if it is damaged or of another network.
    """
    tensors = read_safetensors(path)
    _check_model(path, model)
    weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(CARRIED)}
    if "conv_in.weight" in weights:
        raise PretrainedError(f"{path} holds a network of diffusers: set init to its folder, with the config.json")
    try:
        state = named_arrays(weights, network)
        return state, _carried(tensors, state)
    except PretrainedError as error:
        raise PretrainedError(f"{path}: {error}") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises PretrainedError if it is none or damaged."""
    try:
        return plain_names(load_file(path))
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        raise PretrainedError(f"{path} is damaged ({error}): it seems to be {seems_to_be(path)}") from error


def _check_model(path: Path, model: str) -> None:
    config = path.parent / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8"))["identity"]["model"] if config.is_file() else model
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise PretrainedError(f"{config}, beside {path.name}, is damaged ({type(error).__name__}: {error})") from error
    if found != model:
        raise PretrainedError(f"{path} was trained as model = {shown(found)}, not {model!r}, says {config}")


def _carried(tensors: Mapping[str, Tensor], state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What one fit hands to the next: arrays of parameters by kind, and the number of Adam's steps."""
    found = {}
    for name, tensor in tensors.items():
        if not name.startswith(CARRIED):
            continue
        kind, _, parameter = name.removeprefix(CARRIED).partition("/")
        if parameter and (parameter not in state or tuple(tensor.shape) != state[parameter].shape):
            raise PretrainedError(f"{kind} of {parameter} is of no parameter of this network")
        found[name.removeprefix(CARRIED)] = tensor.numpy()
    return found
