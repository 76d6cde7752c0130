import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prdc import compute_prdc
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from iterative_retraining.metrics import compare, pairs
from iterative_retraining.metrics.density_coverage import DensityCoverage
from iterative_retraining.metrics.memorisation import Memorisation
from iterative_retraining.metrics.pairs import cross_tiles, nearest_others
from iterative_retraining.metrics.precision_recall import PrecisionRecall

RNG = np.random.default_rng(0)


def neighbour_metrics(generated, **given):
    """The three metrics of distances together, from one pass."""
    return compare(generated, names=["precision_recall", "density_coverage", "memorisation"], **given)


def test_radii_equal_those_of_scikit_learn():
    x = RNG.normal(size=(200, 6))
    expected = NearestNeighbors(n_neighbors=4).fit(x).kneighbors(x)[0][:, 3]
    np.testing.assert_allclose(np.sqrt(nearest_others(x, 3)[:, -1]), expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_distances_far_from_the_origin_equal_scipy_and_copies_are_at_zero(dtype):
    a = (RNG.normal(size=(70, 9)) + 1000).astype(dtype)
    b = np.concatenate([a[:5], (RNG.normal(size=(50, 9)) + 1000).astype(dtype)])
    found = np.empty((70, 55))
    for rows, columns, tile in cross_tiles(a, b):
        found[rows, columns] = tile.numpy()
    exact = cdist(a.astype(np.float64), b.astype(np.float64)) ** 2
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    assert (found[np.arange(5), np.arange(5)] == 0).all()


def test_a_far_outlier_does_not_blur_the_others():
    x = np.concatenate([RNG.normal(size=(30, 3)), [[1e6, 0, 0]]])
    exact = np.sort(cdist(x, x), axis=1)[:30, 3]
    np.testing.assert_allclose(np.sqrt(nearest_others(x, 3)[:, -1])[:30], exact, rtol=1e-3)


def test_precision_recall_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    generated = np.array([[0.5], [3.5], [4.5], [5.5]])
    # k = 1: radii of real 1, 1, 1, 8; of generated 3, 1, 1, 1
    found = PrecisionRecall(k=1)(generated, real=real)
    assert found == {"precision": 1.0, "recall": 0.75}
    assert (found.about["k"], found.about["n_generated"], found.about["n_real"]) == (1, 4, 4)
    assert "strict <" in found.about["tie_rule"]


def test_density_coverage_by_hand():
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    generated = np.array([[0.5], [3.5], [4.5], [11.0]])
    # k = 1: real balls (-1, 1), (0, 2), (1, 3), (2, 18); around the generated: 2, 1, 1, 1 of them
    assert DensityCoverage(k_density=1)(generated, real=real) == {"density": 5 / 4, "coverage": 3 / 4}


def test_a_point_on_the_edge_of_a_ball_is_outside():
    real = np.array([[0.1], [0.4], [0.7], [1.0]])  # radii 0.3, each neighbour on the edge up to rounding
    assert DensityCoverage(k_density=1)(real, real=real) == {"density": 1.0, "coverage": 1.0}


def test_memorisation_by_hand():
    real = np.array([[0.0], [1.0], [3.0], [10.0]])
    generated = np.array([[0.0], [0.2], [1.9], [6.0]])
    # nearest real: 0 at 0 (own 1), 0 at 0.2 (own 1), 1 at 0.9 (own 1), 3 at 3 (own 2)
    assert Memorisation()(generated, real=real) == {"authenticity": 0.25, "copied": 0.5}


@given(st.integers(0, 99), st.integers(1, 5), st.integers(7, 60), st.integers(7, 60))
def test_everything_equals_prdc_on_continuous_data(seed, k, n, m):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(n, 5)).astype(np.float32), (rng.normal(size=(m, 5)) * 1.2).astype(np.float32)
    theirs = compute_prdc(real_features=b, fake_features=a, nearest_k=k)
    found = {**PrecisionRecall(k=k)(a, real=b), **DensityCoverage(k_density=k)(a, real=b)}
    assert found.keys() == theirs.keys()
    for name, value in found.items():
        np.testing.assert_allclose(value, theirs[name], atol=1e-6, err_msg=name)


@given(st.integers(0, 99), st.integers(1, 4), st.integers(5, 40), st.integers(5, 40))
def test_precision_and_recall_exchange_with_the_sets_and_all_shares_lie_in_their_range(seed, k, n, m):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 4, (n, 2)).astype(float), rng.integers(0, 4, (m, 2)).astype(float)  # many ties
    one, other = PrecisionRecall(k=k)(a, real=b), PrecisionRecall(k=k)(b, real=a)
    assert (one["precision"], one["recall"]) == (other["recall"], other["precision"])
    found = neighbour_metrics(a, real=b, k=k, k_density=k)
    assert all(0 <= value <= 1 for name, value in found.items() if name != "density")
    assert 0 <= found["density"] <= m / k
    exact = cdist(a, b) < np.sort(cdist(b, b), axis=1)[:, k] - 1e-6  # integer points: ties are ties
    assert found["precision"] == exact.any(axis=1).mean()
    assert found["coverage"] == exact.any(axis=0).mean()


