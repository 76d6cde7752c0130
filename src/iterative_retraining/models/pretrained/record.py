"""What every reader of published weights gives back, and what all of them refuse."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from iterative_retraining.errors import PretrainedError
from iterative_retraining.models.networks import NETWORKS, NetworkConfig
from iterative_retraining.models.process import Process

FREE = ("resolution", "colours", "dropout")  # of a network's fields: the data decide two, and weights fit any dropout


@dataclass(frozen=True)
class Pretrained:
    """A published network, its weights, and the process that it was trained for.

    Called, it is what the network learnt: see the reader that made it.
    """

    network: NetworkConfig
    process: Process
    state: Mapping[str, np.ndarray]
    """Weights under the names of ``network.build()``, float32."""
    training: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What else the training goes on from, as far as the file holds it, under the names of `Fit.state`."""

    model: ClassVar[str]
    """The model that can go on from these weights."""
    process_options: ClassVar[tuple[str, ...]]
    """What of the process the weights depend on."""

    def options(self) -> dict[str, Any]:
        """The options of the model that these weights need."""
        (name,) = (name for name, config in NETWORKS.items() if isinstance(self.network, config))
        own = {f.name: getattr(self.network, f.name) for f in fields(self.network) if f.name not in FREE}
        return {"network": name} | own | {name: getattr(self.process, name) for name in self.process_options}

    @cached_property
    def net(self) -> nn.Module:
        """The network, for evaluation."""
        net = self.network.build()
        net.load_state_dict({name: torch.from_numpy(array) for name, array in self.state.items()})
        return net.eval().requires_grad_(False)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x, self.process.time_scale * t)


def named_arrays(tensors: Any, network: NetworkConfig, prefix: str = "") -> dict[str, np.ndarray]:
    """float32 arrays of tensors, under their names after ``prefix``.

    Raises PretrainedError unless they are tensors by name, and names and shapes are those of the network.
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise PretrainedError("it holds no tensors by name")
    state = {f"{prefix}{name}": tensor.detach().float().contiguous().numpy() for name, tensor in tensors.items()}
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in network.build().state_dict().items()}
    found = {name: array.shape for name, array in state.items()}
    differing = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if differing:
        raise PretrainedError(
            f"its weights are not those of its configuration: {differing[0]} differs, first of {len(differing)}: "
            f"needed {wanted.get(differing[0])}, got {found.get(differing[0])} ({network})"
        )
    return state


def read_torch(path: Path) -> Any:
    """What torch saved at ``path``, by torch's own list of what may be in a file of weights.

    Raises PretrainedError if it is missing or damaged, or asks for anything else.
    """
    if not path.is_file():
        raise PretrainedError(f"{path} is not there; book/reproduce.md says where the published weights are")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError,
            IndexError) as error:  # fmt: skip
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            reason = f"it asks for {asked[1]}, which no file of weights needs; nothing of it was executed"
            raise PretrainedError(f"{path} is refused: {reason}") from error
        raise PretrainedError(f"{path} is damaged, or no file of weights as torch writes it: {error!r}") from error
