from dataclasses import replace

import numpy as np
import pytest
import torch

from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.retrain import retrain
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.schemes import Accumulate, FullySynthetic, Mix, Weighted
from iterative_retraining.seeding import stage_seed
from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS
from iterative_retraining.studies.toy2d.ensembles import (
    Ensemble,
    EnsembleConfig,
    MemberSchemes,
    MemberSets,
    retrain_together,
)
from iterative_retraining.studies.toy2d.members import PLANE_FAMILIES, ProcessMembers, SplineMembers
from iterative_retraining.studies.toy2d.metrics import PlaneMetrics
from iterative_retraining.training_set import TrainingSet

SMALL = {
    "ddpm": ProcessMembers(
        DDPM(time_scale=0.004, n_steps=5, solver="ancestral_posterior", clip=False), width=16, n_layers=2
    ),
    "edm": ProcessMembers(EDM(sigma_data=0.6, sigma_max=20.0, n_steps=6), width=16, n_layers=2),
    "flow_matching": ProcessMembers(FlowMatching(time_scale=4.0, n_steps=3), width=16, n_layers=2),
    "spline_flow": SplineMembers(n_transforms=2, n_bins=4, width=8, n_layers=1),
}
CONFIG = EnsembleConfig(
    SMALL["edm"],
    batch_size=32,
    n_points_initial=32 * 70,
    n_points_per_retraining=32 * 5,
    ema_halflife_points=100,
    coupled=16,
)
TARGET = DISTRIBUTIONS["eight_gaussians"]
every_family = pytest.mark.parametrize("family", SMALL)


def real(n=200, seed=0):
    return TARGET.sample(n, seed=seed)


def fitted(seeds, data, config=CONFIG):
    return Ensemble(config, len(seeds)).fit(MemberSets(tuple(map(TrainingSet.of, data))), seed=tuple(seeds))


def start(family, plan, data, n_retrain, **changes):
    config = replace(CONFIG, members=SMALL[family], **changes)
    run = MemoryRun()
    ensemble, records = retrain_together(config, plan, np.stack(data, axis=1), [], n_retrain=n_retrain, run=run)
    return ensemble, list(records), run


