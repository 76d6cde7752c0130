"""Going back: the line through two states, and how a weight is chosen."""

import numpy as np
import pytest
from going_back import gains

from iterative_retraining import TrainingSet, build_model, resolve_options
from iterative_retraining.models.going_back import going_back


def test_it_is_the_line_through_both_states_in_every_number():
    rng = np.random.default_rng(0)
    start, later = ({"a": rng.normal(size=(3, 2)).astype(np.float32), "n": np.array([k])} for k in (4, 9))
    for weight in (-1.0, -0.5, 0.0, 0.25, 3.0):
        found = going_back(start, later, weight)
        np.testing.assert_allclose(found["a"], start["a"] - weight * (later["a"] - start["a"]), rtol=1e-6)
        assert found["a"].dtype == np.float32
        assert found["n"].tolist() == [4]
    np.testing.assert_array_equal(going_back(start, later, 0.0)["a"], start["a"])
    np.testing.assert_array_equal(going_back(start, later, -1.0)["a"], later["a"])


def test_a_network_takes_the_state_and_what_a_fit_carries_is_that_of_the_start(digits):
    options = {"channels": 4, "attention_resolutions": (), "n_steps": 2, "keep_optimizer": True}
    options = resolve_options("edm", "digits", options)
    model = build_model("edm", (8, 8, 1), options, n_images_initial=64, n_images_per_retraining=64)
    start = model.fit(TrainingSet.of(digits[:64]), seed=0).state_dict()
    later = model.fit(TrainingSet.of(digits[64:128]), seed=1).state_dict()
    found = going_back(start, later, 0.5)
    model.load_state_dict(found)
    assert model.sample(2, seed=0).shape == (2, 8, 8, 1)
    carried = [name for name in start if name.startswith("carried/")]
    assert carried
    for name in carried:
        np.testing.assert_array_equal(found[name], start[name])
    weights = [name for name in start if name not in carried]
    assert any((start[name] != later[name]).any() and (found[name] != start[name]).any() for name in weights)
    del later[weights[0]]
    with pytest.raises(ValueError, match=f"two networks: '{weights[0]}'"):
        going_back(start, later, 0.5)


def test_a_weight_is_chosen_on_the_first_set_alone_and_judged_by_the_others():
    table = np.array([[3.0, 9, 9], [2.0, 7, 5], [1.0, 6, 8]])
    weight, gained = gains(table, [-1.0, 0.0, 0.5])
    assert weight == 0.5
    assert gained.tolist() == [1.0, -3.0]
