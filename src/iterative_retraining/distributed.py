"""Several processes, a device each, that work on one run: training and sampling are split, nothing else is."""

import datetime
import os
from dataclasses import dataclass

import torch
from torch import Tensor

HOURS = 6  # that the others wait at most while the first measures


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


def set_float32(device: str) -> dict[str, bool]:
    """On a GPU products and convolutions of float32 are taken in float32 whole, as in the training of NVlabs/edm.

    torch rounds the factors of convolutions to 10 bits (TF32) unless told not to. For speed there is bfloat16.

    Returns what is set, for the record; nothing on a CPU.
    """
    if device == "cpu":
        return {}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return {"tf32": False}


def find_team(device: str) -> tuple[Team, str]:
    """The team that ``torchrun`` has started this process in, and this process's device.

    ``device`` is "cpu" (gloo) or "cuda" (NCCL; each process then takes the GPU of its local rank). Raises ValueError
    for a device with an index, which several processes cannot share, where a process has no GPU, and where other
    processes have come together than were started.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Team(), device
    if ":" in device:
        raise ValueError(f"device = {device!r} is one device and this run has several processes; take 'cuda' or 'cpu'")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}; start as many "
                "processes as GPUs (torchrun --nproc-per-node)"
            )
        torch.cuda.set_device(local)
    if not torch.distributed.is_initialized():
        patience = datetime.timedelta(hours=HOURS)
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=patience)
    team = Team(torch.distributed.get_rank(), torch.distributed.get_world_size())
    own = f"cuda:{local}" if device == "cuda" else device
    met = int(team.add(torch.ones((), device=own)))
    if not size == team.size == met:
        raise ValueError(f"{size} processes were started and {met} of {team.size} have met; start the run again")
    return team, own
