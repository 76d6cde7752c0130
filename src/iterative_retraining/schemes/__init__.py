"""How the training set D_t of a generation is made of real data and of what earlier generations sampled.

A scheme is one class in one file, and one line in `SCHEMES`.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from iterative_retraining.errors import refuse_unknown
from iterative_retraining.interfaces import Scheme
from iterative_retraining.schemes.accumulate import Accumulate
from iterative_retraining.schemes.accumulate_subsample import AccumulateSubsample
from iterative_retraining.schemes.fresh import Fresh
from iterative_retraining.schemes.fully_synthetic import FullySynthetic
from iterative_retraining.schemes.mix import Mix
from iterative_retraining.schemes.ratio import check_lam, synthetic_count
from iterative_retraining.schemes.weighted import Weighted

__all__ = [
    "SCHEMES",
    "Accumulate",
    "AccumulateSubsample",
    "Fresh",
    "FullySynthetic",
    "Mix",
    "Weighted",
    "build_scheme",
    "check_lam",
    "has_lam",
    "scheme_defaults",
    "set_size",
    "synthetic_count",
]

SCHEMES: dict[str, type[Scheme]] = {
    "mix": Mix,
    "fully_synthetic": FullySynthetic,
    "accumulate": Accumulate,
    "accumulate_subsample": AccumulateSubsample,
    "fresh": Fresh,
    "weighted": Weighted,
}


def has_lam(name: str) -> bool:
    """Whether lam matters to the scheme called ``name``. Raises ValueError for an unknown one."""
    return "lam" in _parameters(name)


def scheme_defaults(name: str) -> dict[str, Any]:
    """The options of the scheme called ``name``, its parameters beside lam, with their defaults.

    Raises ValueError for an unknown one.
    """
    return {key: default for key, default in _parameters(name).items() if key != "lam"}


def build_scheme(name: str, lam: float | None = None, options: Mapping[str, Any] | None = None) -> Scheme:
    """The scheme called ``name`` with ``lam``, which counts where the scheme has one, and ``options`` by name.

    What is not given is as by default. Raises ValueError for unknown names and for values that are not allowed.
    """
    parameters, allowed = dict(options or {}), scheme_defaults(name)
    refuse_unknown("option", parameters, allowed, of=f"scheme {name!r}")
    if lam is not None and has_lam(name):
        parameters["lam"] = lam
    return SCHEMES[name](**parameters)


def set_size(scheme: Scheme, n_real: int, generation: int) -> int:
    """How many items the training set of ``generation`` has with ``n_real`` real data, found without any data.

    Raises what the scheme raises where it cannot go so far.
    """
    real = np.empty((n_real, 0))
    samples = np.empty((max(n_real, scheme.n_samples(n_real)), 0))
    data = scheme.training_set(real, [samples] * generation, seed=0) if generation else scheme.initial_set(real)
    return len(data)


def _parameters(name: str) -> dict[str, Any]:
    refuse_unknown("scheme", [name], SCHEMES)
    return {f.name: f.default for f in fields(SCHEMES[name])}
