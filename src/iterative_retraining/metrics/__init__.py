"""Metrics of generated images: one file a metric, METRICS by name, and all of them together as `ImageMetrics`."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from iterative_retraining.files import data_sha256
from iterative_retraining.interfaces import FeatureSpace
from iterative_retraining.metrics.class_entropy import ClassEntropy
from iterative_retraining.metrics.density_coverage import DensityCoverage
from iterative_retraining.metrics.features import cached
from iterative_retraining.metrics.fid import FID
from iterative_retraining.metrics.held_out import AgainstHeldOut
from iterative_retraining.metrics.kid import KID
from iterative_retraining.metrics.likelihood import FLD
from iterative_retraining.metrics.memorisation import Memorisation
from iterative_retraining.metrics.metric import FeatureMetric, choose, measure_all
from iterative_retraining.metrics.minorities import RarestClass, RarestTenth
from iterative_retraining.metrics.model_loss import MODEL_VALUES
from iterative_retraining.metrics.pixels import PIXEL_VALUES, pixel_variance
from iterative_retraining.metrics.precision_recall import PrecisionRecall
from iterative_retraining.metrics.reference import Classifier, Reference
from iterative_retraining.metrics.values import Values
from iterative_retraining.seeding import generator

METRICS: dict[str, type[FeatureMetric]] = {
    "fid": FID,
    "kid": KID,
    "precision_recall": PrecisionRecall,
    "density_coverage": DensityCoverage,
    "memorisation": Memorisation,
    "fld": FLD,
    "class_entropy": ClassEntropy,
    "held_out": AgainstHeldOut,
    "rarest_class": RarestClass,
    "rarest_tenth": RarestTenth,
}
VALUES = {name: value for metric in METRICS.values() for name, value in metric.values.items()}
BESIDE_FEATURES = PIXEL_VALUES | MODEL_VALUES
"""Values of images and of models themselves, which no metric of features yields."""


def label_of(value_name: str) -> str:
    """What tables and axes call the value of a metric; its name, spaced, where no metric here yields it."""
    known = VALUES | BESIDE_FEATURES
    return known[value_name].label if value_name in known else value_name.replace("_", " ")


def direction_of(value_name: str) -> int:
    """+1 where higher is better, -1 where lower is; 0 where neither, or where no metric here yields the value."""
    known = VALUES | BESIDE_FEATURES
    return known[value_name].direction if value_name in known else 0


class FeatureMetrics:
    """Metrics of generated features (N, D) against real ones (M, D); what the real ones give is computed once.

    test: held-out real features (K, D). names: of METRICS, by default all whose needs test and classifier meet.
    settings: of those metrics, such as k and k_density; each takes those that it has.
    Raises ValueError or TypeError for bad features, a name or setting that is not known, or needs that are not met.
    """

    def __init__(
        self,
        real: np.ndarray,
        test: np.ndarray | None = None,
        *,
        names: Iterable[str] | None = None,
        classifier: Classifier | None = None,
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        self.reference = Reference(real, test, classifier=classifier, device=device)
        self.metrics = choose(METRICS, names, self.reference, settings)

    def __call__(self, generated: np.ndarray) -> Values:
        return measure_all(self.metrics, generated, self.reference)


def compare(generated: np.ndarray, *, real: np.ndarray, **settings: Any) -> Values:
    """`FeatureMetrics` of two feature sets (N, D) and (M, D)."""
    return FeatureMetrics(real, **settings)(generated)


class ImageMetrics:
    """`FeatureMetrics` of images, uint8 (N, H, W, C), in the space of ``features``.

    test: held-out real images. names and settings: as in `FeatureMetrics`; a feature space with classes is a
    classifier too. The real features of published networks are kept in a cache, see `metrics.features.cached`.
    """

    def __init__(
        self,
        features: FeatureSpace,
        *,
        names: Iterable[str] | None = None,
        test: np.ndarray | None = None,
        device: str = "cpu",
        **settings: Any,
    ) -> None:
        self.features, self.test, self.device = features, test, device
        classifier = features if hasattr(features, "classes") else None
        self._given = {"names": names, "classifier": classifier, "device": device, **settings}
        self._real: np.ndarray | None = None
        self.shared: np.ndarray | None = None
        """Generated images whose features other runs need too: they are kept in the cache."""

    def _prepare(self, real: np.ndarray) -> None:
        if self._real is real:
            return
        self.test_features = None if self.test is None else cached(self.features, self.test)
        self.real_features = cached(self.features, real)
        self._metrics = FeatureMetrics(self.real_features, self.test_features, **self._given)
        self._real = real

    def names(self, real: np.ndarray) -> list[str]:
        """The keys in METRICS of what is measured against ``real``."""
        self._prepare(real)
        return [metric.name for metric in self._metrics.metrics]

    def __call__(self, generated: np.ndarray, *, real: np.ndarray) -> Values:
        self._prepare(real)
        shared = self.shared is not None and np.array_equal(generated, self.shared[: len(generated)])
        features = cached(self.features, generated) if shared else self.features(generated)
        found = self._metrics(features) | pixel_variance(generated)
        return found | Values({}, features=self.features.name)

    def key(self, real: np.ndarray) -> str:
        """A hash of all that its values against ``real`` depend on, but for the code and the machine."""
        self._prepare(real)
        features = [array for array in (self.real_features, self.test_features) if array is not None]
        settings = sorted((name, repr(value)) for name, value in self._given.items() if name != "classifier")
        digests = [data_sha256(array) for array in (real, *features)]
        return hashlib.sha256(repr([self.features.name, self.names(real), settings, digests]).encode()).hexdigest()

    def floor(self, real: np.ndarray, *, seed: int, n_splits: int = 20) -> dict[str, Any]:
        """What chance gives: the same metrics between real images and other real ones, the real-vs-real floors.

        Two of them. Of halves: a list for each value, over ``n_splits`` random halvings of ``real`` (M images), one
        half in the place of the generated images; n_generated and n_real say that both hold M/2, so the floor of FID,
        whose bias goes as 1/n, stands above what two sets of M would give, and coverage and the like differ too.
        Of held-out images ("held_out", where there are some): they in the place of the generated ones, against all of
        ``real``, which is the very reference of the arms; one number for each value, with its own n_generated and
        n_real. It is the floor of arms that are measured on as many images as are held out. Metrics that need the
        held-out images themselves are not in it.
        Of training images ("training"): all of ``real`` in the place of the generated ones, against the held-out
        images. It is the floor of the metrics against held-out images at the arms' own numbers.
        With them the settings: n_images (in a half), features, k, tie rule, and all that the halvings have in common.
        """
        self._prepare(real)
        rng, half = generator(seed), len(real) // 2
        rows = []
        for _ in range(n_splits):
            order = rng.permutation(len(real))
            a, b = self.real_features[order[:half]], self.real_features[order[half : 2 * half]]
            found = compare(a, real=b, test=self.test_features, **self._given)
            rows.append(found | pixel_variance(real[order[:half]]))
        about = {key: value for key, value in rows[0].about.items() if all(row.about[key] == value for row in rows)}
        about |= {"n_images": half, "features": self.features.name} | self._held_out()
        return about | {name: [row[name] for row in rows] for name in rows[0]}

    def _held_out(self) -> dict[str, Any]:
        """The floors that take held-out images, under their names, or nothing."""
        if self.test_features is None:
            return {}
        metrics = [metric for metric in self._metrics.metrics if "test" not in metric.needs]
        found = measure_all(metrics, self.test_features, self._metrics.reference) | pixel_variance(self.test)
        floors = {"held_out": {name: found.about[name] for name in ("n_generated", "n_real")} | found}
        against = [metric for metric in self._metrics.metrics if isinstance(metric, AgainstHeldOut)]
        if against:
            found = measure_all(against, self.real_features, self._metrics.reference)
            floors["training"] = {name: found.about[name] for name in ("n_generated", "n_held_out")} | found
        return floors
