import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterative_retraining.training_set import TrainingSet, to_uint8, to_unit


def test_every_grey_level_survives_scaling():
    levels = np.arange(256, dtype=np.uint8)
    unit = to_unit(levels)
    assert (unit.min(), unit.max(), unit.dtype) == (-1, 1, np.float32)
    np.testing.assert_array_equal(to_uint8(unit), levels)


def test_scaling_clips_and_refuses():
    np.testing.assert_array_equal(to_uint8(np.array([-3.0, 3.0])), [0, 255])
    with pytest.raises(FloatingPointError, match="non-finite"):
        to_uint8(np.array([np.nan]))
    with pytest.raises(TypeError, match="uint8"):
        to_unit(np.zeros(2))


@given(st.lists(st.integers(0, 9), max_size=6), st.lists(st.integers(0, 4), max_size=6), st.randoms())
def test_training_set_is_the_concatenation_of_its_parts(real_rows, synthetic_rows, random):
    real, synthetic = np.arange(10), 100 + np.arange(5)
    rows = (np.array(real_rows, dtype=int), np.array(synthetic_rows, dtype=int))
    if not real_rows and not synthetic_rows:
        with pytest.raises(ValueError, match="empty training set"):
            TrainingSet((real, synthetic), rows)
        return
    data = TrainingSet((real, synthetic), rows)
    whole = np.concatenate([real[rows[0]], synthetic[rows[1]]])
    np.testing.assert_array_equal(data.array(), whole)
    index = np.array([random.randrange(len(data)) for _ in range(7)])
    np.testing.assert_array_equal(data[index], whole[index])


def test_training_set_refuses_parts_of_other_shapes():
    with pytest.raises(ValueError, match="differ in shape or dtype"):
        TrainingSet((np.zeros((3, 2)), np.zeros((3, 1))), (np.arange(3), np.arange(3)))


def test_weights_are_one_for_each_part_and_one_on_average():
    parts, rows = (np.arange(10), 100 + np.arange(5), np.arange(3)), (np.arange(4), np.arange(0), np.arange(2))
    data = TrainingSet(parts, rows, weights=(1.0, 7.0, 4.0))
    np.testing.assert_allclose(data.item_weights(np.array([5, 0, 3, 4])), [2.0, 0.5, 0.5, 2.0], rtol=1e-15)
    assert data.item_weights(np.arange(6)).mean() == pytest.approx(1, rel=1e-15)
    np.testing.assert_array_equal(TrainingSet(parts, rows).item_weights(np.arange(6)), np.ones(6))


@pytest.mark.parametrize("weights", [(1.0, -0.1), (1.0, np.nan), (np.inf, 1.0), (0.0, 0.0), (0.0, 1.0), (1.0,)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match=r"weights = .* are not allowed"):
        TrainingSet((np.arange(4), np.arange(3)), (np.arange(4), np.arange(0)), weights=weights)
