"""CUDA graphs: work on tensors of one shape, recorded once and then started as one piece instead of kernel by kernel.

A small network takes longer to start its kernels than to run them. A replay runs the very kernels with the very random
numbers: the device's generator hands them to it as it would to the kernels one by one.
"""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from iterative_retraining.errors import ConfigError, shown
from iterative_retraining.models.process import Net

N_WARM_UP = 3  # calls before the recording, in which libraries choose and load their kernels
Work = Callable[..., Tensor]


class Graph:
    """``function`` of tensors of the shapes of ``examples``, None where they are; what it returns is overwritten by the
    next call.

    On a CPU, where nothing can be recorded, a replay is a call of ``function`` on the tensors that it would replay on.
    written: what ``function`` writes beside, put back to what it was once the recording is done.
    """

    def __init__(
        self, function: Work, examples: Sequence[Tensor | None], written: Sequence[Tensor], pool: tuple[int, int] | None
    ) -> None:
        self._inputs = [None if one is None else one.detach().clone() for one in examples]
        self._function, self._graph = function, None
        if pool is not None:
            device = next(one.device for one in self._inputs if one is not None)
            with torch.cuda.device(device):
                self._record(written, pool)

    def _record(self, written: Sequence[Tensor], pool: tuple[int, int]) -> None:
        before, aside = [one.detach().clone() for one in written], torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(N_WARM_UP):
                self._function(*self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # other threads, as those of NCCL, go on asking whether events have happened, and may
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._output = self._function(*self._inputs)
        with torch.no_grad():
            for one, old in zip(written, before, strict=True):
                one.copy_(old)

    def __call__(self, *arguments: Tensor | None) -> Tensor:
        """``function`` of these."""
        for own, given in zip(self._inputs, arguments, strict=True):
            if own is not None:
                own.copy_(given)
        if self._graph is None:
            return self._function(*self._inputs)
        self._graph.replay()
        return self._output


class Graphs:
    """Graphs by key; they share memory, and so have to be called in the order in which they were made, over and over.

    Memory is theirs until this object goes.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._graphs: dict[Hashable, Graph] = {}

    def of_gradients(self, key: Hashable, loss: Work, examples: Sequence[Tensor | None], gradients: Tensor) -> Graph:
        """That of ``key``: ``loss``, whose gradients are added to ``gradients``; there need be no backward pass."""
        if key not in self._graphs:
            self._graphs[key] = Graph(partial(_propagated, loss), examples, [gradients], self._pool)
        return self._graphs[key]

    def of_net(self, net: Net) -> Net:
        """``net``, whose results are tensors of their own."""

        def replayed(x: Tensor, level: Tensor) -> Tensor:
            if "net" not in self._graphs:
                self._graphs["net"] = Graph(net, [x, level], [], self._pool)
            return self._graphs["net"](x, level).clone()

        return replayed


def _propagated(loss: Work, *numbers: Tensor | None) -> Tensor:
    """``loss(*numbers)``, propagated back."""
    found = loss(*numbers)
    found.backward()
    return found.detach()


def check_graphs(value: object) -> bool:
    """``value`` if it may be the parameter cuda_graphs. Raises ConfigError."""
    if not isinstance(value, bool):
        raise ConfigError(
            f"cuda_graphs = {shown(value)} is not allowed: true replays training and sampling as CUDA graphs, which is "
            "for small networks on a GPU; false starts kernel by kernel"
        )
    return value


def chosen_graphs(given: bool, model: Any) -> bool:
    """Whether ``model`` is to replay graphs: on a GPU, and if its network computes on tensors alone."""
    possible = hasattr(model, "replay_graphs") and model.device.type == "cuda"
    return given and possible and not getattr(model.config.network, "eager", False)
