"""Quality against held-out images: what a model that learns its training images by heart does not improve."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from iterative_retraining.metrics.density_coverage import DensityCoverage
from iterative_retraining.metrics.fid import FID
from iterative_retraining.metrics.metric import FeatureMetric, Value, measure_all
from iterative_retraining.metrics.precision_recall import PrecisionRecall
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values

PREFIX = "held_out_"
_OF = (FID, PrecisionRecall, DensityCoverage)


def _values() -> dict[str, Value]:
    """The values of the metrics by their names with `PREFIX`; copies of training points are no better than others."""
    found = {name: value for metric in _OF for name, value in metric.values.items() if name != "rank"}
    return {PREFIX + n: Value(f"{v.label} against held-out images", v.direction, v.notices) for n, v in found.items()}


@dataclass(frozen=True)
class AgainstHeldOut(FeatureMetric):
    """FID, precision, recall, density and coverage of features (N, D) against held-out real ones (K, D).

    Against the training images these reward a model that repeats them; a held-out image it has never seen. Their values
    depend on K: the floor at the arms' own numbers is that of the training images in the place of the generated ones,
    see `ImageMetrics.floor`. Raises ValueError unless k, k_density < N, K.
    """

    k: int = PrecisionRecall.k
    k_density: int = DensityCoverage.k_density

    name: ClassVar = "held_out"
    values: ClassVar = _values()
    needs: ClassVar = frozenset({"test"})

    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        def prepare() -> Reference:
            return Reference(reference.test, device=reference.device)

        held_out = reference.once("held-out images as the reference", prepare)
        metrics = [FID(), PrecisionRecall(k=self.k), DensityCoverage(k_density=self.k_density)]
        found = measure_all(metrics, generated, held_out)
        about = {"n_generated": len(generated), "n_real": len(reference.real), "n_held_out": len(held_out.real)}
        return Values({name: found[name.removeprefix(PREFIX)] for name in self.values}, **about)
