"""What every metric of the registry must keep; a new one is tested by being there."""

import json
from pathlib import Path

import numpy as np
import pytest

from iterative_retraining.metrics import (
    METRICS,
    VALUES,
    FeatureMetrics,
    compare,
    direction_of,
    label_of,
)
from iterative_retraining.metrics.metric import NEEDS
from iterative_retraining.metrics.pairs import nearest_others

GOLDEN = Path(__file__).parent / "golden" / "metric_values.json"
DIM = 12


class Signs:
    """A classifier of four classes: the signs of the first two features."""

    n_classes = 4

    def classes(self, features):
        return (features[:, 0] > 0) + 2 * (features[:, 1] > 0)


def points(n, seed, dim=DIM):
    return np.random.default_rng(seed).normal(size=(n, dim))


def measure(name, generated, real, test):
    return compare(generated, real=real, test=test, classifier=Signs(), names=[name])


REAL, TEST, FRESH = points(200, 1), points(150, 2), points(200, 3)
FAILURES = {
    "noise": FRESH + 2 * points(200, 4),
    "collapse": FRESH[0] + 0.05 * (FRESH - FRESH[0]),
    "copies": REAL[::-1] + 1e-4 * points(200, 5),
}


@pytest.mark.parametrize("name", METRICS)
def test_it_is_one_object_that_says_what_it_is(name):
    metric = METRICS[name]()
    assert metric.name == name
    assert metric.values
    assert metric.needs <= NEEDS.keys()
    assert len(type(metric).__doc__.splitlines()) > 3
    for value in metric.values:
        assert label_of(value)
        assert direction_of(value) in (-1, 0, 1)
    measured = measure(name, FRESH, REAL, TEST)
    assert list(measured) == list(metric.values)
    assert {"n_generated": 200, "n_real": 200}.items() <= measured.about.items()
    json.dumps(measured.about)


@pytest.mark.parametrize("name", METRICS)
def test_an_unknown_setting_is_refused_by_name(name):
    with pytest.raises(TypeError, match="nonsense"):
        METRICS[name](nonsense=1)
    with pytest.raises(ValueError, match=f"'nonsense' is no setting of {name}; allowed: "):
        FeatureMetrics(REAL, TEST, classifier=Signs(), names=[name], nonsense=1)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dim", [DIM, 60])
def test_values_are_finite_on_few_items_in_many_dimensions_and_after_a_collapse(name, dim):
    real, test = points(80, 1, dim), points(70, 2, dim)
    for generated in (points(40, 3, dim), np.repeat(points(1, 3, dim), 40, axis=0), np.repeat(real[:1], 40, axis=0)):
        measured = measure(name, generated, real, test)
        assert all(type(value) is float for value in measured.values())
        assert np.isfinite(list(measured.values())).all()


@pytest.mark.parametrize("name", METRICS)
def test_the_order_of_the_items_does_not_count(name):
    one, other = (measure(name, x, REAL, TEST) for x in (FRESH, FRESH[np.random.default_rng(6).permutation(200)]))
    for value in one:
        if value != "kid_standard_error":  # its groups are drawn by the place of a point
            np.testing.assert_allclose(other[value], one[value], rtol=1e-8, atol=1e-10, err_msg=value)


@pytest.mark.parametrize("name", METRICS)
def test_measuring_twice_gives_the_same_and_leaves_the_data_alone(name):
    metrics = FeatureMetrics(REAL, TEST, classifier=Signs(), names=[name])
    before = [x.copy() for x in (FRESH, REAL, TEST)]
    assert metrics(FRESH) == metrics(FRESH) == measure(name, FRESH, REAL, TEST)
    assert all((x == y).all() for x, y in zip(before, (FRESH, REAL, TEST), strict=True))