def test_memory_does_not_grow_with_the_square_of_n():
    """12 000 points: one matrix of their distances would be 1.1 GB."""
    code = (
        "import numpy as np, torch; from pathlib import Path; torch.set_num_threads(1)\n"
        "from iterative_retraining.metrics import compare\n"
        "x = np.random.default_rng(0).normal(size=(12_500, 16)).astype(np.float32)\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024\n"
        "compare(x[:300], real=x[:300]); before = peak()\n"
        "compare(x[:12_000] * np.float32(1.1), real=x[:12_000]); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_numbers():
    a, b, c = (RNG.normal(size=(n, 16)).astype(np.float32) for n in (500, 400, 300))
    on_cpu, on_gpu = compare(a, real=b, test=c), compare(a, real=b, test=c, device="cuda")
    np.testing.assert_allclose(list(on_gpu.values()), list(on_cpu.values()), rtol=1e-6)


def test_one_pass_gives_what_the_single_metrics_give():
    a, b = RNG.normal(size=(150, 4)), RNG.normal(size=(130, 4)) * 1.3
    single = {**PrecisionRecall()(a, real=b), **DensityCoverage()(a, real=b), **Memorisation()(a, real=b)}
    assert neighbour_metrics(a, real=b) == single


def test_tiles_do_not_change_the_result(monkeypatch):
    a, b = RNG.normal(size=(150, 4)), RNG.normal(size=(130, 4)) * 1.3
    whole, nearest = neighbour_metrics(a, real=b), nearest_others(a, 5)
    monkeypatch.setattr(pairs, "TILE", 7)
    assert neighbour_metrics(a, real=b) == whole
    np.testing.assert_allclose(nearest_others(a, 5), nearest, rtol=1e-9)
    monkeypatch.setattr(pairs, "TILE", 3)  # fewer columns than neighbours
    assert neighbour_metrics(a, real=b) == whole


def test_direction_a_tight_cluster_is_precise_and_a_wide_set_covers():
    real = RNG.normal(size=(500, 3))
    tight, wide = RNG.normal(size=(500, 3)) * 0.1, RNG.normal(size=(500, 3)) * 4
    found = {name: neighbour_metrics(x, real=real) for name, x in (("tight", tight), ("wide", wide))}
    assert found["tight"]["precision"] > 0.95 > 0.1 > found["tight"]["recall"]
    assert found["wide"]["recall"] > 0.95 > 0.4 > found["wide"]["precision"]
    assert found["tight"]["density"] > 1 > found["wide"]["density"]
    assert found["tight"]["coverage"] < 0.5
    assert found["wide"]["authenticity"] > 0.8


def test_a_generator_that_repeats_one_point():
    real = RNG.normal(size=(50, 2))
    repeated = np.repeat(real[:1] + 1e-3, 50, axis=0)
    found = neighbour_metrics(repeated, real=real)
    assert (found["precision"], found["recall"]) == (1.0, 0.0)
    assert found["coverage"] < 0.2
    assert neighbour_metrics(real, real=repeated)["precision"] == 0.0


def test_copies_are_copies_whatever_their_order():
    real = RNG.normal(size=(60, 8)).astype(np.float32)
    found = neighbour_metrics(real[::-1].copy(), real=real)
    assert (found["copied"], found["authenticity"]) == (1.0, 0.0)
    assert (found["precision"], found["recall"], found["coverage"], found["density"]) == (1.0, 1.0, 1.0, 1.0)
    doubled = np.concatenate([real, real])  # each training point twice: nearest and second nearest coincide
    assert Memorisation()(real, real=doubled)["copied"] == 1.0


def test_bad_features_are_refused_by_name():
    good = RNG.normal(size=(20, 3))
    bad = good.copy()
    bad[7, 1] = np.nan
    with pytest.raises(ValueError, match="generated holds a value that is not finite, first in row 7"):
        PrecisionRecall()(bad, real=good)
    with pytest.raises(ValueError, match="real holds a value that is not finite"):
        DensityCoverage()(good, real=bad)
    with pytest.raises(ValueError, match="generated has D = 2, real has D = 3"):
        Memorisation()(good[:, :2], real=good)
    with pytest.raises(ValueError, match=r"generated must have shape \(N, D\)"):
        neighbour_metrics(good[0], real=good)
    with pytest.raises(TypeError, match="floating-point NumPy array"):
        neighbour_metrics(good.astype(int), real=good)
    with pytest.raises(ValueError, match="k = 3 is not allowed with 3 images"):
        nearest_others(np.zeros((3, 2)), 3)
    with pytest.raises(ValueError, match=r"k = 20 is not allowed with 20 images: it must lie in 1\.\.19"):
        PrecisionRecall(k=20)(good, real=good)
