"""Feature spaces: one protocol, uint8 images in, float32 features out; by name; and a cache for the real images."""

import hashlib
from pathlib import Path

import numpy as np

from iterative_retraining.cache import cached_array
from iterative_retraining.interfaces import FeatureSpace
from iterative_retraining.metrics.features.classifiers import IMAGE_SIZES, ClassifierFeatures
from iterative_retraining.metrics.features.pretrained import DinoFeatures, InceptionFeatures

FEATURES = ("auto", "digits", "fashion_mnist", "inception-legacy_pytorch", "inception-clean", "dinov2")


def build_features(name: str, dataset: str, *, weights: str | Path = "", device: str = "cpu") -> FeatureSpace:
    """The feature space called ``name`` for images of ``dataset``.

    auto (the classifier of the data set), digits, fashion_mnist (those classifiers), inception-legacy_pytorch,
    inception-clean, dinov2; the last three read ``weights``. Raises ValueError for a name or weights that do not fit,
    WeightsError for weights that are missing or damaged.
    """
    if name not in FEATURES:
        raise ValueError(f"features = {name!r} is not allowed; allowed: {', '.join(FEATURES)}")
    if name == "auto":
        name = dataset
    if name.startswith("inception-"):
        return InceptionFeatures(name.removeprefix("inception-"), weights, device=device)
    if name == "dinov2":
        return DinoFeatures(weights, device=device)
    if name not in IMAGE_SIZES:
        raise ValueError(f"{dataset} has no classifier of its own; set features to one of: {', '.join(FEATURES[3:])}")
    if str(weights):
        raise ValueError(f"features_weights = {str(weights)!r} is not used by the classifier {name!r}; leave it empty")
    return ClassifierFeatures(name, device=device)


def cached(features: FeatureSpace, images: np.ndarray, folder: str | Path | None = None) -> np.ndarray:
    """``features(images)``, kept in ``folder`` under a hash of the feature space's name and of the images' content.

    folder: by default the user's cache, see `iterative_retraining.cache`. Small classifiers are not cached: they take
    less time than the hash.
    """
    if isinstance(features, ClassifierFeatures):
        return features(images)
    content = hashlib.sha256(f"{features.name} {images.dtype} {images.shape} ".encode())
    content.update(np.ascontiguousarray(images))
    name = f"{features.name}-{content.hexdigest()[:32]}"
    found = cached_array(name, lambda: features(images), n=len(images), dtype=np.float32, folder=folder)
    return np.array(found)
