"""One visual language: the look of an arm is the registry's in every figure, and it is told apart by all eyes."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_hex, to_rgb

from iterative_retraining.runs import results
from iterative_retraining.studies import plots
from iterative_retraining.studies.plots.showing import figure_csv
from iterative_retraining.studies.plots.style import MARKERS, arm_style, curve_look
from iterative_retraining.studies.report.arms import arms

LAMS = [("mix", lam) for lam in MARKERS]
OTHERS = [("fully_synthetic", None), ("accumulate", None), ("accumulate_subsample", None), ("fresh", 1.0)]
LEAST_DISTANCE = 8.0  # in CAM02-UCS, where 1 is about the least difference that is seen


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def test_no_two_arms_share_line_and_marker():
    looks = [(str(style["linestyle"]), style["marker"]) for style in (arm_style(*arm) for arm in LAMS + OTHERS)]
    assert len(set(looks)) == len(looks)


@pytest.mark.parametrize("eyes", ["normal", "deuteranomaly", "protanomaly"])
def test_colours_of_one_line_differ_for_all_eyes(eyes):
    colour = pytest.importorskip("colorspacious", reason="needs colorspacious (extra `dev`)")

    def seen(look):
        rgb = np.array(to_rgb(look["color"]))
        if eyes == "normal":
            return rgb
        blind = {"name": "sRGB1+CVD", "cvd_type": eyes, "severity": 100}
        return np.clip(colour.cspace_convert(rgb, blind, "sRGB1"), 0, 1)

    for one, other in combinations([arm_style(*arm) for arm in LAMS + OTHERS], 2):
        if one["linestyle"] == other["linestyle"]:
            gap = colour.deltaE(seen(one), seen(other), input_space="sRGB1")
            assert gap > LEAST_DISTANCE, (one["label"], other["label"], gap)


def test_names_of_curves_tell_their_arm():
    for name, arm in {
        "replace": ("fully_synthetic", None),
        "λ = 0 (real only)": ("mix", 0.0),
        "mix, λ = 1": ("mix", 1.0),
        "λ = 0.5": ("mix", 0.5),
        "fresh, λ = 1": ("fresh", 1.0),
        "accumulate, subsample": ("accumulate_subsample", None),
    }.items():
        style = arm_style(*arm)
        assert curve_look(name, 3) == {"color": style["color"], "linestyle": style["linestyle"]}, name
    assert curve_look("median", 1) != curve_look("median", 2)


def figures():
    """Every figure whose curves are arms, drawn from little: (name, function of nothing, its names)."""
    path, t = np.ones((3, 4)), np.arange(3)
    names = ("fully synthetic", "λ = 0.5", "λ = 1")
    curves = dict.fromkeys(names, path)
    means = {name: np.ones(3) for name in names}
    weights = dict.fromkeys(names, (np.ones(3), [1.0] * 3, 0.5))
    return {
        "variances_over_time": lambda: plots.variances_over_time(means, means, {}),
        "variance_by_weight": lambda: plots.variance_by_weight(np.array([0.3, 0.6, 1]), weights),
        "shares_collapsed": lambda: plots.shares_collapsed({k: v > 0 for k, v in curves.items()}, 0.3),
        "lines_by_arm": lambda: plots.lines_by_arm(t, curves, xlabel="t", ylabel="y", log=False),
        "distances_over_time": lambda: plots.distances_over_time(means, 0.5),
        "std_bands": lambda: plots.std_bands([("fully_synthetic", None, path), ("mix", 0.5, path), ("mix", 1.0, path)]),
    }


@pytest.mark.parametrize("name", figures())
def test_arms_look_alike_in_every_figure(name):
    (axis,) = figures()[name]().axes
    found = {line.get_label().split(":")[0]: line for line in axis.lines}
    for label, arm in (
        ("fully synthetic", ("fully_synthetic", None)),
        ("λ = 0.5", ("mix", 0.5)),
        ("λ = 1", ("mix", 1.0)),
    ):
        style = arm_style(*arm)
        assert to_hex(found[label].get_color()) == style["color"], (name, label)
        assert found[label].get_linestyle() == style["linestyle"], (name, label)


def test_curves_of_runs_have_the_registrys_look_and_the_floor_its_n(runs):
    table = results.read_runs(runs).assign(fid=1.0)
    floor = {"fid": [1.0, 2.0], "n_images": 9}
    figure = plots.quality_curves(table, floor, ["fid"])
    found = {line.get_label(): line for line in figure.axes[0].lines if not line.get_label().startswith("_")}
    assert set(found) == {f"real vs real, n = {table.n_real.max()}", *(arm.label for arm, _ in arms(table))}
    for scheme, lam in (("fully_synthetic", None), ("mix", 0.0), ("mix", 1.0)):
        style = arm_style(scheme, lam)
        line = found[style["label"]]
        assert (to_hex(line.get_color()), line.get_marker()) == (style["color"], style["marker"])


def test_a_figure_tells_its_numbers_as_csv_and_pictures_have_none():
    figure, axis = plt.subplots()
    axis.plot([0, 1], [2, 3.5], label="λ = 1")
    axis.plot(np.zeros(1000))  # a chain without a name
    axis.fill_between([0, 1], [1, 2], [3, 4])
    axis.set_ylabel("FID")
    assert figure_csv(figure).splitlines() == [
        "panel,series,x,y,low,high",
        "FID,λ = 1,0,2,,",
        "FID,λ = 1,1,3.5,,",
        "FID,band,0,,1,3",
        "FID,band,1,,2,4",
    ]
    figure, axis = plt.subplots()
    axis.imshow(np.zeros((2, 2)))
    assert figure_csv(figure) is None


def test_outside_of_a_notebook_nothing_is_set(monkeypatch):
    shell = InteractiveShell.instance()
    monkeypatch.setattr("iterative_retraining.studies.plots.showing.get_ipython", lambda: shell)
    plots.show_with_numbers()
    assert "text/csv" not in shell.display_formatter.formatters
    InteractiveShell.clear_instance()
