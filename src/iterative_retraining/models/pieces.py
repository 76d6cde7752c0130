"""A batch in pieces: a few images at a time through the network, which takes less memory, under the same noise."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def pieces(rows: slice, size: int) -> list[slice]:
    """``rows`` cut into slices of ``size``, the last one smaller; 0 for one slice of all."""
    step = size or max(1, rows.stop - rows.start)
    return [slice(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step)]


class DropoutByIndex(TorchFunctionMode):
    """Inside, dropout on the images ``rows`` of a batch of ``n`` draws the masks that the whole batch would have.

    Every layer draws the masks of all ``n`` and takes its own. So with one seed for all pieces of a batch a mask
    depends on the step, the layer and the place of the image in the batch, not on the pieces. On a CPU the masks are
    the very ones of `torch.nn.functional.dropout` on the whole batch. Code of torch.compile draws its own and is not
    reached.
    """

    def __init__(self, n: int, rows: slice) -> None:
        super().__init__()
        self.n, self.rows = n, rows

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """``func``, but for dropout."""
        return (self._dropout if func is F.dropout else func)(*args, **(kwargs or {}))

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        """x (B, ...), of the images ``rows``, with a share p of its numbers set to 0 and the others scaled up."""
        if not training or p == 0:
            return x
        nhwc = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        form = torch.channels_last if nhwc else torch.contiguous_format
        kept = torch.empty((self.n, *x.shape[1:]), dtype=torch.bool, device=x.device, memory_format=form)
        return x * kept.bernoulli_(1 - p)[self.rows] * (1 / (1 - p))
