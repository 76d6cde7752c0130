"""Feature spaces: one file a kind, uint8 images in, float32 features out; and a cache for the real images."""

import hashlib
from pathlib import Path

import numpy as np

from iterative_retraining.cache import cached_array
from iterative_retraining.datasets import find_dataset
from iterative_retraining.errors import ConfigError, refuse_unknown
from iterative_retraining.interfaces import FeatureSpace
from iterative_retraining.metrics.features.checks import FeatureEntry
from iterative_retraining.metrics.features.classifiers import DIGITS, FASHION_MNIST, FASHION_MNIST14, ClassifierFeatures
from iterative_retraining.metrics.features.dino import DINOV2
from iterative_retraining.metrics.features.inception import (
    INCEPTION_CLEAN,
    INCEPTION_LEGACY_PYTORCH,
    InceptionSpace,
)
from iterative_retraining.metrics.features.random_inception import INCEPTION_RANDOM
from iterative_retraining.metrics.features.resizing import check_resizing

FEATURES: dict[str, FeatureEntry] = {
    "digits": DIGITS,
    "fashion_mnist": FASHION_MNIST,
    "fashion_mnist14": FASHION_MNIST14,
    "inception-legacy_pytorch": INCEPTION_LEGACY_PYTORCH,
    "inception-clean": INCEPTION_CLEAN,
    "dinov2": DINOV2,
    "inception-random": INCEPTION_RANDOM,
}
AUTO = "auto"


def build_features(
    name: str, dataset: str, *, weights: str | Path = "", device: str = "cpu", resizing: str = "auto"
) -> FeatureSpace:
    """The feature space called ``name`` for images of ``dataset``; "auto" is the one that the data set names.

    weights: a file or folder, for those that need one. resizing: see `inception.InceptionFeatures`. Raises ConfigError
    for a name, a data set, weights or a resizing that do not fit, WeightsError for weights that are missing or damaged.
    """
    data = find_dataset(dataset)
    refuse_unknown("features", [name], (AUTO, *FEATURES))
    entry = FEATURES[data.features if name == AUTO else name]
    if entry.shape not in (None, data.shape):
        fitting = [AUTO, *(other.name for other in FEATURES.values() if other.shape in (None, data.shape))]
        raise ConfigError(
            f"features = {name!r} is not allowed: it takes images {entry.shape}, those of {dataset} are {data.shape}; "
            f"set features to one of: {', '.join(fitting)}"
        )
    if str(weights) and not entry.needs_weights:
        raise ConfigError(f"features_weights = {str(weights)!r} is not used by features {entry.name!r}; leave it empty")
    check_resizing(resizing)
    if isinstance(entry, InceptionSpace):
        return entry.build(weights, device, resizing)
    if resizing != "auto":
        raise ConfigError(f"features_resizing = {resizing!r} is not used by features {entry.name!r}; leave it 'auto'")
    return entry.build(weights, device)


def cached(features: FeatureSpace, images: np.ndarray, folder: str | Path | None = None) -> np.ndarray:
    """``features(images)``, kept in ``folder`` under a hash of the feature space's name and of the images' content.

    folder: by default the user's cache, see `iterative_retraining.cache`. Small classifiers are not cached: they take
    less time than the hash.
    """
    if isinstance(features, ClassifierFeatures):
        return features(images)
    how = "batched " if getattr(features, "resizing", "exact") == "batched" else ""  # rounds in another way
    content = hashlib.sha256(f"{features.name} {how}{images.dtype} {images.shape} ".encode())
    content.update(np.ascontiguousarray(images))
    name = f"{features.name}-{content.hexdigest()[:32]}"
    found = cached_array(name, lambda: features(images), n=len(images), dtype=np.float32, folder=folder)
    return np.array(found)
