"""Metrics and features on a GPU as on a CPU."""

import numpy as np
import pytest

from iterative_retraining.datasets import load_dataset
from iterative_retraining.metrics import compare
from iterative_retraining.metrics.features import build_features

from conftest import DEVICES


class Signs:
    """A classifier of four classes: the signs of the first two features."""

    n_classes = 4

    def classes(self, features: np.ndarray) -> np.ndarray:
        return (features[:, 0] > 0) + 2 * (features[:, 1] > 0)


@pytest.mark.parametrize("device", DEVICES)
def test_metrics_are_those_of_a_cpu(device):
    """All of the registry, to 1e-6; FLD, where an optimiser stops somewhere, to 1e-3."""
    rng = np.random.default_rng(0)
    real, test, generated = (rng.normal(size=(n, 64)).astype(np.float32) for n in (700, 500, 650))
    asked = {"real": real, "test": test, "classifier": Signs()}
    found, expected = (compare(1.1 * generated, device=one, **asked) for one in (device, "cpu"))
    assert len(found) > 12
    for name, value in expected.items():
        rel, least = (1e-3, 1e-2) if "fld" in name else (1e-6, 1e-9)
        assert found[name] == pytest.approx(value, rel=rel, abs=least), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("features", "dataset"), [("digits", "digits"), ("inception-random", "photos32")])
def test_features_are_those_of_a_cpu(features, dataset, device):
    """Inception's from images that are resized in batches, against those of one by one."""
    images = load_dataset(dataset)[0][:3]
    batched = {"resizing": "batched"} if features.startswith("inception") else {}
    found, expected = (
        build_features(features, dataset, device=one, **how)(images) for one, how in ((device, batched), ("cpu", {}))
    )
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected)
