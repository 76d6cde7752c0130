import json

import numpy as np
import pytest
from scipy import stats

from iterative_retraining.metrics import METRICS, FeatureMetrics, ImageMetrics, Values, compare, likelihood
from iterative_retraining.metrics.features import build_features
from iterative_retraining.metrics.fid import FID
from iterative_retraining.metrics.held_out import AgainstHeldOut
from iterative_retraining.metrics.likelihood import FLD, fit_mixture
from iterative_retraining.metrics.pixels import pixel_variance
from iterative_retraining.metrics.uncertainty import jackknife

RNG = np.random.default_rng(0)
NAMES = ["fid", "rank", "kid", "kid_standard_error"]
NAMES += ["precision", "recall", "density", "coverage", "authenticity", "copied"]
RAREST = ["rarest_class", "rarest_tenth"]


class Pixels:
    """Ten pixels as features; counts its calls."""

    name = "pixels"

    def __init__(self):
        self.calls = []

    def __call__(self, images):
        self.calls.append(len(images))
        return images.reshape(len(images), -1)[:, 20:30].astype(np.float32)


def test_all_metrics_of_two_sets_are_those_of_the_single_functions():
    a, b, c = (RNG.normal(size=(n, 6)) for n in (90, 80, 70))
    found = compare(a, real=b, test=c, k=2, k_density=4)
    assert list(found) == [*NAMES, "fld", "fld_gap", *AgainstHeldOut.values, "rarest_tenth"]
    settings = {"precision_recall": {"k": 2}, "density_coverage": {"k_density": 4}}
    settings["held_out"] = {"k": 2, "k_density": 4}
    for name in (name for name in METRICS if name not in ("class_entropy", "rarest_class")):
        single = METRICS[name](**settings.get(name, {}))
        values = single(a, real=b, **({"test": c} if single.needs else {}))
        assert values == {value: found[value] for value in single.values}
    about = {"k": 2, "k_density": 4, "n_generated": 90, "n_real": 80, "n_test": 70, "rank_generated": 6}
    assert {name: found.about[name] for name in about} == about
    assert "strict <" in found.about["tie_rule"]
    assert list(FeatureMetrics(b)(a)) == [*NAMES, "rarest_tenth"]


def test_the_baseline_of_fld_is_fitted_once_and_changes_nothing(monkeypatch):
    a, b, c = (RNG.normal(size=(n, 6)) for n in (90, 80, 70))
    fits, metrics = [], FeatureMetrics(b, c)

    def counting(*arguments):
        fits.append(len(arguments[0]))
        return fit_mixture(*arguments)

    monkeypatch.setattr(likelihood, "fit_mixture", counting)
    assert [metrics(a), metrics(a)] == [compare(a, real=b, test=c)] * 2
    assert fits == [90, 40, 90, 90, 40]  # points and baseline, points alone; and compare, from nothing
    assert metrics(a[:30])["fld"] == FLD()(a[:30], real=b, test=c)["fld"]


