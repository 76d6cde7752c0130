"""Which samples of a generation go into the next training set: as many for every selector, of as many candidates.

A selector is one class in one file, and one line in `SELECTORS`.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from iterative_retraining.errors import refuse_unknown
from iterative_retraining.interfaces import Selector
from iterative_retraining.selectors.choice import Choice
from iterative_retraining.selectors.confidence import Confidence
from iterative_retraining.selectors.density import FeatureDensity
from iterative_retraining.selectors.discriminator import Discriminator
from iterative_retraining.selectors.herding import Herding
from iterative_retraining.selectors.kmeans import KMeansCoverage
from iterative_retraining.selectors.likelihood import Likelihood
from iterative_retraining.selectors.memorisation import FLDMemorisation
from iterative_retraining.selectors.quality import FLDQuality
from iterative_retraining.selectors.selection import Selection
from iterative_retraining.selectors.share import check_keep_rate, n_candidates
from iterative_retraining.selectors.uniform import Uniform
from iterative_retraining.selectors.verifier import Verifier

__all__ = [
    "SELECTORS",
    "Selection",
    "build_selector",
    "check_keep_rate",
    "n_candidates",
    "selector_defaults",
]

SELECTORS: dict[str, type[Selector]] = {
    "random": Uniform,
    "fld_quality": FLDQuality,
    "fld_memorisation": FLDMemorisation,
    "density": FeatureDensity,
    "confidence": Confidence,
    "discriminator": Discriminator,
    "herding": Herding,
    "kmeans": KMeansCoverage,
    "likelihood": Likelihood,
    "verifier": Verifier,
    "choice": Choice,
}


def selector_defaults(name: str) -> dict[str, Any]:
    """The options of the selector called ``name`` with their defaults. Raises ValueError for an unknown one."""
    refuse_unknown("selector", [name], SELECTORS)
    return {f.name: f.default for f in fields(SELECTORS[name])}


def build_selector(name: str, options: Mapping[str, Any] | None = None) -> Selector:
    """The selector called ``name`` with ``options`` by name; what is not given is as by default.

    Raises ValueError for unknown names and for values that are not allowed.
    """
    given = dict(options or {})
    refuse_unknown("option", given, selector_defaults(name), of=f"selector {name!r}")
    return SELECTORS[name](**given)
