"""Real-vs-real floors at the numbers of the arms."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SCALES_WITH_N = ("fid",)
"""Values whose floor is all bias and goes as 1/N + 1/M (measured for digits: README of the benchmarks)."""
DEPEND_ON_N = ("authenticity", "copied", "fld", "fld_gap", "rank")
"""Values whose floor is another at another n, in no way that is known here: halves say nothing of it."""
PREFIX = "held_out_"


class Band(NamedTuple):
    """What chance gives: mean, and 2.5 and 97.5 % where there were several draws, else the mean again."""

    low: float
    mean: float
    high: float


def band(floor: Mapping[str, Any], metric: str, n: int) -> Band | None:
    """The floor of ``metric`` for arms of ``n`` samples measured against as many real images; None where it has none.

    Of a value against held-out images: that of all training images in the place of the samples, at the very numbers of
    the arms. Else of the random halvings of the real images, n_images in a half; FID's brought to n: its expectation
    between two real sets of N and M images goes as 1/N + 1/M. Precision, recall and density do not depend on n where
    both sets have as many; coverage hardly.
    """
    if metric.startswith(PREFIX):
        value = floor.get("training", {}).get(metric)
        return None if value is None else Band(value, value, value)
    values = floor.get(metric)
    if metric in DEPEND_ON_N or not isinstance(values, list):
        return None
    scale = floor["n_images"] / n if metric in SCALES_WITH_N else 1.0
    low, high = np.quantile(values, [0.025, 0.975]) * scale
    return Band(float(low), float(np.mean(values)) * scale, float(high))


def n_of(runs: pd.DataFrame) -> int:
    """The number of real images of ``runs``, which is that of the samples that are measured; 0 if it is not told."""
    return int(runs.n_real.max()) if "n_real" in runs else 0
