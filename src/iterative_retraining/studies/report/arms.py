"""The arms of a table of runs: an arm is one scheme, with its selector if it has one, over all seeds."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd

from iterative_retraining.interfaces import Scheme, Selector
from iterative_retraining.schemes import build_scheme
from iterative_retraining.selectors import SELECTORS, build_selector

DEFAULTS = {"scheme_options": "{}", "selector": "", "keep_rate": math.nan, "selector_options": "{}"}
KEYS = ["scheme", "lam", *DEFAULTS]  # the columns that tell an arm; options are JSON text; all but two may be missing


@dataclass(frozen=True)
class SelectedArm:
    """A scheme whose samples a selector has chosen; what tables and figures ask of an arm."""

    scheme: Scheme
    selector: Selector
    keep_rate: float

    @property
    def name(self) -> str:
        """Of the scheme."""
        return self.scheme.name

    @property
    def label(self) -> str:
        """Such as "λ = 1, random, 0.5 kept"."""
        return f"{self.scheme.label}, {self.selector.label}, {self.keep_rate:g} kept"

    @property
    def style(self) -> Mapping[str, Any]:
        """The line of the scheme, colour and marker of the selector."""
        return {**self.scheme.style, **self.selector.style}

    @property
    def order(self) -> float:
        """After all arms without a selector: by scheme, then by selector."""
        names = list(SELECTORS)
        place = names.index(self.selector.name) if self.selector.name in names else len(names)
        return 1e9 + 1e3 * self.scheme.order + place + self.keep_rate / 10


@cache
def _built(scheme: str, lam: float | None, scheme_options: str) -> Scheme:
    given = {} if lam is None else {"lam": lam}
    return build_scheme(scheme, **given, options=json.loads(scheme_options))


def arm_of(
    scheme: str,
    lam: float | None = None,
    scheme_options: str = "{}",
    selector: str | float = "",
    keep_rate: float = math.nan,
    selector_options: str | float = "{}",
) -> Scheme | SelectedArm:
    """An arm: its scheme, with its selector if it has one. ``lam`` is None, NaN or negative where the scheme has none;
    what a table does not say of a selector is NaN."""
    missing = lam is None or math.isnan(lam) or lam < 0
    built = _built(scheme, None if missing else float(lam), scheme_options)
    if not isinstance(selector, str) or not selector:
        return built
    return SelectedArm(built, build_selector(selector, json.loads(str(selector_options))), float(keep_rate))


def arm_label(*key: Any, **named: Any) -> str:
    """The name of an arm in tables and legends; what tells it as for `arm_of`."""
    return arm_of(*key, **named).label


def has_selector(runs: pd.DataFrame) -> pd.Series:
    """Of every row, whether a selector chose among the samples of its run."""
    if "selector" not in runs:
        return pd.Series(False, index=runs.index)
    return runs.selector.fillna("") != ""


def arms(runs: pd.DataFrame) -> list[tuple[Scheme | SelectedArm, pd.DataFrame]]:
    """The arms of ``runs`` in their order, each with its rows."""
    runs = runs.assign(**{key: value for key, value in DEFAULTS.items() if key not in runs})
    found = [(arm_of(*key), table) for key, table in runs.groupby(KEYS, dropna=False, sort=False)]
    return sorted(found, key=lambda pair: pair[0].order)


def is_control(scheme: Any) -> bool:
    """Whether an arm is the control: retraining on the real data alone, at the full budget."""
    return scheme == build_scheme("mix", 0.0)