@pytest.mark.parametrize("value", VALUES)
def test_the_direction_is_that_in_which_the_failures_it_notices_are_worse(value):
    name = next(name for name, metric in METRICS.items() if value in metric.values)
    fresh, info = measure(name, FRESH, REAL, TEST)[value], VALUES[value]
    assert bool(info.notices) == (info.direction != 0)
    for failure in info.notices:
        failed = measure(name, FAILURES[failure], REAL, TEST)[value]
        assert info.direction * (fresh - failed) > 0, f"{failure}: {failed}, fresh: {fresh}"


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.needs])
def test_what_a_metric_needs_decides_whether_it_is_there(name):
    assert not METRICS[name].values.keys() & compare(FRESH, real=REAL).keys()
    assert METRICS[name].values.keys() <= compare(FRESH, real=REAL, test=TEST, classifier=Signs()).keys()
    with pytest.raises(ValueError, match=f"the metric '{name}' needs "):
        compare(FRESH, real=REAL, names=[name])
    with pytest.raises(ValueError, match=f"the metric '{name}' needs "):
        METRICS[name]()(FRESH, real=REAL)


def test_names_choose_and_an_unknown_one_is_refused():
    assert list(compare(FRESH, real=REAL, names=["kid", "fid"])) == ["kid", "kid_standard_error", "fid", "rank"]
    with pytest.raises(ValueError, match="the metric 'fidd' is not known; known: fid, kid, "):
        compare(FRESH, real=REAL, names=["fidd"])


def test_no_value_has_two_metrics_and_a_stranger_has_a_name_and_no_direction():
    assert len(VALUES) == sum(len(metric.values) for metric in METRICS.values())
    assert (label_of("fid"), direction_of("fid")) == ("FID", -1)
    assert (label_of("some_value"), direction_of("some_value")) == ("some value", 0)


def test_metrics_of_distances_share_one_pass_and_one_search_for_neighbours(monkeypatch):
    from iterative_retraining.metrics import metric, precision_recall, reference

    passes, searches = [], []

    def counted(features, k, **given):
        searches.append((len(features), k))
        return nearest_others(features, k, **given)

    def passed(*sets, cross_tiles=metric.cross_tiles, **given):
        passes.append(len(sets[0]))
        return cross_tiles(*sets, **given)

    monkeypatch.setattr(metric, "cross_tiles", passed)
    monkeypatch.setattr(reference, "nearest_others", counted)
    monkeypatch.setattr(precision_recall, "nearest_others", counted)
    metrics = FeatureMetrics(REAL)
    metrics(FRESH[:90])
    metrics(FRESH[:90])
    assert passes == [90, 90]
    assert searches == [(200, 5), (90, 3), (90, 3)]


def golden_cases():
    """The sets whose values GOLDEN holds: real, held out, and generated ones by name."""
    rng = np.random.default_rng(11)
    mixing = rng.normal(size=(12, 12)) / 4
    real, test, near = (rng.normal(size=(n, 12)) @ mixing for n in (150, 110, 130))
    return (
        real,
        test,
        {
            "near": near,
            "wide": near * 1.6 + 0.1,
            "tight": near * 0.3,
            "copies": np.concatenate([real[:60], near[:20]]),
            "one point": np.repeat(near[:1], 40, axis=0),
            "few": near[:9],
            "single precision": near.astype(np.float32),
        },
    )


def test_the_values_are_what_they_always_were():
    """Measured by the code as it was before metrics were objects of their own."""
    real, test, cases = golden_cases()
    metrics = {
        "defaults": FeatureMetrics(real, test),
        "k=2, k_density=4": FeatureMetrics(real, k=2, k_density=4),
    }
    for case, by_settings in json.loads(GOLDEN.read_text()).items():
        for settings, expected in by_settings.items():
            found = metrics[settings](cases[case])
            later = [name for name in found if name.startswith("held_out_") or name == "rarest_tenth"]
            assert [name for name in found if name not in later] == list(expected)
            for name in expected:
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-12, err_msg=name)
