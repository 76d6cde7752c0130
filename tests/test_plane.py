import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from iterative_retraining.models.edm import EDM
from iterative_retraining.studies import plots
from iterative_retraining.studies.theory.flows import points_of_plane
from iterative_retraining.studies.toy2d.distributions import ARC, DISTRIBUTIONS, GaussianMixture
from iterative_retraining.studies.toy2d.ensembles import EnsembleConfig
from iterative_retraining.studies.toy2d.members import ProcessMembers, SplineMembers
from iterative_retraining.studies.toy2d.metrics import NAMES, PlaneMetrics, ends_table
from iterative_retraining.studies.toy2d.study import PlaneStudy, score_errors

EIGHT = DISTRIBUTIONS["eight_gaussians"]
ALL = {**DISTRIBUTIONS, "arc": ARC}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_densities_integrate_to_one_and_scores_are_their_gradients(name, sigma):
    target = ALL[name]
    points_of_plane(lambda x: target.density(x, sigma), -6, 6, 0.04)  # refuses what does not integrate to 1
    x = torch.from_numpy(target.sample(50, seed=1)).requires_grad_()
    (slope,) = torch.autograd.grad(target.log_density(x, sigma).sum(), x)
    torch.testing.assert_close(target.score(x.detach(), sigma), slope, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_samples_have_the_moments_of_the_mixture(name):
    target = ALL[name]
    x, means = target.sample(40_000, seed=0), np.array(target.means)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - means.mean(axis=0)), 4 * x.std(axis=0) / 200)
    np.testing.assert_allclose(x.var(axis=0), means.var(axis=0) + target.std**2, rtol=0.04)


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


def test_exact_w2_and_kernel_likelihoods():
    measure = PlaneMetrics(EIGHT, 400, seed=0)
    moved = measure(measure.reference + np.array([0.3, 0.4]))
    np.testing.assert_allclose(moved["w2"], 0.5, rtol=1e-9)  # a shift is its own optimal transport
    x, h = EIGHT.sample(400, seed=5), measure.bandwidth
    kernel = GaussianMixture(tuple(map(tuple, x.tolist())), std=h)
    expected = -kernel.log_density(torch.from_numpy(measure.reference)).mean().item()
    np.testing.assert_allclose(measure(x)["kernel_nll"], expected, rtol=1e-10)
    assert 0.02 < h < 0.5
    assert moved["kernel_nll"] > expected
    np.testing.assert_allclose(measure(x)["radius"], 1.0, atol=0.02)


def test_panels_of_densities():
    x = EIGHT.sample(100, seed=0)
    figure = plots.density_panels(x, {"a": [x, x], "b": [x, x]}, ["0", "5"])
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["truth", "0", "5"]
    plt.close(figure)


def test_a_slider_holds_every_picture_and_shows_the_first():
    def figures():
        for t in (0, 5):
            figure, axis = plt.subplots(figsize=(1, 1))
            axis.plot([0, t])
            yield f"<{t}>", figure

    text = plots.frames_slider("by-generation", "retrainings", figures(), 'a "map"')
    assert text.count("<img ") == text.count("data:image/png;base64,") == 2
    assert text.count(" hidden>") == 1
    assert 'alt="a &quot;map&quot;; retrainings &lt;5&gt;"' in text
    assert "http" not in text
    assert plt.get_fignums() == []


MEMBERS = {
    "edm": ProcessMembers(EDM(sigma_data=0.6, sigma_max=20.0, n_steps=5), width=16, n_layers=2),
    "spline_flow": SplineMembers(n_transforms=1, n_bins=4, width=8, n_layers=1),
}


@pytest.fixture(scope="module")
def study():
    return PlaneStudy(EIGHT, (("fully_synthetic", np.nan), ("mix", 1.0)), n_seeds=2, n_data=100)


@pytest.fixture(scope="module")
def found(study):
    budgets = {"batch_size": 50, "n_points_initial": 2000, "n_points_per_retraining": 200}
    return {
        name: study.run(name, EnsembleConfig(members, **budgets), n_retrain=3, every=2)
        for name, members in MEMBERS.items()
    }


