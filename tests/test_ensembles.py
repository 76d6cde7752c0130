from dataclasses import replace

import numpy as np
import pytest
import torch

from iterative_retraining.data import TrainingSet
from iterative_retraining.ensembles import FAMILIES, Ensemble, EnsembleConfig, retrain_together
from iterative_retraining.laws import LAWS
from iterative_retraining.metrics.plane import PlaneMetrics
from iterative_retraining.models.edm import sample_heun
from iterative_retraining.schemes import FullySynthetic, Mix

CONFIG = EnsembleConfig(
    width=16,
    n_layers=2,
    batch_size=32,
    n_points_initial=32 * 70,
    n_points_per_retraining=32 * 5,
    n_steps=6,
    ema_halflife_points=100,
)
LAW = LAWS["eight_gaussians"]


def real(n=200, seed=0):
    return LAW.sample(n, seed=seed)


def fitted(seeds, data, config=CONFIG):
    ensemble = Ensemble(config, seeds)
    ensemble.fit([TrainingSet.of(x) for x in data], seeds)
    return ensemble


@pytest.mark.parametrize("family", FAMILIES)
def test_every_member_is_the_run_of_its_own(family):
    seeds, data, config = [3, 5, 8], [real(200, 1), real(120, 2), real(90, 3)], replace(CONFIG, family=family)
    together = fitted(seeds, data, config)
    samples = together.sample(40, [1, 2, 3])
    for i, seed in enumerate(seeds):
        alone = fitted([seed], [data[i]], config)
        for all_weights, own in zip(together.weights, alone.weights, strict=True):
            torch.testing.assert_close(all_weights[i], own[0], atol=1e-5, rtol=1e-4)
        np.testing.assert_allclose(samples[i], alone.sample(40, [i + 1])[0], atol=1e-3)
    assert np.abs(samples[0] - samples[1]).max() > 0.01


def test_samples_depend_on_seed_and_index_alone():
    ensemble = fitted([0, 1], [real(), real()])
    np.testing.assert_allclose(ensemble.sample(8, [4, 5])[:, :3], ensemble.sample(3, [4, 5]), atol=1e-5)


def test_a_member_whose_loss_is_not_finite_stops_and_the_others_do_not_notice():
    data = [real(), real() * np.inf, real()]
    ensemble = fitted([0, 1, 2], data)
    assert [bool(reason) for reason in ensemble.stopped] == [False, True, False]
    assert ensemble.stopped[1].startswith("the loss is nan at step 0; the last finite loss was nan")
    assert all(torch.isfinite(w).all() for w in ensemble.weights)
    alone = fitted([2], data[2:])
    torch.testing.assert_close(ensemble.weights[0][2], alone.weights[0][0], atol=1e-5, rtol=1e-4)


def test_algorithm_1_for_all_arms_shares_theta_0_and_mixes_as_each_scheme_says():
    schemes = (FullySynthetic(), Mix(0.0), Mix(0.5))
    arms = [(scheme, seed) for scheme in schemes for seed in (0, 1)]
    data = [real(100, seed) for _, seed in arms]
    found = list(retrain_together(CONFIG, arms, data, 2))
    assert [g.generation for g in found] == [0, 1, 2]
    assert found[0].samples.shape == (6, 100, 2)
    for arm in (2, 4):  # one theta_0 and one set of latents a seed
        np.testing.assert_allclose(found[0].samples[arm], found[0].samples[0], atol=1e-6)
    assert np.abs(found[1].samples[0] - found[1].samples[2]).max() > 1e-4
    other = list(retrain_together(CONFIG, arms[1:4:2], data[1:4:2], 2))  # seed 1, two of its arms
    np.testing.assert_allclose(other[2].samples[1], found[2].samples[3], atol=2e-3)


def test_a_stopped_arm_is_nan_and_says_why():
    data = [real(100, 0), real(100, 1) * np.nan]
    last = list(retrain_together(CONFIG, [(Mix(1.0), 0), (Mix(1.0), 1)], data, 1))[-1]
    assert np.isfinite(last.samples[0]).all()
    assert np.isnan(last.samples[1]).all()
    assert last.stopped[0] == ""
    assert "the loss is nan at step 0" in last.stopped[1]


def test_the_sampler_on_the_exact_score_recovers_the_law():
    def denoise(x, sigma):  # Tweedie's formula
        return (x.double() + sigma[0].double() ** 2 * LAW.score(x.double(), sigma[0].item())).float()

    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((20_000, 2)))
    x = sample_heun(denoise, noise, n_steps=40, sigma_max=20.0).numpy()
    error = x.std(axis=0) / np.sqrt(len(x))
    means = np.array(LAW.means)
    np.testing.assert_array_less(np.abs(x.mean(axis=0) - means.mean(axis=0)), 4 * error)
    expected = means.var(axis=0) + LAW.std**2
    np.testing.assert_array_less(np.abs(x.var(axis=0) - expected), 4 * (x**2).std(axis=0) / np.sqrt(len(x)))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_eight_gaussians(family):
    config = EnsembleConfig(family=family, width=64, n_points_initial=256 * 2000)
    ensemble = Ensemble(config, [0])
    ensemble.fit([TrainingSet.of(real(2000))], [0])
    measure = PlaneMetrics(LAW, 1000, seed=9)
    found, noise = measure(ensemble.sample(1000, [1])[0]), np.random.default_rng(0).standard_normal((1000, 2))
    assert found["modes"] == 1.0
    assert found["energy_distance"] < 0.1 * measure(noise)["energy_distance"]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="family = 'ddpm' is not allowed; allowed: edm, flow_matching"):
        replace(CONFIG, family="ddpm")
    with pytest.raises(ValueError, match="width = 0 is not allowed"):
        replace(CONFIG, width=0)
    with pytest.raises(ValueError, match="learning_rate = 0 is not allowed"):
        replace(CONFIG, learning_rate=0)
    with pytest.raises(ValueError, match="2 arms need as many sets of real data, all of one size"):
        next(retrain_together(CONFIG, [(Mix(1.0), 0), (Mix(1.0), 1)], [real(10), real(11)], 1))
