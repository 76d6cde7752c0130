"""Metrics of a generation: callables ``(generated, *, real) -> {name: value}``."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from iterative_retraining.interfaces import FeatureSpace
from iterative_retraining.metrics.distances import class_entropy, fid, fld, kid, moments
from iterative_retraining.metrics.features import cached
from iterative_retraining.metrics.neighbours import neighbour_metrics
from iterative_retraining.metrics.pairs import nearest_others
from iterative_retraining.metrics.values import Values
from iterative_retraining.seeding import generator


@dataclass(frozen=True)
class FeatureMetrics:
    """All metrics of generated features (N, D) against real ones (M, D); what the real ones give is computed once,
    but for the kernel sums of KID.

    k, k_density: neighbours, besides the point itself, that set the radii of precision and recall (3, as the authors'
    metric has it) and of density and coverage (5, Naeem et al. 2020). test: held-out real features (K, D), for FLD;
    without them there is no FLD. Values: fid, rank (of the generated covariance), kid, kid_standard_error, precision,
    recall, density, coverage, authenticity, copied, and fld, fld_gap.
    """

    real: np.ndarray
    test: np.ndarray | None = None
    k: int = 3
    k_density: int = 5
    device: str = "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_moments", moments(self.real, device=self.device))
        nearest = nearest_others(self.real, max(self.k, self.k_density), device=self.device)
        object.__setattr__(self, "_nearest", nearest)
        object.__setattr__(self, "_baselines", {})  # of FLD, by the number of generated points

    def __call__(self, generated: np.ndarray) -> Values:
        given: dict[str, Any] = {"real": self.real, "device": self.device}
        values = fid(generated, real_moments=self._moments, **given)
        values |= {"rank": float(values.about["rank_generated"])}
        values |= kid(generated, **given)
        values |= neighbour_metrics(generated, k=self.k, k_density=self.k_density, real_nearest=self._nearest, **given)
        if self.test is None:
            return values
        values |= fld(generated, test=self.test, baseline_nll=self._baselines.get(len(generated)), **given)
        self._baselines[len(generated)] = values.about["baseline_nll"]
        return values


def compare(generated: np.ndarray, *, real: np.ndarray, **settings: Any) -> Values:
    """`FeatureMetrics` of two feature sets (N, D) and (M, D)."""
    return FeatureMetrics(real, **settings)(generated)


class ImageMetrics:
    """`FeatureMetrics` of images, uint8 (N, H, W, C), in the space of ``features``.

    test: held-out real images, for FLD. Where the feature space is a classifier's, class_entropy too. The real features
    of published networks are kept in a cache, see `iterative_retraining.metrics.features.cached`.
    """

    def __init__(
        self,
        features: FeatureSpace,
        *,
        k: int = 3,
        k_density: int = 5,
        test: np.ndarray | None = None,
        device: str = "cpu",
    ) -> None:
        self.features, self.test = features, test
        self.settings: dict[str, Any] = {"k": k, "k_density": k_density}
        self.device = device
        self._real: np.ndarray | None = None

    def _prepare(self, real: np.ndarray) -> None:
        if self._real is real:
            return
        self.test_features = None if self.test is None else cached(self.features, self.test)
        self.real_features = cached(self.features, real)
        self._metrics = FeatureMetrics(self.real_features, self.test_features, device=self.device, **self.settings)
        self._real = real

    def __call__(self, generated: np.ndarray, *, real: np.ndarray) -> Values:
        self._prepare(real)
        found = self.features(generated)
        return self._metrics(found) | self._entropy(found) | Values({}, features=self.features.name)

    def _entropy(self, found: np.ndarray) -> Values:
        classify = getattr(self.features, "classes", None)
        return Values({}) if classify is None else class_entropy(classify(found), self.features.n_classes)

    def floor(self, real: np.ndarray, *, seed: int, n_splits: int = 20) -> dict[str, Any]:
        """The same metrics between the two halves of ``real``, for ``n_splits`` random halvings: what chance gives.

        Returns a list of values for each metric, and the settings: n_images (in a half), features, k, tie rule, ...
        Halves hold n/2 images each, so the floor of FID, whose bias goes as 1/n, stands a little above what two sets
        of n real images would give.
        """
        self._prepare(real)
        rng, half = generator(seed), len(real) // 2
        rows = []
        for _ in range(n_splits):
            order = rng.permutation(len(real))
            a, b = self.real_features[order[:half]], self.real_features[order[half : 2 * half]]
            found = compare(a, real=b, test=self.test_features, device=self.device, **self.settings)
            rows.append(found | self._entropy(a))
        about = {key: rows[0].about[key] for key in ("k", "k_density", "tie_rule", "kernel", "copy_ratio")}
        about = {"n_images": half, "features": self.features.name} | about
        return about | {name: [row[name] for row in rows] for name in rows[0]}
