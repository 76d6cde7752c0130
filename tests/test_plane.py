import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from iterative_retraining import plots
from iterative_retraining.ensembles import Generation
from iterative_retraining.flows import points_of_plane
from iterative_retraining.laws import ARC, LAWS
from iterative_retraining.metrics.plane import PlaneMetrics, ends_table, measured_rows

EIGHT = LAWS["eight_gaussians"]
ALL = {**LAWS, "arc": ARC}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_densities_integrate_to_one_and_scores_are_their_gradients(name, sigma):
    law = ALL[name]
    points_of_plane(lambda x: law.density(x, sigma), -6, 6, 0.04)  # refuses what does not integrate to 1
    x = torch.from_numpy(law.sample(50, seed=1)).requires_grad_()
    (slope,) = torch.autograd.grad(law.log_density(x, sigma).sum(), x)
    torch.testing.assert_close(law.score(x.detach(), sigma), slope, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_samples_have_the_moments_of_the_mixture(name):
    law = ALL[name]
    x, means = law.sample(40_000, seed=0), np.array(law.means)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - means.mean(axis=0)), 4 * x.std(axis=0) / 200)
    np.testing.assert_allclose(x.var(axis=0), means.var(axis=0) + law.std**2, rtol=0.04)


def test_real_data_lie_on_the_floor_and_a_shift_is_measured():
    measure = PlaneMetrics(EIGHT, 2000, seed=0)
    floor = measure.floor(2000, seed=1)
    assert abs(np.mean(floor["energy_distance"])) < 0.002
    np.testing.assert_allclose(np.mean(floor["spread"]), 0.08, rtol=0.02)
    assert set(floor["modes"]) == {1.0}
    shifted = measure(EIGHT.sample(2000, seed=99) + np.array([0.3, 0.0]))
    assert shifted["energy_distance"] > 10 * max(floor["energy_distance"])
    copy = measure(measure.reference + np.array([0.3, 0.0]))
    np.testing.assert_allclose(copy["sliced_w2"], 0.3 / np.sqrt(2), rtol=0.15)  # mean of cos^2 over 64 directions


def test_collapse_to_the_means_and_lost_modes_are_told_apart():
    measure = PlaneMetrics(EIGHT, 800, seed=0)
    means = np.array(EIGHT.means)
    onto_means = measure(np.repeat(means, 100, axis=0))
    np.testing.assert_allclose([onto_means["spread"], onto_means["modes"]], [0.0, 1.0], atol=1e-12)
    lost = measure(means[0] + 0.08 * np.random.default_rng(0).standard_normal((800, 2)))
    assert lost["modes"] == 1 / 8
    np.testing.assert_allclose(lost["spread"], 0.08, rtol=0.1)
    assert all(np.isnan(value) for value in measure(np.full((5, 2), np.nan)).values())


def test_the_energy_distance_of_two_points_each_is_by_hand():
    measure = PlaneMetrics(EIGHT, 2, seed=0)
    (a, b), x = measure.reference, np.array([[0.0, 0.0], [3.0, 4.0]])
    between = np.mean([np.linalg.norm(p - q) for p in x for q in (a, b)])
    np.testing.assert_allclose(measure(x)["energy_distance"], 2 * between - 5.0 - np.linalg.norm(a - b))


def test_panels_of_densities():
    x = EIGHT.sample(100, seed=0)
    figure = plots.density_panels(x, {"a": [x, x], "b": [x, x]}, [0, 5])
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["truth", "0 retrainings", "5 retrainings"]
    plt.close(figure)


def test_rows_and_the_table_of_the_ends():
    measure = PlaneMetrics(EIGHT, 100, seed=0)
    plan = [("mix", 0.0, 0), ("mix", 0.0, 1), ("fully_synthetic", np.nan, 0)]
    rows = []
    for t in (0, 5):
        samples = np.stack([EIGHT.sample(100, seed=10 * t + i) for i in range(3)])
        rows += measured_rows("edm", plan, Generation(t, samples, ("", "", "")), measure)
    runs = pd.DataFrame(rows)
    assert runs.run_id.nunique() == 3
    assert runs.spread.iloc[1] == measure(EIGHT.sample(100, seed=1))["spread"]
    table = ends_table(runs, measure.floor(100, seed=3), ["spread", "modes"])
    lines = table.splitlines()
    assert len(lines) == 2 + 4 + 1  # head, two arms at two generations, floor
    assert lines[2].startswith("| edm | fully synthetic | 0 |")
    mean = runs[(runs.generation == 5) & (runs.scheme == "mix")].spread.mean()
    assert f"| edm | λ = 0 | 5 | {mean:.4f} ±" in table
