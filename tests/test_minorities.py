"""Shares of minorities against their definitions by brute force."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from iterative_retraining.metrics import pairs
from iterative_retraining.metrics.minorities import RarestClass, RarestTenth

RNG = np.random.default_rng(0)


class FirstFeature:
    n_classes = 10

    def classes(self, features):
        return features[:, 0].astype(int)


def share_by_hand(generated: np.ndarray, real: np.ndarray, k: int) -> float:
    radii = np.sort(cdist(real, real), axis=1)[:, k]  # itself is the nearest
    n_rare = int(np.ceil(len(real) / 10))
    rare = set(sorted(range(len(real)), key=lambda i: (-radii[i], i))[:n_rare])
    found = 0
    for distances in cdist(generated, real):
        nearest = int(np.argmin(distances))
        found += nearest in rare and distances[nearest] < radii[nearest]
    return found / len(generated)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("tile", [2048, 16])
def test_the_rarest_tenth_by_definition(k, tile, monkeypatch):
    monkeypatch.setattr(pairs, "TILE", tile)
    rng = np.random.default_rng(4)
    real = rng.standard_t(3, size=(83, 3))
    generated = np.concatenate([real[:40] + 0.1 * rng.normal(size=(40, 3)), rng.standard_t(3, size=(30, 3))])
    found = RarestTenth(k_rare=k)(generated, real=real)
    assert found["rarest_tenth"] == share_by_hand(generated, real, k)
    assert 0 < found["rarest_tenth"] < 0.5
    assert found.about["k_rare"] == k


def test_copies_of_the_real_points_hold_a_tenth_and_noise_and_the_middle_none():
    real = RNG.normal(size=(200, 2))
    assert RarestTenth()(real, real=real)["rarest_tenth"] == 0.1
    assert RarestTenth()(real + 100, real=real)["rarest_tenth"] == 0
    assert RarestTenth()(0.1 * real, real=real)["rarest_tenth"] == 0


def test_the_rarest_class_is_that_of_the_real_points():
    real = np.array([2.0] * 5 + [4] * 2 + [7] * 2 + [3] * 9)[:, None]
    generated = np.array([4.0, 4, 7, 2, 9, 9, 9, 9])[:, None]
    found = RarestClass()(generated, real=real, classifier=FirstFeature())
    assert found["rarest_class"] == 2 / 8
    assert found.about["rarest_class_of_real"] == 2 / 18
