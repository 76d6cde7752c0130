"""The Runge-Kutta method of Dormand and Prince (1980), in which every item of a batch has steps of its own."""

from collections.abc import Callable, Sequence

import torch
from scipy.integrate import RK45
from torch import Tensor

from iterative_retraining.models.process import wide

STAGES = [
    row[:stage].tolist() for stage, row in enumerate([*RK45.A[1:], RK45.B], start=1)
]  # the last is the step's end
NODES, ERROR = [*RK45.C[1:].tolist(), 1.0], RK45.E.tolist()


def dopri5(
    velocity: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    times: Sequence[float] = (0.0, 1.0),
    *,
    tolerance: float,
) -> Tensor:
    """The flow dx/dt = v(x, t) from ``start`` (B, ...) at the first of ``times`` to the last, float64; takes t (B,).

    A step of an item is kept if the root mean square of its error, in units of tolerance (1 + |x|), is at most 1
    (Hairer, Norsett and Wanner 1993, II.4, whose control of the next step this is). No item's steps depend on those
    of another, unlike in torchdiffeq, so an item is the same in any batch, which takes as many steps as its slowest
    item. One that is not finite ends as it is.

    Raises FloatingPointError if the tolerance cannot be reached.
    """
    x, last = start.double(), times[-1]
    t = torch.full((len(start),), times[0], dtype=torch.float64, device=start.device)
    h, slope = torch.full_like(t, tolerance ** (1 / 5)), velocity(x, t)
    while (going := t < last).any():
        if (going & (h < 1e-12)).any():
            raise FloatingPointError(f"tolerance = {tolerance} cannot be reached; take a larger one")
        step = torch.minimum(h, last - t)  # 0 for an item that has arrived
        slopes = [slope]
        for node, weights in zip(NODES, STAGES, strict=True):
            end = x + wide(step, x) * sum(w * s for w, s in zip(weights, slopes, strict=True))
            slopes.append(velocity(end, t + node * step))
        error = wide(step, x) * sum(w * s for w, s in zip(ERROR, slopes, strict=True))
        scaled = error / (tolerance * (1 + torch.maximum(x.abs(), end.abs())))
        size = scaled.flatten(1).square().mean(dim=1).sqrt()
        kept = ~(size > 1)
        x, slope = (torch.where(wide(kept, x), new, old) for new, old in ((end, x), (slopes[-1], slope)))
        t = torch.where(kept, t + step, t)
        h = step * (0.9 * size.clamp(min=1e-10) ** (-1 / 5)).clamp(0.2, 10)
    return x
