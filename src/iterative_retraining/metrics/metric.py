"""What a metric of features is: one object that carries all that tables, axes and tests ask of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from iterative_retraining.metrics.pairs import cross_tiles
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values

NEEDS = {"test": "held-out images (test)", "classes": "a feature space with classes"}


class Value(NamedTuple):
    """One value that a metric yields.

    direction: +1 where higher is better, -1 where lower is, 0 where neither. notices: the failures that move it the
    worse way from fresh real data, of "noise" (real points spread out), "collapse" (drawn together to one point) and
    "copies" (of training points); empty where the direction is 0.
    """

    label: str
    direction: int = 0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureMetric(ABC):
    """A metric, or a group of them that one computation gives, of generated features (N, D) against real ones (M, D).

    Its fields are its settings. A subclass stands in a file of its own and in the registry METRICS.
    """

    name: ClassVar[str]
    values: ClassVar[Mapping[str, Value]]
    """The values that it yields, by the name of each in ledgers."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What the reference must offer, of NEEDS."""

    @abstractmethod
    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        """The values of checked features (N, D); ``about`` has n_generated, n_real and the settings.

        Raises ValueError for too few points.
        """

    def __call__(self, generated: np.ndarray, *, real: np.ndarray, device: str = "cpu", **beside: Any) -> Values:
        """`measure` of two feature sets (N, D) and (M, D); ``beside``: test and classifier, as in `Reference`.

        Raises ValueError or TypeError for bad features, too few points, or where the metric needs more.
        """
        reference = Reference(real, device=device, **beside)
        check_needs(self, reference)
        return measure_all([self], generated, reference)


class Scan(Protocol):
    """What gathers values from the distances of all pairs, handed to it tile by tile."""

    def update(self, rows: slice, columns: slice, tile: Tensor) -> None:
        """Takes the squared distances of generated ``rows`` to real ``columns``."""

    def values(self) -> Values:
        """The values, after all tiles."""


class PairMetric(FeatureMetric):
    """A metric of the distances between generated and real points. All that are asked for share one pass over them."""

    @property
    @abstractmethod
    def n_neighbours(self) -> int:
        """How many nearest neighbours of each real point among the real ones it reads."""

    @abstractmethod
    def scan(self, generated: np.ndarray, reference: Reference) -> Scan:
        """What gathers its values in one pass."""

    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        return _one_pass([self], generated, reference)[self.name]


def measure_all(metrics: Sequence[FeatureMetric], generated: np.ndarray, reference: Reference) -> Values:
    """The values of all metrics in their order; those of distances from one pass over the pairs.

    Raises ValueError or TypeError for bad features or too few points.
    """
    reference.check(generated)
    found = _one_pass([metric for metric in metrics if isinstance(metric, PairMetric)], generated, reference)
    joined = Values({})
    for metric in metrics:
        joined |= found[metric.name] if metric.name in found else metric.measure(generated, reference)
    return joined


def _one_pass(metrics: Sequence[PairMetric], generated: np.ndarray, reference: Reference) -> dict[str, Values]:
    if not metrics:
        return {}
    reference.nearest(max(metric.n_neighbours for metric in metrics))  # one search for all of them
    scans = {metric.name: metric.scan(generated, reference) for metric in metrics}
    for rows, columns, tile in cross_tiles(generated, reference.real, device=reference.device):
        for scan in scans.values():
            scan.update(rows, columns, tile)
    return {name: scan.values() for name, scan in scans.items()}


def check_needs(metric: FeatureMetric, reference: Reference) -> None:
    """Raises ValueError where the reference does not offer what the metric needs."""
    missing = [NEEDS[need] for need in sorted(metric.needs - reference.offers)]
    if missing:
        raise ValueError(f"the metric {metric.name!r} needs {' and '.join(missing)}; give it, or leave the metric out")


def choose(
    registry: Mapping[str, type[FeatureMetric]],
    names: Iterable[str] | None,
    reference: Reference,
    settings: Mapping[str, Any],
) -> list[FeatureMetric]:
    """The metrics called ``names``, or all whose needs are met, with ``settings``: each takes those that it has.

    Raises ValueError for an unknown name or setting, or a metric whose needs are not met.
    """
    chosen = list(registry) if names is None else list(names)
    unknown = [name for name in chosen if name not in registry]
    if unknown:
        raise ValueError(f"the metric {unknown[0]!r} is not known; known: {', '.join(registry)}")
    if names is None:
        chosen = [name for name in chosen if registry[name].needs <= reference.offers]
    allowed = {name: {field.name for field in fields(registry[name])} for name in chosen}
    known = sorted({setting for of_one in allowed.values() for setting in of_one})
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{setting!r} is no setting of {', '.join(chosen)}; allowed: {', '.join(known)}")
    metrics = [registry[n](**{key: v for key, v in settings.items() if key in allowed[n]}) for n in chosen]
    for metric in metrics:
        check_needs(metric, reference)
    return metrics
