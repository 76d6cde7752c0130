"""The study in the plane: gains and recursions against simulation, rows that can be made again, runs that go on."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from iterative_retraining.errors import ConfigError, RunError
from iterative_retraining.models.gain import gaussian_field, sampler_gain
from iterative_retraining.models.solvers import Field
from iterative_retraining.studies.toy2d import parts, plane, told
from iterative_retraining.studies.toy2d.budget import budget, budget_table
from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS
from iterative_retraining.studies.toy2d.fitted import draw_statistics, recursion, run_fitted
from iterative_retraining.studies.toy2d.folder import FolderRun
from iterative_retraining.studies.toy2d.parts import Part, Scale, fitted_rows
from iterative_retraining.studies.toy2d.samplers import (
    EXACT,
    SAMPLERS,
    gain_by_std,
    mixture_field,
    mixture_gain,
    network_process,
)

from conftest import ROOT

EIGHT = DISTRIBUTIONS["eight_gaussians"]
TINY = {
    "n_seeds": 2, "n_data": 40, "n_retrain": 2, "n_retrain_spline": 1, "every": 2, "n_points_initial": 512,
    "n_points_initial_spline": 256, "n_points_per_retraining": 256, "n_together": 1, "width": 8, "n_layers": 1,
}  # fmt: skip


def test_gains_between_the_points_of_the_grid_are_those_of_the_sampler():
    for name in ("heun_20", "ancestral_posterior_100", "ddim_50"):
        found = gain_by_std(name)(np.array([0.0123, 0.08, 0.33]))
        np.testing.assert_allclose(found, [sampler_gain(SAMPLERS[name], s) for s in (0.0123, 0.08, 0.33)], rtol=2e-5)
    np.testing.assert_array_equal(gain_by_std(EXACT)(np.array([0.1, 2.0])), 1)


@pytest.mark.parametrize("name", ["heun_20", "ancestral_posterior_100"])
def test_exact_gains_over_generations_give_the_simulated_spread(name):
    """The sampler itself, its score that of the Gaussian fitted to its last 20 000 numbers."""
    std, n = 0.08, 20_000
    for t in range(3):
        rng = np.random.default_rng(t)
        points = SAMPLERS[name].integrate(
            gaussian_field(std), lambda k, rng=rng: torch.from_numpy(rng.standard_normal((n, 1)))
        )
        std = points.std().item()
    expected = recursion(0.08, gain_by_std(name), 2)[-1]
    assert abs(std / expected - 1) < 4 * np.sqrt(3 / (2 * n))


def test_the_recursion_is_the_root_of_the_expected_square():
    """Where the gain is a constant: n = 80, 20 retrainings, 400 chains of eight modes."""
    n, gain = 80, lambda std: np.full_like(std, 0.97)
    run = run_fitted(EIGHT, gain, None, n=n, n_retrain=20, seeds=range(400))
    off = ((run.mean - np.asarray(EIGHT.means)) ** 2).sum(axis=-1) / 2
    squares = (run.std**2 + off).mean(axis=2)  # of the models themselves, (T + 1, chains)
    expected = recursion(EIGHT.std, gain, 20, n=n, n_modes=8) ** 2
    errors = squares.std(axis=1, ddof=1) / np.sqrt(squares.shape[1])
    np.testing.assert_array_less(np.abs(squares.mean(axis=1) - expected), 4 * errors)


def test_the_mix_pools_as_samples_do():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), 2 + rng.normal(size=(20, 2))

    def of(points):
        mean = points.mean(axis=0)
        return replace(
            draw_statistics(rng, np.zeros((1, 1, 2)), np.ones((1, 1)), len(points)),
            mean=mean[None, None],
            squares=np.array([[((points - mean) ** 2).sum()]]),
        )

    both, whole = of(x).with_more(of(y)), of(np.concatenate([x, y]))
    np.testing.assert_allclose(both.mean, whole.mean)
    np.testing.assert_allclose(both.std, whole.std)
    lone = run_fitted(EIGHT, np.ones_like, 0.0, n=40, n_retrain=3, seeds=range(2))
    np.testing.assert_array_equal(lone.std[0], lone.std[3])  # lambda = 0 learns the same real data


def test_a_size_that_the_modes_do_not_share_is_refused():
    with pytest.raises(ValueError, match="n = 30 is not allowed: a multiple of the 8 modes"):
        run_fitted(EIGHT, np.ones_like, None, n=30, n_retrain=1, seeds=range(2))


def test_the_mixtures_field_is_its_score():
    means = torch.tensor(EIGHT.means, dtype=torch.float64)
    field = mixture_field(means, torch.full((8,), EIGHT.std**2, dtype=torch.float64))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 2)))
    torch.testing.assert_close(field.denoise(x, 0.3), x + 0.09 * EIGHT.score(x, 0.3))
    torch.testing.assert_close(field.velocity(x, 0.6), Field.of_denoiser(field.denoise).velocity(x, 0.6))
    each = field.velocity(x, torch.full((50,), 0.6, dtype=torch.float64))
    torch.testing.assert_close(each, field.velocity(x, 0.6))
    torch.testing.assert_close(field.velocity(x, 0.0), means.mean(dim=0) - x)


def test_the_accurate_sampler_is_accurate_on_one_mode_and_on_eight():
    assert abs(sampler_gain(SAMPLERS["accurate"], EIGHT.std) - 1) < 0.005
    assert abs(mixture_gain("accurate", EIGHT) - 1) < 0.005


def test_an_edm_on_the_levels_of_ddpm_has_its_gain():
    process = network_process("ancestral_posterior_100")
    assert sampler_gain(process, 0.08) == pytest.approx(sampler_gain(SAMPLERS["ancestral_posterior_100"], 0.08))
    assert len(process.noise_levels()) == 101
    with pytest.raises(ConfigError, match="unknown sampler of an EDM 'rk4_8'"):
        network_process("rk4_8")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The parts of two models at a tiny scale, made in one go, and their table."""
    folder = tmp_path_factory.mktemp("plane")
    scale = plane.make(folder / "runs", TINY, ONLY)
    plane.publish(folder / "runs", folder, scale)
    return folder, pd.read_csv(folder / "plane.csv")


