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