@every_family
def test_every_member_is_the_run_of_its_own(family):
    config = replace(CONFIG, members=SMALL[family])
    seeds, data = [3, 5, 8], [real(200, 1), real(120, 2), real(90, 3)]
    together = fitted(seeds, data, config)
    samples = together.sample(40, seed=(1, 2, 3))
    assert samples.shape == (40, 3, 2)
    for i, seed in enumerate(seeds):
        alone = fitted([seed], [data[i]], config)
        for name, all_weights in together.weights.items():
            torch.testing.assert_close(all_weights[i], alone.weights[name][0], atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(samples[:, i], alone.sample(40, seed=(i + 1,))[:, 0], atol=1e-3)
    assert np.abs(samples[:, 0] - samples[:, 1]).max() > 0.01


@every_family
def test_samples_depend_on_seed_and_index_alone(family):
    ensemble = fitted([0, 1], [real(), real()], replace(CONFIG, members=SMALL[family]))
    np.testing.assert_allclose(ensemble.sample(8, seed=(4, 5))[:3], ensemble.sample(3, seed=(4, 5)), atol=1e-5)


@every_family
def test_a_member_whose_loss_is_not_finite_stops_and_the_others_do_not_notice(family):
    config, data = replace(CONFIG, members=SMALL[family]), [real(), real() * np.nan, real()]
    ensemble = fitted([0, 1, 2], data, config)
    assert [bool(reason) for reason in ensemble.stopped] == [False, True, False]
    assert ensemble.stopped[1] == "fit 0: the loss is nan at step 0; the last finite loss was nan"
    assert all(torch.isfinite(w).all() for w in ensemble.weights.values())
    alone = fitted([2], data[2:], config)
    for name, weights in ensemble.weights.items():
        torch.testing.assert_close(weights[2], alone.weights[name][0], atol=1e-5, rtol=1e-4)
    samples = ensemble.sample(5, seed=(0, 1, 2))
    assert np.isnan(samples[:, 1]).all()
    assert np.isfinite(samples[:, [0, 2]]).all()


def test_an_ensemble_follows_algorithm_1_as_a_single_model_does():
    plan = [(scheme, seed) for scheme in (FullySynthetic(), Mix(0.0), Mix(0.5)) for seed in (0, 1)]
    data = [real(100, seed) for _, seed in plan]
    _, records, run = start("edm", plan, data, 2)
    assert [r.generation for r in records] == [0, 1, 2]
    assert (records[1].n_real, records[1].n_synthetic) == ((0, 0, 100, 100, 100, 100), (100, 100, 0, 0, 50, 50))
    assert (records[0].n_images, records[1].n_images) == (0, 160)
    assert run.history[0].shape == (100, 6, 2)
    for arm in (2, 4):  # one theta_0 and one set of latents a seed
        np.testing.assert_allclose(run.history[0][:, arm], run.history[0][:, 0], atol=1e-6)
    assert np.abs(run.history[1][:, 0] - run.history[1][:, 2]).max() > 1e-4
    alone = MemoryRun()  # the arm lambda = 0.5 of seed 1 by `retrain`, its theta_0 trained there
    for _ in retrain(
        Ensemble(CONFIG, 1), data[5][:, None], MemberSchemes((Mix(0.5),)), [], n_retrain=2, seed=(1,), run=alone
    ):
        pass
    np.testing.assert_allclose(alone.history[2][:, 0], run.history[2][:, 5], atol=2e-3)


def test_accumulating_schemes_read_their_own_members_history():
    _, records, _ = start("edm", [(Accumulate(), 0), (Mix(1.0), 0)], [real(50), real(50)], 2)
    assert records[2].n_synthetic == (100, 50)


@every_family
def test_a_members_loss_is_the_mean_of_its_weighted_terms(family):
    ensemble = fitted([0, 1], [real(), real()], replace(CONFIG, members=SMALL[family]))
    x = torch.from_numpy(np.stack([real(8, 1), real(8, 2)])).float()
    numbers = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 8, 3))).float()
    batch, weights = (numbers[..., 0], numbers[..., 1:]), torch.arange(16.0).view(2, 8)
    terms = ensemble.config.members.loss_terms(ensemble.weights, x, *batch)
    by_hand = [sum(weights[i, j] * terms[i, j].mean() for j in range(8)).item() / 8 for i in range(2)]
    np.testing.assert_allclose(ensemble._losses(x, weights, *batch).tolist(), by_hand, rtol=1e-5)
    torch.testing.assert_close(ensemble._losses(x, torch.ones(2, 8), *batch), ensemble._losses(x, None, *batch))


def test_weights_are_each_members_own():
    data = [real(100, seed) for seed in (0, 0, 0, 1)]
    plan = [(Mix(1.0), 0), (Weighted(1.0, 0.5), 0), (Weighted(1.0, 0.9), 0), (FullySynthetic(), 1)]
    _, _, run = start("edm", plan, data, 2)
    _, _, alone = start("edm", plan[3:], data[3:], 2)
    last = run.history[2]
    np.testing.assert_allclose(last[:, 0], last[:, 1], atol=1e-4)
    assert np.abs(last[:, 0] - last[:, 2]).max() > 1e-3
    np.testing.assert_allclose(last[:, 3], alone.history[2][:, 0], atol=1e-4)


def test_training_from_scratch_forgets_the_weights():
    plan, data = [(Mix(0.0), 0), (Mix(0.0), 1)], [real(100, 0), real(100, 1)]
    ensemble, _, _ = start("edm", plan, data, 1, warm_start=False)
    again, _, _ = start("edm", plan, data, 2, warm_start=False)
    fresh = Ensemble(replace(CONFIG, members=SMALL["edm"]), 2)
    fresh.fit(MemberSets(tuple(map(TrainingSet.of, data))), seed=stage_seed((0, 1), 2, "fit"))
    for name, weights in again.weights.items():
        torch.testing.assert_close(weights, fresh.weights[name])
        assert not ensemble.weights[name].equal(weights)


