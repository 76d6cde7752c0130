"""What is measured against held-out images, of images themselves, and of the model itself."""

import math

import numpy as np
import pytest

from iterative_retraining import TrainingSet, build_model, resolve_options
from iterative_retraining.datasets import load_dataset
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import ImageMetrics, compare, direction_of, label_of
from iterative_retraining.metrics.features import build_features
from iterative_retraining.metrics.model_loss import ModelLoss, losses_of
from iterative_retraining.metrics.pixels import pixel_variance
from iterative_retraining.runs.directory import read_floor, read_ledger

from conftest import TINY_EDM, TINY_RUN


def points(n, seed):
    return np.random.default_rng(seed).normal(size=(n, 6))


def test_against_held_out_images_is_against_them_as_the_real_ones():
    generated, real, test = points(90, 1), points(80, 2), points(50, 3)
    found = compare(generated, real=real, test=test, names=["held_out"])
    plain = compare(generated, real=test, names=["fid", "precision_recall", "density_coverage"])
    assert found == {f"held_out_{name}": value for name, value in plain.items() if name != "rank"}
    assert found.about == {"n_generated": 90, "n_real": 80, "n_held_out": 50}


def test_copies_of_training_images_gain_nothing_against_held_out_ones():
    real, test = points(300, 4), points(100, 5)
    copies = compare(real + 1e-6, real=real, test=test, names=["precision_recall", "held_out"])
    fresh = compare(points(300, 6), real=real, test=test, names=["precision_recall", "held_out"])
    assert copies["precision"] == 1
    assert abs(copies["held_out_precision"] - fresh["held_out_precision"]) < 0.1


def test_pixel_variance_by_hand_and_of_a_shrunken_set():
    images = np.array([[0, 255], [255, 255], [0, 0]], dtype=np.uint8).reshape(3, 1, 2, 1)
    assert pixel_variance(images)["pixel_variance"] == pytest.approx(4 / 3)  # of -1, 1, -1 and of 1, 1, -1
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        pixel_variance(images[:1])
    noise = np.random.default_rng(0).integers(0, 256, (4000, 4, 4, 1), dtype=np.uint8)
    uniform = (256**2 - 1) / 12 / 127.5**2  # of 256 equal levels
    assert pixel_variance(noise)["pixel_variance"] == pytest.approx(uniform, rel=0.01)


@pytest.mark.parametrize("name", ["pixel_variance", "held_out_loss", "held_out_fid", "held_out_bits"])
def test_every_value_has_a_label_and_a_direction(name):
    assert label_of(name) != name.replace("_", " ") or name == "pixel_variance"
    assert direction_of(name) == (0 if name == "pixel_variance" else -1)


def test_the_loss_is_that_of_training_on_average_and_the_same_every_time(digits):
    options = resolve_options("edm", "digits", TINY_EDM)
    model = build_model("edm", digits.shape[1:], options, n_images_initial=320)
    model.fit(TrainingSet.of(digits), seed=0)
    one, again = (model.loss(digits[:100], seed=3, n_noises=4) for _ in range(2))
    assert one == again
    terms = [model.loss(digits[:100], seed=seed, n_noises=4)["loss"] for seed in range(20)]
    assert one["loss"] == pytest.approx(np.mean(terms), rel=0.15)
    assert model.loss(digits[:100], seed=3, n_noises=4) != model.loss(digits[100:200], seed=3, n_noises=4)


def test_bits_of_a_flow_are_its_likelihood_in_levels_of_256(digits):
    options = resolve_options("spline_flow", "digits", {"n_transforms": 1, "width": 8})
    model = build_model("spline_flow", digits.shape[1:], options, n_images_initial=64)
    model.fit(TrainingSet.of(digits), seed=0)
    found = model.loss(digits[:50], seed=0, n_noises=8)
    exact = -model.log_prob(digits[:50]).mean() / 64  # at the middle of each level
    assert found["loss"] == pytest.approx(exact, abs=0.05)
    assert found["bits"] == pytest.approx((found["loss"] + math.log(127.5)) / math.log(2))


def test_a_model_without_a_loss_or_data_without_held_out_images_has_none(digits):
    assert losses_of(object(), digits) == []
    assert losses_of(build_model("edm", (8, 8, 1), resolve_options("edm", "digits", TINY_EDM)), None) == []


def test_learning_by_heart_lowers_the_loss_on_training_images_alone(digits):
    test = load_dataset("digits", split="test")[0]
    few = digits[:20]
    options = resolve_options("edm", "digits", TINY_EDM | {"learning_rate": 5e-3, "dropout": 0.0})
    model = build_model("edm", digits.shape[1:], options, n_images_initial=20_000)
    found = ModelLoss(model.fit(TrainingSet.of(few), seed=0), test, n_evaluations=1_000)(None, real=few)
    assert found["training_loss"] < 0.9 * found["held_out_loss"]


def test_a_run_and_its_floor_hold_all_of_it(tmp_path):
    run = open_experiment(dataset="digits", run_dir=tmp_path / "run", **TINY_RUN | {"n_retrain": 1})
    list(run.records())
    run.run.close()
    for row in read_ledger(tmp_path / "run"):
        assert {"pixel_variance", "held_out_loss", "training_loss", "held_out_fid", "held_out_precision"} <= row.keys()
    training = read_floor(tmp_path / "run")["training"]
    assert (training["n_generated"], training["n_held_out"]) == (300, 297)
    real, test = load_dataset("digits")[0][:300], load_dataset("digits", split="test")[0]
    expected = ImageMetrics(build_features("digits", "digits"), test=real)(real, real=test)  # the roles exchanged
    assert training["held_out_fid"] == pytest.approx(expected["fid"], rel=1e-9)
    assert training["held_out_precision"] == expected["precision"]
