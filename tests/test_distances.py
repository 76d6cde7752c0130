import numpy as np
import pytest
import scipy
import torch
from cleanfid.fid import frechet_distance as clean_frechet_distance
from cleanfid.fid import kernel_distance
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from iterative_retraining.metrics import pairs
from iterative_retraining.metrics.class_entropy import ClassEntropy
from iterative_retraining.metrics.fid import FID, covariance_factor, fid_infinity, frechet_distance
from iterative_retraining.metrics.kid import KID
from iterative_retraining.metrics.reference import moments

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


def test_frechet_distance_of_two_rank_one_covariances_is_closed_form():
    u, v = RNG.normal(size=40), RNG.normal(size=40)
    expected = u @ u + v @ v - 2 * abs(u @ v)
    found = frechet_distance(np.zeros(40), np.outer(u, u), np.zeros(40), np.outer(v, v))
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


@given(st.integers(1, 12), st.integers(0, 15), st.integers(0, 99))
def test_the_factor_is_a_root_of_the_covariance_and_as_wide_as_its_rank(dim, rank, seed):
    cov = random_cov(dim, rank, seed)
    factor = covariance_factor(cov)
    assert factor.shape == (dim, min(dim, rank))
    np.testing.assert_allclose(factor @ factor.T, cov, atol=1e-12 * (1 + np.trace(cov)))


