import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterative_retraining.schemes import FullySynthetic, Mix, build_scheme

REAL = np.arange(10.0)[:, None]
SAMPLES = 100 + np.arange(30.0)[:, None]


@pytest.mark.parametrize(("lam", "n_synthetic"), [(0.0, 0), (0.05, 0), (0.1, 1), (0.55, 5), (1.0, 10), (2.5, 25)])
def test_mix_is_all_real_and_floor_lam_n_synthetic(lam, n_synthetic):
    data = Mix(lam).training_set(REAL, [REAL, SAMPLES], seed=0)
    np.testing.assert_array_equal(data.array(), np.concatenate([REAL, SAMPLES[:n_synthetic]]))
    assert Mix(lam).n_samples(len(REAL)) == n_synthetic


def test_fully_synthetic_drops_the_real_data():
    data = FullySynthetic().training_set(REAL, [SAMPLES], seed=0)
    np.testing.assert_array_equal(data.array(), SAMPLES[:10])


def test_no_copy_of_the_arrays():
    data = Mix(1.0).training_set(REAL, [SAMPLES], seed=0)
    assert data.parts[0] is REAL
    assert data.parts[1] is SAMPLES


@given(st.floats(0, 2))
def test_select_filters_before_counting(lam):
    best_first = Mix(lam, select=lambda samples: np.argsort(-samples[:, 0]))
    data = best_first.training_set(REAL, [SAMPLES], seed=0)
    n_synthetic = int(lam * 10)
    np.testing.assert_array_equal(data.array()[10:], SAMPLES[::-1][:n_synthetic])


def test_too_few_samples_left_is_refused():
    with pytest.raises(ValueError, match="needs 10 samples, 2 of 30"):
        FullySynthetic(select=lambda samples: np.arange(2)).training_set(REAL, [SAMPLES], seed=0)


@pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf")])
def test_bad_lam_is_refused(lam):
    with pytest.raises(ValueError, match="not allowed: it is the ratio synthetic : real"):
        Mix(lam)


def test_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="unknown scheme 'replace'; allowed: mix, fully_synthetic"):
        build_scheme("replace", 0.5)