def test_a_study_measures_every_member_at_the_generations_asked_for(study, found):
    assert study.plan == [("fully_synthetic", pytest.approx(np.nan, nan_ok=True), 0),
                          ("fully_synthetic", pytest.approx(np.nan, nan_ok=True), 1),
                          ("mix", 1.0, 0), ("mix", 1.0, 1)]  # fmt: skip
    np.testing.assert_array_equal(study.real[:, 0], study.real[:, 2])  # one set of real data a seed
    one = found["edm"]
    assert list(one.samples) == [0, 2, 3]
    assert len(one.runs) == 3 * 4
    assert one.runs.run_id.nunique() == 4
    row = one.runs[(one.runs.generation == 2) & (one.runs.scheme == "mix") & (one.runs.seed == 1)].iloc[0]
    assert row.w2 == study.measure(one.samples[2][:, 3])["w2"]
    assert study.cloud(one, ("mix", 1.0), 3).shape == (200, 2)
    assert one.stopped == {}


def test_exact_likelihoods_are_the_flows_own(study, found):
    runs = found["spline_flow"].runs
    assert (runs.kl > 0).all()
    np.testing.assert_allclose(runs.nll - runs.kl, study.target_nll, rtol=1e-6)
    last = found["spline_flow"].ends[1]
    x = torch.from_numpy(study.measure.reference).float()
    own = -last.config.members.log_prob(last.weights, x.expand(4, *x.shape)).double().mean(dim=1).detach()
    np.testing.assert_allclose(runs[runs.generation == 3].nll, own, rtol=1e-6)
    assert "nll" not in found["edm"].runs


def test_a_stopped_member_is_named_and_left_out():
    class Broken(PlaneStudy):
        @property
        def real(self):
            real = super().real.copy()
            real[0, 1] = np.nan
            return real

    study = Broken(EIGHT, (("mix", 1.0),), n_seeds=2, n_data=50)
    config = EnsembleConfig(MEMBERS["spline_flow"], batch_size=50, n_points_initial=100, n_points_per_retraining=100)
    one = study.run("flow", config, n_retrain=1)
    (name,), (why,) = one.stopped.keys(), one.stopped.values()
    assert name == "flow, mix λ = 1, seed 1"
    assert why.startswith("fit 0: the loss is nan at step 0")
    assert one.runs.nll.isna().tolist() == [False, True, False, True]
    assert study.cloud(one, ("mix", 1.0), 1).shape == (50, 2)


def test_score_errors_are_those_against_the_exact_score(found):
    last = found["edm"].ends[1]
    sigmas = np.array([0.1, 1.0])
    errors = score_errors(last, EIGHT, sigmas, n=500, seed=0)
    assert errors.shape == (2, 4)
    # at infinite noise the exact denoiser is the mean, 0, and the network's error is what it adds
    process, members = last.config.members.process, last.config.members
    denoise = process.denoiser(lambda x, level: members.network(last.weights, x, level))
    x = torch.from_numpy(EIGHT.sample(500, seed=0)) + 1000 * torch.from_numpy(
        np.random.default_rng(0).standard_normal((500, 2))
    )
    with torch.no_grad():
        out = denoise(x.float().expand(4, 500, 2).flatten(0, 1), torch.full((2000,), 1000.0)).view(4, -1)
    far = score_errors(last, EIGHT, np.array([1000.0]), n=500, seed=0)
    np.testing.assert_allclose(far[0], out.double().square().mean(dim=1).sqrt() / 1000, rtol=0.05)
    with pytest.raises(ValueError, match="score errors need an EDM"):
        score_errors(found["spline_flow"].ends[0], EIGHT, sigmas, n=10, seed=0)


def test_the_table_of_the_ends(study, found):
    runs = found["edm"].runs
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ends_table(runs, study.floor).splitlines()]
    assert len(rows) == 2 + 4 + 1  # head, two arms at two generations, floor
    assert {len(row) for row in rows} == {3 + len(NAMES)}
    assert {tuple(row[:3]) for row in rows[2:6]} == {
        ("edm", arm, t) for arm in ("fully synthetic", "λ = 1") for t in "03"
    }
    assert rows[6][:3] == ["real vs real", "", ""]
    mean = runs[(runs.generation == 3) & (runs.scheme == "mix")].energy_distance.mean()
    (last,) = [row for row in rows if row[1:3] == ["λ = 1", "3"]]
    assert last[3].startswith(f"{mean:.3f} ±")
