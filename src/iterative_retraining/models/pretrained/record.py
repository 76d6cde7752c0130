"""What every reader of published weights gives back, and what all of them refuse."""

import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from iterative_retraining.errors import PretrainedError
from iterative_retraining.file_kinds import seems_to_be, unfinished
from iterative_retraining.models.networks import NETWORKS, NetworkConfig
from iterative_retraining.models.process import Process

WEIGHTS_URLS = {  # published files and folders of weights by name, and where they are
    "edm-cifar10-32x32-uncond-vp.pkl": "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-uncond-vp.pkl",
    "edm-ffhq-64x64-uncond-vp.pkl": "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-ffhq-64x64-uncond-vp.pkl",
    "otcfm_cifar10_weights_step_400000.pt": "https://github.com/atong01/conditional-flow-matching/releases/download/"
    "1.0.4/otcfm_cifar10_weights_step_400000.pt",
    "ddpm-cifar10-32": "https://huggingface.co/google/ddpm-cifar10-32",
    "cifar10_2040.pt": "https://github.com/tqch/ddpm-torch/releases/download/checkpoints/cifar10_2040.pt",
}
WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before the names of a network
FREE = ("resolution", "colours", "dropout")  # of a network's fields: the data decide two, and weights fit any dropout


@contextmanager
def naming(what: object) -> Iterator[None]:
    """What a reader refuses, and what it stumbles over in a content of wrong inner types, is a PretrainedError that
    names ``what`` it reads."""
    try:
        yield
    except PretrainedError as error:
        raise PretrainedError(f"{what}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PretrainedError(
            f"{what}: its content is not that of its kind ({type(error).__name__}: {error})"
        ) from error


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


def where_from(path: str | Path) -> str:
    """Words for an error message: where weights that are published come from, "" for any other name; and whether a
    download of them was interrupted."""
    url = WEIGHTS_URLS.get(Path(path).name)
    known = f"; it comes from {url}: download it to that place, or set init to where it is" if url else ""
    return known + unfinished(path)


def plain_names(tensors: Any) -> dict[str, Any]:
    """A mapping without what wrappers put before its names; {} for what is no mapping."""
    found = {}
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else ():
        plain = str(name)
        while plain.startswith(WRAPPERS):
            plain = plain.partition(".")[2]
        found[plain] = tensor
    return found


def named_arrays(tensors: Any, network: NetworkConfig, prefix: str = "") -> dict[str, np.ndarray]:
    """float32 arrays of tensors, under their names after ``prefix``.

    Raises PretrainedError unless they are tensors by name, names and shapes are those of the network, and all numbers
    finite.
    """
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise PretrainedError("it holds no tensors by name")
    named = {f"{prefix}{name}": tensor for name, tensor in plain_names(tensors).items()}
    with torch.device("meta"):
        wanted = {name: tuple(tensor.shape) for name, tensor in network.build().state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in named.items()}
    differing = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if differing:
        raise PretrainedError(
            f"its weights are not those of its configuration: {differing[0]} differs, first of {len(differing)}: "
            f"needed {wanted.get(differing[0])}, got {found.get(differing[0])} ({network})"
        )
    # Only now are there numbers: a file may claim any shape by a tensor that repeats one number.
    state = {name: tensor.detach().float().contiguous().numpy() for name, tensor in named.items()}
    broken = next((name for name, array in state.items() if not np.isfinite(array).all()), None)
    if broken is not None:
        raise PretrainedError(f"its weights are not all finite: {broken} has NaN or infinite numbers")
    return state


def adam_moments(
    optimizer: Any, names: Sequence[str], arrays: Callable[[dict[str, Any]], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Adam's moments in the state_dict of a torch optimizer, which numbers parameters in the order of ``names``, under
    the names of `Fit.state`; {} before the first step. ``arrays`` makes arrays of tensors by name.

    Raises PretrainedError for a state that is none of such parameters.
    """
    try:
        adam, found = optimizer["state"], {}
        for kind in ("exp_avg", "exp_avg_sq") if adam else ():
            moments = arrays({name: adam[k][kind] for k, name in enumerate(names)})
            found |= {f"{kind}/{name}": array for name, array in moments.items()}
            found["adam_steps"] = np.array(float(adam[0]["step"]))
    except (LookupError, TypeError, ValueError, AttributeError, PretrainedError) as error:
        raise PretrainedError(f"the moments of the optimizer are not Adam's of this network: {error!r}") from error
    return found


def read_torch(path: Path) -> Any:
    """What torch saved at ``path``, by torch's own list of what may be in a file of weights.

    Raises PretrainedError if it is missing or damaged, or asks for anything else.
    """
    if not path.is_file():
        raise PretrainedError(
            f"{path} is not there; book/reproduce.md says where the published weights are{where_from(path)}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError,
            IndexError) as error:  # fmt: skip
        asked = re.search(r"GLOBAL (\S+)", str(error))
        if asked:
            reason = f"it asks for {asked[1]}, which no file of weights needs; nothing of it was executed"
            if asked[1].startswith("torch_utils."):
                reason += ". It seems to be a training-state of NVIDIA's code: take the network-snapshot beside it"
            raise PretrainedError(f"{path} is refused: {reason}") from error
        raise PretrainedError(
            f"{path} is damaged, or no file of weights as torch writes it ({type(error).__name__}): it seems to be "
            f"{seems_to_be(path)}{where_from(path)}"
        ) from error