def test_a_stopped_arm_is_nan_and_says_why():
    data = [real(100, 0), real(100, 1) * np.nan]
    for family in SMALL:
        ensemble, _, run = start(family, [(Mix(1.0), 0), (Mix(1.0), 1)], data, 1)
        assert np.isfinite(run.history[1][:, 0]).all()
        assert np.isnan(run.history[1][:, 1]).all()
        assert ensemble.stopped == ["", "fit 0: the loss is nan at step 0; the last finite loss was nan"]


def test_state_round_trips():
    ensemble, other = fitted([0, 1], [real(), real() * np.nan]), Ensemble(CONFIG, 2)
    other.load_state_dict(ensemble.state_dict())
    np.testing.assert_array_equal(other.sample(4, seed=(0, 1)), ensemble.sample(4, seed=(0, 1)))
    assert other.stopped == ensemble.stopped
    assert other.n_fits == 1


def test_splines_are_the_flow_of_zuko_and_integrate_to_one():
    members = SMALL["spline_flow"]
    ensemble = fitted([0, 1], [real(), real()], replace(CONFIG, members=members))
    flow = members._new_flow()
    flow.load_state_dict({name: w[1] for name, w in ensemble.weights.items()}, strict=False)
    x = torch.from_numpy(real(30, 7)).float()
    found = members.log_prob(ensemble.weights, x.expand(2, 30, 2))
    torch.testing.assert_close(found[1], flow().log_prob(x))
    assert not torch.allclose(found[0], found[1])
    side = torch.linspace(-6, 6, 1201)
    grid = torch.cartesian_prod(side, side)
    mass = members.log_prob(ensemble.weights, grid.expand(2, *grid.shape)).double().exp().sum(dim=1) * 0.01**2
    torch.testing.assert_close(mass, torch.ones(2).double(), atol=2e-3, rtol=0)


def test_the_sampler_on_the_exact_score_recovers_the_distribution():
    process = PLANE_FAMILIES["edm"].process

    def net(y, level):  # what the network has to be for the denoiser to be Tweedie's formula
        sigma = (4 * level[0].double()).exp()
        variance = sigma**2 + process.sigma_data**2
        x = y.double() * variance.sqrt()
        denoised = x + sigma**2 * TARGET.score(x, sigma.item())
        return (denoised - process.sigma_data**2 / variance * x) * variance.sqrt() / (sigma * process.sigma_data)

    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 2)))
    x = process.sample(net, lambda k: noise).numpy()
    error = x.std(axis=0) / np.sqrt(len(x))
    means = np.array(TARGET.means)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - means.mean(axis=0)), 4 * error)
    expected = means.var(axis=0) + TARGET.std**2
    np.testing.assert_array_less(np.abs(x.var(axis=0) - expected), 4 * (x**2).std(axis=0) / np.sqrt(len(x)))


@every_family
def test_every_family_learns_eight_gaussians(family):
    config = EnsembleConfig(PLANE_FAMILIES[family], n_points_initial=256 * (600 if family == "spline_flow" else 1500))
    ensemble = fitted([0], [real(2000)], config)
    measure = PlaneMetrics(TARGET, 1000, seed=9)
    found = measure(ensemble.sample(1000, seed=(1,))[:, 0])
    noise = np.random.default_rng(0).standard_normal((1000, 2))
    assert found["modes"] == 1.0
    assert found["energy_distance"] < 0.25 * measure(noise)["energy_distance"]
    assert found["spread"] < 0.5 * measure(noise)["spread"]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="width = 0 is not allowed"):
        replace(SMALL["edm"], width=0)
    with pytest.raises(ValueError, match="n_bins = 0 is not allowed"):
        replace(SMALL["spline_flow"], n_bins=0)
    with pytest.raises(ValueError, match=r"learning_rate = 0 is not allowed"):
        replace(CONFIG, learning_rate=0)
    with pytest.raises(ValueError, match=r"2 arms need real data of shape \(n, 2, 2\), got \(10, 3, 2\)"):
        retrain_together(CONFIG, [(Mix(1.0), 0), (Mix(1.0), 1)], np.zeros((10, 3, 2)), [], n_retrain=1)
    with pytest.raises(ValueError, match="2 members need as many sets of data, got 3"):
        fitted([0, 1], [real()] * 3)
