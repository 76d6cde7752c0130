"""Entropy of the classes that a classifier sees."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import stats

from iterative_retraining.metrics.metric import FeatureMetric, Value
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values


@dataclass(frozen=True)
class ClassEntropy(FeatureMetric):
    """Entropy, in nats, of the histogram of predicted classes of features (N, D); at most ln n_classes.

    Low where a generator has lost classes; the real features do not enter. Biased downwards by about
    (n_classes - 1) / 2N. Raises ValueError if the classifier gives anything but N integers in 0..n_classes-1.
    """

    name: ClassVar = "class_entropy"
    values: ClassVar = {"class_entropy": Value("class entropy", +1, ("collapse",))}
    needs: ClassVar = frozenset({"classes"})

    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        classifier = reference.classifier
        classes, n_classes = np.asarray(classifier.classes(generated)), classifier.n_classes
        if classes.shape != generated.shape[:1] or classes.min() < 0 or classes.max() >= n_classes:
            raise ValueError(f"classes must be ({len(generated)},) integers in 0..{n_classes - 1}, got {classes}")
        histogram = np.bincount(classes, minlength=n_classes)
        about = {"n_classes": n_classes, "n_generated": len(generated), "n_real": len(reference.real)}
        return Values({"class_entropy": float(stats.entropy(histogram))}, **about)
