"""Several processes, a device each, that work on one run: training and sampling are split, nothing else is."""

import datetime
import os
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Team:
    """Process ``rank`` of ``size``; the default is a process that works alone. All of them run the same program."""

    rank: int = 0
    size: int = 1

    def shard(self, n: int) -> slice:
        """This process's part of ``n`` items; the parts of all differ by one item at most."""
        return slice(self.rank * n // self.size, (self.rank + 1) * n // self.size)

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of ``tensor`` over the processes, in its place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


def find_team(device: str) -> tuple[Team, str]:
    """The team that ``accelerate launch`` or ``torchrun`` has started this process in, and this process's device.

    ``device`` is "cpu" or "cuda" (each process then takes the GPU of its local rank). Raises ValueError for a device
    with an index, which several processes cannot share, and where the package accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Team(), device
    if ":" in device:
        raise ValueError(f"device = {device!r} is one device and this run has several processes; take 'cuda' or 'cpu'")
    try:
        from accelerate import PartialState
    except ImportError as error:
        extra = "pip install 'iterative-retraining[distributed]'"
        raise ValueError(f"a run by several processes needs accelerate: {extra}") from error
    state = PartialState(cpu=device == "cpu", timeout=datetime.timedelta(hours=6))  # the first one measures, all wait
    return Team(state.process_index, state.num_processes), str(state.device)
