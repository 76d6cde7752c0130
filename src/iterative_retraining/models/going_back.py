"""Going back from a retraining on own samples, and further: weights on the other side of where one started."""

from collections.abc import Mapping

import numpy as np

from iterative_retraining.models.training import CARRIED

State = Mapping[str, np.ndarray]


def going_back(start: State, retrained: State, weight: float) -> dict[str, np.ndarray]:
    """theta_0 - w (theta_1 - theta_0), as in Neon (arXiv 2510.03597), of two states of one network.

    start: theta_0. retrained: theta_1, after a retraining on samples of theta_0. ``weight`` = 0 gives theta_0 and -1
    gives theta_1. Whole numbers, and what a fit hands to the next one, are those of ``start``: the moments of an
    optimizer belong to where it stood. Raises ValueError for states that differ in names or shapes.
    """
    first, second = (
        {name: array.shape for name, array in s.items() if not name.startswith(CARRIED)} for s in (start, retrained)
    )
    if first != second:
        name = next(n for n in sorted(first | second) if first.get(n) != second.get(n))
        raise ValueError(f"the states are of two networks: {name!r} is {first.get(name)} and {second.get(name)}")
    moved = {name: np.array(array) for name, array in start.items()}
    for name in first:
        if np.issubdtype(moved[name].dtype, np.floating):
            a, b = moved[name].astype(np.float64), retrained[name].astype(np.float64)
            moved[name] = (a - weight * (b - a)).astype(moved[name].dtype)
    return moved
