import matplotlib.pyplot as plt
import numpy as np
import pytest

from iterative_retraining.datasets import load_dataset
from iterative_retraining.metrics.features import build_features
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.cases import N_FEW, collapse_cases, measure_cases, noise_cases, verdicts

BETTER = {"fid": -1, "precision": 1, "recall": 1, "density": 1, "authenticity": 1, "copied": -1, "fld": -1}


@pytest.fixture(scope="module")
def measured():
    images, labels = load_dataset("digits")
    return measure_cases(images, labels, build_features("auto", "digits"), collapse_cases, seed=0, n_splits=3)


def test_cases_are_what_they_are_called():
    images, labels = load_dataset("digits")
    fresh, own, train = images[:300], labels[:300], images[300:500]
    cases = collapse_cases(fresh, own, train, seed=0)
    assert {name: len(x) for name, x in cases.items() if len(x) != 300} == {"few samples": N_FEW}
    assert all(x.dtype == np.uint8 for x in cases.values())
    np.testing.assert_array_equal(cases["shift"][:, :, 1:], fresh[:, :, :-1])
    known = {image.tobytes() for image in train}
    assert all(image.tobytes() in known for image in cases["copies"])
    assert len({image.tobytes() for image in cases["one image"]}) == 1
    kept = {image.tobytes() for image in fresh[own < 5]}
    assert all(image.tobytes() in kept for image in cases["dropped modes"])
    spread = [x[own == 3].astype(float).std(axis=0).mean() for x in (cases["shrunken"], fresh)]
    np.testing.assert_allclose(spread[0], spread[1] / 2, rtol=0.02)
    again = collapse_cases(fresh, own, train, seed=0)
    assert all((again[name] == x).all() for name, x in cases.items())


def test_noise_grows_and_starts_at_none():
    images, labels = load_dataset("digits")
    noisy = noise_cases(images[:50], labels[:50], images[50:], seed=1)
    np.testing.assert_array_equal(noisy[0], images[:50])
    gaps = [np.abs(x.astype(float) - images[:50]).mean() for x in noisy.values()]
    assert gaps == sorted(gaps)


def test_each_failure_is_seen_by_one_metric_and_hidden_from_another(measured):
    """What the chapter says in words."""
    cases, values, scores = verdicts(measured, BETTER)
    score = {case: dict(zip(BETTER, row, strict=True)) for case, row in zip(cases, scores, strict=True)}
    assert all(value == 0 for value in score["real"].values())
    assert score["near copies"]["fid"] > 2
    assert score["near copies"]["fld"] < -10
    assert score["near copies"]["authenticity"] < -10
    assert {row["precision"] for row in measured if row["case"] == "one image"} <= {0.0, 1.0}
    assert score["one image"]["recall"] < -10
    assert score["noise"]["recall"] > 2
    assert score["noise"]["precision"] < -10
    assert score["shrunken"]["precision"] > 2
    assert score["shrunken"]["recall"] < -10
    assert score["few samples"]["fid"] < -10
    assert score["dropped modes"]["recall"] < -10
    assert values[cases.index("copies"), list(BETTER).index("copied")] == 1


def test_a_score_counts_standard_deviations_of_the_reference():
    rows = [{"case": "real", "m": value, "c": 1.0} for value in (1.0, 2.0, 3.0)]
    rows += [{"case": "bad", "m": 5.0, "c": 2.0}] * 3
    cases, values, scores = verdicts(rows, {"m": -1, "c": 1})
    assert cases == ["real", "bad"]
    np.testing.assert_array_equal(values, [[2.0, 1.0], [5.0, 2.0]])
    np.testing.assert_array_equal(scores, [[0.0, 0.0], [-3.0, np.inf]])


def test_figures_show_what_they_are_given(measured):
    import pandas as pd

    cases, values, scores = verdicts(measured, BETTER)
    figure = plots.verdict_map(cases, list(BETTER), values, scores)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == len(cases) * len(BETTER)
    assert "> 1000" in texts  # the FLD of copies
    figure = plots.image_rows(
        {"a": np.zeros((20, 8, 8, 1), dtype=np.uint8), "b": np.zeros((20, 8, 8, 3), dtype=np.uint8)}
    )
    assert [axis.get_ylabel() for axis in figure.axes] == ["a", "b"]
    table = pd.DataFrame({"case": [0, 0, 5, 5], "fid": [1.0, 2.0, 3.0, 4.0]})
    figure = plots.metrics_against(table, "case", ["fid"], "noise")
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), [1.5, 3.5])
    repeated = np.array([[1.0, 3.0], [5.0, 7.0]])
    figure = plots.bias_in_n(np.array([100, 50]), {"A": repeated, "B": repeated[:, :1]}, {"A": 0.0, "B": 1.0})
    np.testing.assert_allclose(figure.axes[0].lines[1].get_ydata(), [-2.0, 6.0])  # from (0.01, 2), (0.02, 6) to 1/N = 0
    plt.close("all")