def test_image_metrics_prepares_the_real_set_once(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    space = Pixels()
    metric, generated = ImageMetrics(space), digits[::-1].copy()
    generated[:900] = digits[:900]
    first, second = metric(generated, real=digits), metric(generated[:500], real=digits)
    assert space.calls == [1500, 1500, 500]
    assert first == compare(Pixels()(generated), real=Pixels()(digits)) | pixel_variance(generated)
    assert (first.about["features"], second.about["n_generated"]) == ("pixels", 500)
    ImageMetrics(space)(generated, real=digits)
    assert space.calls == [1500, 1500, 500, 1500]  # the real features came from the cache


def test_images_of_one_class_have_no_entropy(digits):
    from iterative_retraining.datasets import load_dataset

    labels = load_dataset("digits")[1]
    metric = ImageMetrics(build_features("auto", "digits"), test=digits[::7])
    ones = metric(digits[labels == 1], real=digits)
    assert ones["class_entropy"] < 0.2 < 2.2 < metric(digits, real=digits)["class_entropy"]
    assert list(ones) == [*NAMES, "fld", "fld_gap", "class_entropy", *AgainstHeldOut.values, *RAREST, "pixel_variance"]


def test_a_collapsed_generator_is_measured_without_trouble(digits):
    """One image for all, and fewer images than dimensions: where other implementations break."""
    metric = ImageMetrics(build_features("auto", "digits"))
    one = metric(np.repeat(digits[:1], 300, axis=0), real=digits)
    few = metric(digits[:30], real=digits)
    assert np.isfinite([*one.values(), *few.values()]).all()
    assert (one["rank"], one["precision"], one["recall"]) == (0.0, 1.0, 0.0)
    assert few["rank"] == 29
    assert one["fid"] > few["fid"] > 0


def test_floor_is_seeded_and_lies_where_real_data_lie(digits):
    metric = ImageMetrics(build_features("auto", "digits"))
    floor = metric.floor(digits, seed=1, n_splits=5)
    assert floor == metric.floor(digits, seed=1, n_splits=5)
    assert (floor["n_images"], floor["features"], floor["k"]) == (750, "digits-classifier-64", 3)
    assert all(len(floor[name]) == 5 for name in [*NAMES, "class_entropy", *RAREST])
    assert abs(np.mean(floor["kid"])) < 0.02
    assert 0.9 < np.mean(floor["density"]) < 1.1
    noise = np.random.default_rng(0).integers(0, 256, digits.shape, dtype=np.uint8)
    assert metric(noise, real=digits)["fid"] > 10 * max(floor["fid"])


def test_the_floor_of_halves_says_its_n_and_held_out_images_give_one_at_the_real_set_s_own(digits):
    space = build_features("auto", "digits")
    train, test = digits[:1200], digits[1200:]
    metric = ImageMetrics(space, test=test)
    floor = metric.floor(train, seed=1, n_splits=2)
    assert (floor["n_generated"], floor["n_real"], floor["n_images"]) == (600, 600, 600)
    held_out = floor["held_out"]
    assert (held_out["n_generated"], held_out["n_real"]) == (300, 1200)
    expected = compare(space(test), real=space(train), classifier=space) | pixel_variance(test)
    assert held_out == {"n_generated": 300, "n_real": 1200, **expected}
    # No FLD: the held-out images would be judged by themselves.
    assert list(expected) == [
        *NAMES,
        "class_entropy",
        *RAREST,
        "pixel_variance",
    ]  # no FLD: the held-out images would be judged by themselves
    assert json.loads(json.dumps(floor)) == floor
    assert "held_out" not in ImageMetrics(space).floor(train, seed=1, n_splits=1)


def test_image_metrics_measure_what_is_chosen(digits):
    metric = ImageMetrics(build_features("auto", "digits"), names=["fid", "class_entropy"])
    assert list(metric(digits[:300], real=digits)) == ["fid", "rank", "class_entropy", "pixel_variance"]


def test_values_are_a_mapping_that_remembers():
    joined = Values({"a": 1.0}, k=3) | Values({"b": 2.0}, n=5)
    assert joined == {"a": 1.0, "b": 2.0}
    assert joined.about == {"k": 3, "n": 5}
    joined |= {"c": 3.0}
    assert (joined["c"], joined.about["k"]) == (3.0, 3)


def test_jackknife_of_a_mean_is_the_textbook_standard_error():
    x = RNG.normal(size=(50, 1))
    estimate = jackknife(lambda generated, real: {"mean": generated.mean()}, x, real=x, n_groups=50)["mean"]
    np.testing.assert_allclose(estimate.standard_error, stats.sem(x[:, 0]), rtol=1e-10)
    np.testing.assert_allclose(estimate.bias, 0, atol=1e-12)
    low, high = stats.t.interval(0.95, 49, loc=x.mean(), scale=stats.sem(x[:, 0]))
    np.testing.assert_allclose(estimate.interval, (low, high), rtol=1e-10)


def test_jackknife_of_the_plug_in_variance_finds_its_bias():
    x = RNG.normal(size=(40, 1))
    estimate = jackknife(lambda generated, real: {"v": generated.var()}, x, real=x, n_groups=40)["v"]
    np.testing.assert_allclose(estimate.value - estimate.bias, x.var(ddof=1), rtol=1e-10)


def test_jackknife_intervals_of_fid_hold_the_truth():
    """N(0, 1.2^2 I) against N(0, I) in 8 dimensions, 60 repetitions: bias gone, coverage near 95 %."""
    rng, hits, corrected = np.random.default_rng(1), 0, []
    real, truth = rng.normal(size=(20_000, 8)), 8 * 0.2**2
    for _ in range(60):
        estimate = jackknife(FID(), rng.normal(size=(400, 8)) * 1.2, real=real)["fid"]
        low, high = estimate.interval
        hits += low <= truth + estimate.bias <= high
        corrected.append(estimate.value - estimate.bias)
    assert hits >= 51
    assert abs(np.mean(corrected) - truth) < 4 * stats.sem(corrected) + 0.003


def test_jackknife_refuses_too_many_groups():
    with pytest.raises(ValueError, match=r"n_groups = 20 is not allowed: it must lie in 2\.\.5"):
        jackknife(FID(), np.zeros((5, 2)), real=np.zeros((5, 2)))