def test_frechet_distance_refuses_bad_input():
    with pytest.raises(ValueError, match="shapes disagree"):
        frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(np.zeros(2), np.eye(2) * np.nan, np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="not symmetric"):
        frechet_distance(np.zeros(2), np.array([[1.0, 1.0], [0.0, 1.0]]), np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        moments(np.zeros((1, 3)))


def test_moments_in_tiles_equal_those_of_numpy(monkeypatch):
    x = RNG.normal(size=(100, 4)).astype(np.float32) + 1000
    monkeypatch.setattr(pairs, "TILE", 7)
    centre, cov = moments(x)
    np.testing.assert_allclose(centre, x.astype(np.float64).mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(cov, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [40, 500])
def test_fid_equals_torch_fidelity_and_says_ranks(n):
    a, b = RNG.normal(size=(n, 64)).astype(np.float32), RNG.normal(size=(600, 64)).astype(np.float32) * 1.3
    found = FID()(a, real=b)
    theirs = fid_statistics_to_metric(
        fid_features_to_statistics(torch.from_numpy(a)), fid_features_to_statistics(torch.from_numpy(b)), False
    )
    np.testing.assert_allclose(found["fid"], theirs["frechet_inception_distance"], rtol=1e-5)
    assert found.about == {"n_generated": n, "n_real": 600, "rank_generated": min(n - 1, 64), "rank_real": 64}


@pytest.mark.skipif(scipy.__version__ >= "1.18", reason="clean-fid 0.1.35 calls sqrtm(disp=), which SciPy 1.18 dropped")
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_fid_equals_clean_fid():
    a, b = RNG.normal(size=(500, 32)) + 0.1, RNG.normal(size=(600, 32)) * 1.3
    theirs = clean_frechet_distance(*moments(a), *moments(b))
    np.testing.assert_allclose(FID()(a, real=b)["fid"], theirs, rtol=1e-5)


def test_fid_of_a_collapsed_generator_is_the_trace_and_the_shift():
    real = RNG.normal(size=(300, 20))
    found = FID()(np.repeat(real[:1], 100, axis=0), real=real)
    centre, cov = moments(real)
    np.testing.assert_allclose(found["fid"], ((real[0] - centre) ** 2).sum() + np.trace(cov), rtol=1e-12)
    assert found.about["rank_generated"] == 0


def test_fid_infinity_finds_the_closed_form_where_fid_is_biased():
    """Gaussians in 32 dimensions, standard deviations 1.3 and 1: |m|^2 + 32 (0.3)^2."""
    rng = np.random.default_rng(1)
    truth = 1.0 + 32 * 0.3**2
    shift = np.full(32, np.sqrt(1 / 32))
    generated = rng.normal(size=(4000, 32)) * 1.3 + shift
    real = rng.normal(size=(100_000, 32))
    plain = FID()(generated[:400], real=real)["fid"]
    limit = fid_infinity(generated, real=real)
    assert plain > truth + 0.5
    assert abs(limit["fid_infinity"] - truth) < 0.2
    assert limit.about["sizes"][0] == 400
    assert limit.about["sizes"][-1] == 4000
    with pytest.raises(ValueError, match="19 generated images"):
        fid_infinity(generated[:19], real=real)


def test_kid_by_hand():
    a, b = np.array([[0.0], [1.0], [2.0], [-1.0]]), np.array([[1.0], [3.0], [0.0], [2.0], [1.0]])

    def kernel(x, y):
        return (x @ y.T + 1) ** 3

    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    expected = (aa.sum() - np.trace(aa)) / 12 + (bb.sum() - np.trace(bb)) / 20 - 2 * ab.mean()
    np.testing.assert_allclose(KID()(a, real=b)["kid"], expected, rtol=1e-12)


def test_kid_equals_torch_fidelity_and_clean_fid():
    a, b = RNG.normal(size=(700, 48)) + 0.2, RNG.normal(size=(700, 48)) * 1.1
    theirs = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=700, verbose=False
    )
    found = KID()(a, real=b)["kid"]
    np.testing.assert_allclose(found, theirs["kernel_inception_distance_mean"], rtol=1e-6)
    np.testing.assert_allclose(found, kernel_distance(a, b, num_subsets=1, max_subset_size=700), rtol=1e-6)


@given(st.integers(0, 99), st.integers(4, 20), st.integers(4, 20))
def test_kid_is_symmetric_and_fid_not_negative(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 0.5
    np.testing.assert_allclose(KID()(a, real=b)["kid"], KID()(b, real=a)["kid"], rtol=1e-9)
    assert FID()(a, real=b)["fid"] >= 0
    np.testing.assert_allclose(FID()(a, real=b)["fid"], FID()(b, real=a)["fid"], rtol=1e-7, atol=1e-9)


def test_kid_does_not_depend_on_tiles_nor_its_value_on_groups(monkeypatch):
    a, b = RNG.normal(size=(150, 4)), RNG.normal(size=(131, 4)) * 1.3
    whole = KID()(a, real=b)
    np.testing.assert_allclose(KID(n_groups=5)(a, real=b)["kid"], whole["kid"], rtol=1e-12)
    monkeypatch.setattr(pairs, "TILE", 16)
    tiled = KID()(a, real=b)
    assert tiled.keys() == whole.keys()
    np.testing.assert_allclose(list(tiled.values()), list(whole.values()), rtol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1.15])
def test_kid_is_unbiased_and_its_standard_error_is_that_of_repetitions(scale):
    rng = np.random.default_rng(2)
    found = [KID()(rng.normal(size=(200, 8)) * scale, real=rng.normal(size=(200, 8))) for _ in range(150)]
    values = np.array([f["kid"] for f in found])
    moment2, moment3 = scale**2, 0.0  # E (x.y/D + 1)^3 = 1 + 3 E(x.y)^2 / D^2 for symmetric independent x, y
    truth = 3 * (moment2**2 - 2 * moment2 + 1) / 8 + moment3
    assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(len(values))
    ratio = np.sqrt(np.mean([f["kid_standard_error"] ** 2 for f in found])) / values.std()
    assert 0.85 < ratio < 1.6  # cautious where both are the same: a jackknife of a degenerate statistic is wide


def test_kid_refuses_few_images():
    with pytest.raises(ValueError, match="at least 4 images in each set, got 3 generated and 9 real"):
        KID()(np.zeros((3, 2)), real=np.zeros((9, 2)))


class Digits:
    """A classifier of 10 classes; the first feature is the class."""

    n_classes = 10

    def classes(self, features):
        return features[:, 0].astype(int)


def test_class_entropy():
    def entropy(*classes):
        features = np.array(classes, dtype=float)[:, None]
        return ClassEntropy()(features, real=features, classifier=Digits())["class_entropy"]

    assert entropy(2, 2, 2) == 0
    np.testing.assert_allclose(entropy(*range(10)), np.log(10))
    np.testing.assert_allclose(entropy(1, 1, 1, 4), stats.entropy([0.75, 0.25]))
    with pytest.raises(ValueError, match=r"integers in 0\.\.9"):
        entropy(10)