ONLY = ["plane-eight_gaussians-edm-accurate-fully", "plane-eight_gaussians-spline-exact-mix-lam1"]


def test_rows_have_what_claims_ask_for(made):
    folder, table = made
    assert list(table) == [*parts.COLUMNS, *parts.VALUES]
    assert table.groupby("model").size().to_dict() == {"edm": 4, "spline": 4}
    assert set(table[table.model == "edm"].generation) == {0, 2}
    told = json.loads((folder / "plane.json").read_text())
    assert sorted(told) == sorted(table.run_id.str.removesuffix("-seed0").str.removesuffix("-seed1").unique())
    assert set(table.started) == {one["started"] for one in told.values()}
    np.testing.assert_array_equal(table[table.scheme == "fully_synthetic"].lam, np.nan)


def test_a_study_that_was_killed_comes_out_the_same(made, tmp_path, monkeypatch):
    def killed(self, *arguments):
        if len(self.rows) == 1:
            raise KeyboardInterrupt
        return commit(self, *arguments)

    commit = FolderRun.commit
    monkeypatch.setattr(FolderRun, "commit", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            plane.make(tmp_path / "runs", TINY, ONLY)
    monkeypatch.setattr(FolderRun, "commit", commit)
    plane.publish(tmp_path / "runs", tmp_path, plane.make(tmp_path / "runs", TINY, ONLY))
    again = pd.read_csv(tmp_path / "plane.csv")
    pd.testing.assert_frame_equal(again.drop(columns="started"), made[1].drop(columns="started"))


def test_a_part_is_published_beside_those_that_are(made, tmp_path):
    folder, table = made
    for file in ("plane.csv", "plane.json", plane.MAPS):
        shutil.copy(folder / file, tmp_path)
    other = tmp_path / "runs"
    shutil.copytree(folder / "runs" / f"{ONLY[0]}_synthetic", other / f"{ONLY[0]}_synthetic")
    more = ["plane-eight_gaussians-spline-exact-fully"]
    plane.publish(other, tmp_path, plane.make(other, TINY, more))
    told, before = (json.loads((place / "plane.json").read_text()) for place in (tmp_path, folder))
    assert told.keys() == before.keys() | {f"{more[0]}_synthetic"}
    assert all(part["seconds"] > 0 for part in told.values())
    beside = pd.read_csv(tmp_path / "plane.csv")
    old = beside[~beside.run_id.str.startswith(more[0])].sort_values(["run_id", "generation"], ignore_index=True)
    pd.testing.assert_frame_equal(old, table.sort_values(["run_id", "generation"], ignore_index=True))
    with np.load(folder / plane.MAPS) as maps, np.load(tmp_path / plane.MAPS) as now:
        assert set(maps.files) < set(now.files)


def test_a_folder_of_another_scale_is_refused(made):
    with pytest.raises(RunError, match="was begun at another scale"):
        plane.make(made[0] / "runs", TINY | {"n_retrain": 3}, ONLY)
    with pytest.raises(ConfigError, match=r"unknown part of the scale 'n_seed'; .* did you mean 'n_seeds'"):
        plane.make(made[0] / "runs", {"n_seed": 3})
    with pytest.raises(RunError, match=r"no part of the study in .* is complete"):
        plane.publish(made[0] / "nothing", made[0], Scale())


def test_published_rows_without_a_network_can_be_made_again():
    published = pd.read_csv(ROOT / "results" / "plane.csv")
    assert (ROOT / "results" / "plane.csv").stat().st_size < 3e6
    for lam in (None, 1.0):
        part = Part("eight_gaussians", parts.FITTED, "heun_40", lam, 100)
        again = fitted_rows(part, Scale(), "then")
        own = published[published.run_id.isin(again.run_id)].reset_index(drop=True)
        assert len(own) == 80
        pd.testing.assert_frame_equal(own.drop(columns="started"), again.drop(columns="started"), rtol=1e-5)


def test_the_budget_adds_up():
    def rows(model, sampler, growth, scheme="fully_synthetic", lam=np.nan):
        about = {"dataset": "eight_gaussians", "model": model, "sampler": sampler, "scheme": scheme, "lam": lam}
        return [
            about | {"seed": s, "generation": t, "spread": 0.08 * np.exp(t * (growth + 0.001 * s))}
            for t in (0, 10)
            for s in (-1, 1)
        ]

    table = pd.DataFrame(
        rows("fitted_gaussians", "exact", 0.002) + rows("edm", "heun_20", 0.05)
        + rows("edm", "accurate", 0.003, "mix", 0.0)
    )  # fmt: skip
    found = budget(table, "edm", "heun_20")
    gain = np.log(sampler_gain(SAMPLERS["heun_20"], 0.08))
    expected = {"total": 0.05, "statistical": 0.002, "sampler": gain, "start": 0.003, "rest": 0.045 - gain}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    text = budget_table(table, {"EDM": ("edm", "heun_20"), "absent": ("edm", "exact")})
    assert "| EDM | +5.00 ± " in text
    assert "absent" not in text


def doctored(spreads: dict[str, float]) -> pd.DataFrame:
    """Rows without a network, fully synthetic: 0.08 at first and ``spreads`` by sampler at last."""
    about = {"dataset": "eight_gaussians", "model": "fitted_gaussians", "scheme": "fully_synthetic", "lam": np.nan}
    return pd.DataFrame(
        about | {"sampler": s, "seed": seed, "generation": t, "n_retrain": 100, "spread": value, "modes": 1.0,
                 "log_kl": 0.0, "run_id": f"plane-{s}-seed{seed}", "n": 1000}
        for s, last in spreads.items()
        for seed in (0, 1)
        for t, value in ((0, 0.08), (100, last))
    )  # fmt: skip


def test_sentences_are_made_from_the_rows():
    text = told.fitted_sentence(doctored({"exact": 0.107, "heun_40": 0.3, "ddim_50": 0.001}))
    assert "is 0.107 with exact draws" in text
    assert "below half of the truth with `ddim_50` (0.001)." in text
    assert "above twice the truth with `heun_40` (0.3)." in text
    swapped = told.fitted_sentence(doctored({"exact": 0.107, "heun_40": 0.001, "ddim_50": 0.08}))
    assert "below half of the truth with `heun_40` (0.001)." in swapped
    assert "above twice the truth with none of the samplers." in swapped
    for say in (told.start_sentence, told.excess_sentence, told.long_sentence):
        assert "not run" in say(doctored({"exact": 0.1}))
    assert told.network_table(doctored({"exact": 0.1})) == "*Not run.*"
    assert "`plane-two_moons-edm-accurate-mix-lam1`" in told.missing_note(doctored({"exact": 0.1}))


def test_longer_retrainings_are_told_by_sampler():
    spreads = {"accurate": {0: 0.08, 5: 0.09, 10: 0.12}, "contracting": {0: 0.07, 5: 0.03, 10: 0.05}}
    rows = [
        {"model": "edm_long", "sampler": sampler, "generation": t, "seed": s, "spread": spread + (s - 0.5) / 100}
        for sampler, own in spreads.items() for t, spread in own.items() for s in (0, 1)
    ]  # fmt: skip
    text = told.long_sentence(pd.DataFrame(rows))
    assert "with `accurate` from 0.080 to 0.120 at 10, least at 0 retrainings with 0.080" in text
    assert "with `contracting` from 0.070 to 0.050 at 10, least at 5 retrainings with 0.030" in text


def test_the_excess_of_a_flow_is_that_of_its_seeds():
    rows = [
        {"dataset": "eight_gaussians", "model": "spline", "sampler": "exact", "scheme": "mix", "lam": lam, "seed": s}
        | {"generation": t, "n_retrain": 20, "log_kl": -3.0 + s + (0.3 if lam else 0.0) + (5.0 if t < 10 else 0.0)}
        for lam in (0.0, 1.0) for s in (0, 1, 2) for t in (0, 10, 20)
    ]  # fmt: skip
    assert "the log KL is 0.300 ± 0.000 above that of λ = 0" in told.excess_sentence(pd.DataFrame(rows))


def test_maps_are_shown_at_the_generations_that_all_have(made):
    maps = plane.read_densities(made[0])
    part = Part("eight_gaussians", "edm", "accurate", None, 2)
    assert maps[part.name][0].sum() <= 80
    assert maps[part.name][0].shape == (64, 64)
    rows, titles = told.shown_maps(maps, {"here": part, "absent": replace(part, dataset="two_moons")})
    assert (list(rows), titles) == (["here"], ["0 retrainings"])
    assert told.shown_maps(maps, {}) == ({}, [])
    with pytest.raises(RunError, match="remove its folder"):
        plane.read_densities(made[0] / "runs")


def test_a_mode_that_has_become_a_point_is_measured():
    part = Part("eight_gaussians", parts.LARGE, "ancestral_posterior_100", None, 100)
    last = fitted_rows(part, Scale(), "then").iloc[-1]
    assert last.spread < 1e-3
    assert np.isfinite(last.log_kl)
