"""The arms of a table of runs: an arm is one scheme with its parameters, over all seeds."""

import json
import math
from functools import cache
from typing import Any

import pandas as pd

from iterative_retraining.interfaces import Scheme
from iterative_retraining.schemes import build_scheme

KEYS = ["scheme", "lam", "scheme_options"]  # the columns that tell an arm; the last is JSON text and may be missing


@cache
def _built(scheme: str, lam: float | None, scheme_options: str) -> Scheme:
    given = {} if lam is None else {"lam": lam}
    return build_scheme(scheme, **given, options=json.loads(scheme_options))


def arm_of(scheme: str, lam: float | None = None, scheme_options: str = "{}") -> Scheme:
    """The scheme of an arm; ``lam`` is None, NaN or negative where the scheme has none."""
    missing = lam is None or math.isnan(lam) or lam < 0
    return _built(scheme, None if missing else float(lam), scheme_options)


def arm_label(scheme: str, lam: float | None = None, scheme_options: str = "{}") -> str:
    """The name of an arm in tables and legends."""
    return arm_of(scheme, lam, scheme_options).label


def arms(runs: pd.DataFrame) -> list[tuple[Scheme, pd.DataFrame]]:
    """The arms of ``runs`` in their order, each with its rows."""
    if "scheme_options" not in runs:
        runs = runs.assign(scheme_options="{}")
    found = [(arm_of(*key), table) for key, table in runs.groupby(KEYS, dropna=False, sort=False)]
    return sorted(found, key=lambda pair: pair[0].order)


def is_control(scheme: Any) -> bool:
    """Whether an arm is the control: retraining on the real data alone, at the full budget."""
    return scheme == build_scheme("mix", 0.0)
