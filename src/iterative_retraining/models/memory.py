"""How much memory a training step takes, known before it is taken, and how many images at a time fit a device.

The step is rehearsed on tensors that have shapes but no content (torch's FakeTensorMode): every tensor that it would
make and drop is counted, and nothing is computed. benchmarks/memory.py compares the count with real steps.
"""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from iterative_retraining.errors import ConfigError, shown
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.pieces import DropoutByIndex
from iterative_retraining.models.process import Process

AUTO = "auto"
BUFFERS = 5  # flat, each as large as the weights: these, their gradients, two moments of Adam, the EMA
USABLE = 0.9  # of the free memory: a choice, the rest is for workspaces of convolutions and for gaps


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made inside: those that live now, and the most that did at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """``func``, with its results counted."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen[storage] = True
            self.now += storage.nbytes()
            weakref.finalize(storage, self._drop, storage.nbytes())

    def _drop(self, n_bytes: int) -> None:
        self.now -= n_bytes


def training_bytes(process: Process, training: TrainingConfig, n_at_once: int = 0) -> int:
    """The bytes that training takes at its peak, with ``n_at_once`` images through the network at once; 0 for a batch.

    Weights, gradients, Adam, EMA and what a step makes on the way; without the training set, workspaces of libraries
    and what a device needs for itself. Compiled code mostly takes less. Raises ValueError for a network that cannot be
    built without content (a spline flow).
    """
    network, n = training.network, n_at_once or training.batch_size
    if getattr(network, "eager", False):
        raise ValueError("the memory of a spline flow is not known before its training")
    with torch.device("meta"):
        net = network.build().train()
    n_weights = sum(p.numel() for p in net.parameters())
    with FakeTensorMode(allow_non_fake_inputs=True), PeakMemory() as memory:
        _step(process, training, net, n)
    return memory.peak + (BUFFERS - 2) * 4 * n_weights  # weights and gradients are among what was counted


def _step(process: Process, training: TrainingConfig, net: nn.Module, n: int) -> None:
    """Forward and backward pass of ``n`` images, with the weights of a network on the meta device made anew."""
    network = training.network
    weights: Mapping[str, Tensor] = {name: nn.Parameter(_nhwc(p.shape)) for name, p in net.named_parameters()}
    for weight in weights.values():
        weight.grad = torch.empty_like(weight)
    weights |= {name: torch.empty(b.shape, dtype=b.dtype) for name, b in net.named_buffers()}
    labels = (torch.empty(n, network.augment_labels),) if training.augment_probability else ()

    def evaluated(x: Tensor, level: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bfloat16"):
            return functional_call(net, weights, (x, level, *labels)).float()

    x = _nhwc((n, network.colours, network.resolution, network.resolution))
    with DropoutByIndex(n, slice(0, n)):
        terms = process.loss_terms(evaluated, x, torch.zeros(n), torch.empty_like(x))
    terms.mean().backward()


def _nhwc(shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, memory_format=torch.channels_last if len(shape) == 4 else torch.contiguous_format)


def images_that_fit(process: Process, training: TrainingConfig, n: int, n_bytes: float) -> int:
    """How many of ``n`` images may go through the network at once for `training_bytes` to stay within ``n_bytes``: all,
    or the size of the fewest pieces of about one size. Raises ConfigError where not even one fits."""
    at_n = training_bytes(process, training, n)
    if at_n <= n_bytes:
        return n
    half = max(1, n // 2)
    at_half = training_bytes(process, training, half)
    per_image = (at_n - at_half) / max(n - half, 1)
    most = int((n_bytes - at_half) // per_image) + half if per_image else 0
    if most < 1:
        raise ConfigError(
            f"one image at a time takes more memory than the device has: about "
            f"{training_bytes(process, training, 1) / 1e9:.1f} GB, and {n_bytes / 1e9:.1f} GB can be used; take a "
            "larger device or a smaller network (model_options)"
        )
    n_pieces = -(-n // most)
    return -(-n // n_pieces)


def check_micro_batch(value: object) -> int | str:
    """``value`` if it may be the parameter micro_batch. Raises ConfigError."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1 and value >= 1
    if value != AUTO and not whole:
        raise ConfigError(
            f"micro_batch = {shown(value)} is not allowed: how many images of a batch are trained on at once, a whole "
            f"number >= 1, or {AUTO!r} for as many as the memory of a GPU holds (on a CPU: all)"
        )
    return AUTO if value == AUTO else int(value)


def chosen_micro_batch(given: int | str, model: Any, n_items: Callable[[], int], item_bytes: int) -> int:
    """How many images of a batch a process of ``model`` trains on at once; 0 for all.

    given: see `check_micro_batch`. n_items: of the largest training set, which lies on the device beside the network.
    Raises ConfigError where not even one image fits.
    """
    if given != AUTO:
        return int(given)
    if not hasattr(model, "split_batches") or model.device.type == "cpu" or getattr(model.config.network, "eager", 0):
        return 0
    free, _ = torch.cuda.mem_get_info(model.device)
    share = model.team.shard(model.config.batch_size)
    usable = USABLE * free - n_items() * item_bytes
    return images_that_fit(model.process, model.config, share.stop - share.start, usable)
