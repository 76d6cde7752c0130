"""Between the host and a GPU without waiting for it: by way of pinned memory."""

import numpy as np
import torch
from torch import Tensor


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """``array`` on ``device``; on a GPU the copy is queued behind the work that is already there."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class HostCopies:
    """Copies of tensors on the host, as they were when this was made; from a GPU they come while work goes on.

    `tensors` waits for them. The tensors may be changed right after.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._copies, self._done = {}, None
        for name, tensor in tensors.items():
            gpu = tensor.is_cuda
            copy = torch.empty_like(tensor, device="cpu", pin_memory=gpu)
            self._copies[name] = copy.copy_(tensor, non_blocking=gpu)
            if gpu:
                self._done = self._done or torch.cuda.Event()
        if self._done is not None:
            self._done.record()

    def tensors(self) -> dict[str, Tensor]:
        """The copies, complete."""
        if self._done is not None:
            self._done.synchronize()
        return self._copies
