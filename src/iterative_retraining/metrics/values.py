"""What a metric returns: a mapping of names to numbers that knows how they were made."""

from collections.abc import Mapping
from typing import Any


class Values(dict[str, float]):
    """{name: value}; `about` says with which settings and counts: k, tie rule, n, rank, estimator."""

    def __init__(self, values: Mapping[str, float], **about: Any) -> None:
        super().__init__(values)
        self.about: dict[str, Any] = about

    def __or__(self, other: Mapping[str, float]) -> "Values":
        return Values({**self, **other}, **{**self.about, **getattr(other, "about", {})})

    __ior__ = __or__
