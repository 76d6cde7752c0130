import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from sklearn.neighbors import NearestNeighbors

from iterative_retraining.metrics import ImageMetrics, distances
from iterative_retraining.metrics.distances import frechet_distance, knn_radii, moments, precision_recall

RNG = np.random.default_rng(0)


def random_cov(dim, rank, seed):
    root = np.random.default_rng(seed).normal(size=(dim, rank))
    return root @ root.T


def test_frechet_distance_of_commuting_covariances_is_closed_form():
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 1.0, 0.0])
    expected = 3.0 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    rotation = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    found = frechet_distance(np.ones(3), rotation * a @ rotation.T, np.zeros(3), rotation * b @ rotation.T)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 5, 64])
def test_frechet_distance_equals_the_matrix_square_root(dim):
    a, b = random_cov(dim, dim + 5, 1), random_cov(dim, dim + 5, 2)
    m = RNG.normal(size=dim)
    expected = m @ m + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    np.testing.assert_allclose(frechet_distance(m, a, np.zeros(dim), b), expected, rtol=1e-9)


@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_frechet_distance_is_real_symmetric_and_zero_on_itself_at_any_rank(dim, rank1, rank2, seed):
    a, b = random_cov(dim, rank1, seed), random_cov(dim, rank2, seed + 1)
    zero = np.zeros(dim)
    forward, backward = frechet_distance(zero, a, zero, b), frechet_distance(zero, b, zero, a)
    assert forward >= 0
    np.testing.assert_allclose(forward, backward, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(frechet_distance(zero, a, zero, a), 0, atol=1e-5 * (1 + np.trace(a)))


def test_frechet_distance_refuses_bad_input():
    with pytest.raises(ValueError, match="shapes disagree"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(2), np.eye(2) * np.nan, np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        moments(np.zeros((1, 3)))


def test_radii_equal_those_of_scikit_learn():
    x = RNG.normal(size=(200, 6))
    expected = NearestNeighbors(n_neighbors=4).fit(x).kneighbors(x)[0][:, 3]
    np.testing.assert_allclose(knn_radii(x, 3), expected, rtol=1e-12)


def test_precision_recall_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    generated = np.array([[0.5], [3.5], [4.5], [5.5]])
    # k = 1: radii of real 1, 1, 1, 8; of generated 3, 1, 1, 1
    assert precision_recall(generated, real=real, k=1) == {"precision": 1.0, "recall": 0.75}


def test_chunks_do_not_change_the_result(monkeypatch):
    a, b = RNG.normal(size=(150, 4)), RNG.normal(size=(130, 4)) * 1.3
    whole = precision_recall(a, real=b)
    monkeypatch.setattr(distances, "CHUNK_BYTES", 8 * 130 * 7)
    assert precision_recall(a, real=b) == whole


def test_direction_a_tight_cluster_is_precise_and_a_wide_set_covers():
    real = RNG.normal(size=(500, 3))
    tight = precision_recall(RNG.normal(size=(500, 3)) * 0.1, real=real)
    wide = precision_recall(RNG.normal(size=(500, 3)) * 4, real=real)
    assert tight["precision"] > 0.95 > 0.1 > tight["recall"]
    assert wide["recall"] > 0.95 > 0.4 > wide["precision"]


def test_a_generator_that_repeats_one_point_has_recall_zero():
    real = RNG.normal(size=(50, 2))
    assert precision_recall(np.repeat(real[:1], 50, axis=0), real=real) == {"precision": 1.0, "recall": 0.0}


def test_too_many_neighbours_are_refused():
    with pytest.raises(ValueError, match="k = 3 is not allowed with 3 images"):
        knn_radii(np.zeros((3, 2)), 3)


def test_image_metrics_is_compare_on_features_and_caches_the_real_set(digits):
    calls = []

    def pixels(images):
        calls.append(len(images))
        return images.reshape(len(images), -1)[:, 20:30].astype(np.float32)

    metric, generated = ImageMetrics(pixels), digits[::-1].copy()
    generated[:900] = digits[:900]
    first, second = metric(generated, real=digits), metric(generated[:500], real=digits)
    assert calls == [1797, 1797, 500]
    expected = precision_recall(pixels(generated), real=pixels(digits))
    assert {k: first[k] for k in ("precision", "recall")} == expected
    np.testing.assert_allclose(first["fid"], frechet_distance(*moments(pixels(generated)), *moments(pixels(digits))))
    assert second["fid"] > 0


def test_floor_is_seeded_and_lies_where_real_data_lie(digits):
    from iterative_retraining.metrics.features import DigitsFeatures

    metric = ImageMetrics(DigitsFeatures())
    floor = metric.floor(digits, seed=1, n_splits=5)
    assert floor == metric.floor(digits, seed=1, n_splits=5)
    assert all(len(values) == 5 for values in floor.values())
    noise = np.random.default_rng(0).integers(0, 256, digits.shape, dtype=np.uint8)
    assert metric(noise, real=digits)["fid"] > 10 * max(floor["fid"])
