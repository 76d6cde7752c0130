"""Models that feed each other: the engine against `retrain` and by hand, the linear theory against simulation."""

import re

import numpy as np
import pytest

from iterative_retraining import build_model, resolve_options
from iterative_retraining.config import RunConfig
from iterative_retraining.ecosystem import Ecosystem, retrain_ecosystem
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.retrain import retrain
from iterative_retraining.runs.directory import Run
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.runs.provenance import write_manifest
from iterative_retraining.schemes import build_scheme
from iterative_retraining.seeding import stage_seed
from iterative_retraining.studies.theory.ecosystem import (
    coupled_jacobian,
    covariance_over_time,
    sampling_noise,
    spectral_radius,
    stationary_covariance,
)
from iterative_retraining.studies.theory.finite_samples import stationary_excess

from conftest import TINY_EDM

REAL = np.random.default_rng(0).normal(size=(40, 1))
TWO = ((0.5, 1.0), (0.25, 0.0))


def loop(ecosystem, n_retrain=3, runs=None):
    models = [Gaussian() for _ in ecosystem.lam]
    runs = [MemoryRun() for _ in models] if runs is None else runs
    found = list(retrain_ecosystem(models, REAL, ecosystem, [], n_retrain=n_retrain, seed=5, runs=runs))
    return models, runs, found


def test_one_model_alone_is_algorithm_1():
    for ecosystem, scheme in ((Ecosystem(((0.5,),)), build_scheme("mix", 0.5)),
                              (Ecosystem(((1.0,),), real=False), build_scheme("fully_synthetic"))):  # fmt: skip
        _, (run,), _ = loop(ecosystem)
        alone = MemoryRun()
        list(retrain(Gaussian(), REAL, scheme, [], n_retrain=3, seed=stage_seed(5, 0, "member"), run=alone))
        assert all((a == b).all() for a, b in zip(run.history, alone.history, strict=True))


def test_each_model_learns_from_the_samples_that_its_row_names():
    models, runs, found = loop(Ecosystem(TWO))
    assert [(i, record.generation) for i, record in found] == [(i, t) for t in range(4) for i in range(2)]
    assert [(r.n_real, r.n_synthetic) for _, r in found[-2:]] == [(40, 60), (40, 10)]
    first, second = (run.history[2] for run in runs)
    mean = np.concatenate([REAL, first[:20], second[:40]]).mean()
    assert models[0].state_dict()["mean"] == pytest.approx(mean)
    assert not (first[:40] == second[:40]).any()  # no two draw the same


def test_an_ecosystem_on_disk_goes_on_where_it_was_stopped(tmp_path, digits):
    options = resolve_options("edm", "digits", TINY_EDM)

    def run_it(folder, n):
        models = [build_model("edm", digits.shape[1:], options, n_images_initial=64, n_images_per_retraining=64)
                  for _ in range(2)]  # fmt: skip
        configs = [RunConfig(dataset="digits", model="edm", options=TINY_EDM, seed=seed) for seed in (0, 1)]
        runs = [Run(folder / str(i), config) for i, config in enumerate(configs)]
        for run in runs:
            write_manifest(run, n_retrain=2, device="cpu", real=digits)
        try:
            asked = {"n_retrain": 2, "seed": 0, "runs": runs}
            for done, _ in enumerate(retrain_ecosystem(models, digits[:60], Ecosystem(TWO), [], **asked), start=1):
                if done == n:
                    return None
            return [[row["samples_sha256"] for row in run.rows] for run in runs]
        finally:
            for run in runs:
                run.close()

    whole = run_it(tmp_path / "whole", 99)
    assert run_it(tmp_path / "cut", 3) is None  # model 0 is a generation ahead of model 1
    assert run_it(tmp_path / "cut", 99) == whole


@pytest.mark.parametrize(
    ("lam", "real", "wrong"),
    [
        ((), True, "lam has 0 rows"),
        (((1.0, 0.0),), True, "lam has 1 rows of [2] entries; allowed: k rows of k"),
        (((-0.1,),), True, "lam = -0.1 is not allowed"),
        (((0.0, 0.0), (1.0, 0.0)), False, "this model would learn from nothing"),
    ],
)
def test_a_bad_matrix_is_refused(lam, real, wrong):
    with pytest.raises(ValueError, match=re.escape(wrong)):
        Ecosystem(lam, real)


def test_models_and_runs_have_to_be_as_many_as_rows():
    with pytest.raises(ValueError, match="1 models for a matrix of 2 rows"):
        list(retrain_ecosystem([Gaussian()], REAL, Ecosystem(TWO), [], n_retrain=1, seed=0, runs=[MemoryRun()] * 2))
    with pytest.raises(ValueError, match="1 runs for 2 models"):
        list(retrain_ecosystem([Gaussian()] * 2, REAL, Ecosystem(TWO), [], n_retrain=1, seed=0, runs=[MemoryRun()]))


def test_one_model_alone_has_the_known_excess():
    for lam in (0.1, 1.0, 5.0):
        assert stationary_covariance([[lam]]) == pytest.approx(stationary_excess(lam))
        assert spectral_radius([[lam]]) == pytest.approx(lam / (1 + lam))
    assert spectral_radius(TWO, real=False) == pytest.approx(1)
    np.testing.assert_allclose(coupled_jacobian(TWO), [[0.2, 0.4], [0.2, 0.0]])
    with pytest.raises(ValueError, match="is not allowed: k rows of k ratios"):
        coupled_jacobian([[1.0, -1.0], [0.0, 1.0]])


@pytest.mark.parametrize("real", [True, False])
def test_simulated_means_have_the_covariance_of_the_theory(real):
    """Means of Gaussians of variance 1 by blocks of samples that the models share, in units of 1/n."""
    lam, n, chains, generations = np.array([[0.5, 1.0], [0.25, 2.0]]), 20, 60_000, 6
    rng, size = np.random.default_rng(1), lam.sum(axis=1) + real
    means = np.zeros((2, chains))
    for _ in range(generations):
        sums = np.zeros((2, chains))
        for j in range(2):  # the first samples of model j, and for who reads more the rest
            few, many = np.sort((lam[:, j] * n).astype(int))
            head = few * means[j] + np.sqrt(few) * rng.standard_normal(chains)
            rest = (many - few) * means[j] + np.sqrt(many - few) * rng.standard_normal(chains)
            for i in range(2):
                sums[i] += head + (rest if lam[i, j] * n > few else 0)
        means = sums / (size[:, None] * n)
    expected = covariance_over_time(lam, generations, real=real)[-1]
    found = n * np.cov(means)
    np.testing.assert_allclose(found, expected, atol=4 * expected.max() * np.sqrt(2 / chains))


def test_pooling_makes_models_alike_and_its_noise_smaller_the_more_they_draw():
    """k models on the pooled samples of all, n from each: one model of k n samples; alone, each has its own n."""
    for k in (2, 4):
        pooled, alone = np.ones((k, k)), np.eye(k)
        np.testing.assert_allclose(sampling_noise(pooled, real=False), 1 / k, rtol=1e-12)  # in common to all
        np.testing.assert_allclose(sampling_noise(alone, real=False), np.eye(k))
        at_equal_budget = covariance_over_time(np.full((k, k), 1 / k), 10, real=False)[-1]
        np.testing.assert_allclose(at_equal_budget, 10.0)  # n in all: as one model alone, diversity gains nothing
