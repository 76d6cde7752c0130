"""A rehearsal in the small: every file of a preset is missing, the process is killed, and a table is printed."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import run_module

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import ConfigError, RunError
from iterative_retraining.models import resolve_options
from iterative_retraining.models.pretrained import read_weights, state_that_fits
from iterative_retraining.models.pretrained.stand_ins import write_stand_in
from iterative_retraining.rehearsal import rehearsal_of
from iterative_retraining.runs.publishing import publish
from iterative_retraining.runs.reading import read_config, read_ledger, read_manifest

from conftest import copy_of_project

SMALL = {"channels": 8, "multipliers": [1, 2], "blocks_per_level": 1, "attention_resolutions": []}
PRESET = {
    "dataset": "cifar10",
    "data_dir": "nowhere",
    "init": "nowhere/edm-cifar10-32x32-uncond-vp.pkl",
    "model": "edm",
    "features": "inception-legacy_pytorch",
    "features_weights": "nowhere/pt_inception-2015-12-05-6726825d.pth",
    "n_retrain": 20,
    "n_images_per_retraining": 1_000_000,
    "latents": "fixed",
    "keep_every": 5,
    "device": "cpu",
    "model_options": SMALL | {"batch_size": 256, "augment_labels": 9},
}


@pytest.fixture(scope="module")
def caches(tmp_path_factory) -> dict[str, str]:
    """An environment with a cache of its own, of which the tests here have one."""
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("caches")), "OMP_NUM_THREADS": "1"}


def test_a_rehearsal_walks_all_of_a_run_whose_files_are_missing(tmp_path, caches):
    """Random weights in the published layout, photographs, Inception's shape; killed, resumed, measured, refused."""
    (tmp_path / "params.yml").write_text(json.dumps(PRESET))
    words = ("iterative_retraining", "-f", "params.yml", "--rehearsal")
    done = run_module(*words, cwd=tmp_path, env={**os.environ, **caches})
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = (tmp_path / "runs" / "rehearsal").glob("rehearsal-photos32-edm-mix-lam0.5-seed0-*")
    rows, attempts = read_ledger(run), read_manifest(run)["attempts"]
    assert [(row["n_images"], row["n_real"]) for row in rows] == [(0, 16), (6, 16), (6, 16)]
    assert {"fid", "kid", "precision", "density", "fld", "held_out_fid", "held_out_loss"} <= set(rows[0])
    assert [attempt.get("outcome", "killed") for attempt in attempts] == ["killed", "complete"]
    assert attempts[1]["peak_memory_bytes"] > 1e8
    table = done.stdout[done.stdout.index("## Rehearsal on ") :]
    assert f"| {read_config(run)['run_id']} | " in table
    for missing in ("cifar10 is looked for in nowhere", "Inception weights nowhere", "edm-cifar10-32x32-uncond-vp.pkl"):
        assert sum(line.startswith("- ") and missing in line for line in table.splitlines()) == 1, missing
    with pytest.raises(RunError, match=r"is a rehearsal .* never published"):
        publish([run], tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_sweep_is_rehearsed_by_the_graph(tmp_path, caches):
    arm = {"scheme": "fully_synthetic"}
    profile = {
        "description": "tiny",
        "seeds": [0],
        "arms": [arm],
        "run": {k: v for k, v in PRESET.items() if k != "device"},
    }
    folder = copy_of_project(tmp_path / "project", profile)
    words = ("snakemake", "sweep", "--cores", "1", "--config", "profile=tiny", "rehearsal=true", "device=cpu")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = run_module(*words, cwd=folder, env={**os.environ, **caches, "PATH": path})
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = (folder / "runs" / "rehearsal-tiny").glob("rehearsal-photos32-*")
    assert len(read_ledger(run)) == 3
    assert [attempt.get("outcome", "killed") for attempt in read_manifest(run)["attempts"]] == ["killed", "complete"]
    table = (folder / "runs" / "rehearsal-tiny" / "rehearsal.md").read_text()
    assert f"| {read_config(run)['run_id']} | " in table
    assert table in done.stdout


def test_the_flag_names_the_run_and_no_other_run_changes():
    assert "rehearsal" not in RunConfig().identity()
    rehearsed = RunConfig(rehearsal=True)
    assert rehearsed.run_id.startswith("rehearsal-digits-edm-")
    assert rehearsed.hash != RunConfig().hash
    with pytest.raises(ConfigError, match="rehearsal = 'yes' is not allowed: it is true or false"):
        RunConfig(rehearsal="yes")


def test_what_is_there_is_taken(tmp_path):
    found = rehearsal_of({"dataset": "digits", "n_retrain": 7, "device": "cpu", "keep_every": 2}, tmp_path)
    assert found.missing == ()
    assert (found.parameters["n_retrain"], found.parameters["n_real"], found.parameters["keep_every"]) == (1, 16, 2)
    assert found.parameters["features"] == "digits"
    assert found.full["n_retrain"] == 7
    with pytest.raises(ConfigError, match="fashion_mnist are missing, and no data set of images"):
        rehearsal_of({"dataset": "fashion_mnist", "data_dir": str(tmp_path), "device": "cpu"}, tmp_path)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("edm", SMALL | {"augment_labels": 9, "attention_resolutions": [16]}),
        ("flow_matching", {"network": "adm", "channels": 32, "multipliers": [1, 2], "blocks_per_level": 1}),
        ("ddpm", {"network": "diffusers", "channels": 32, "multipliers": [1, 2], "blocks_per_level": 1}),
    ],
)
def test_random_weights_are_read_as_published_ones_are(tmp_path, model, options):
    resolved = resolve_options(model, "cifar10", options)
    asked = {"model": model, "item_shape": (32, 32, 3), "options": resolved}
    path = write_stand_in(tmp_path / "weights", **asked)
    assert path == write_stand_in(tmp_path / "weights", **asked)
    state = state_that_fits(path, dataset="cifar10", **asked)
    from iterative_retraining.models import MODELS

    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = MODELS[model].network_config((32, 32, 3), resolved).build().state_dict()
    assert {name for name in state if not name.startswith("carried/")} == set(own)
    for name, tensor in own.items():
        np.testing.assert_array_equal(state[name], tensor)


def test_weights_of_the_published_edm_network_are_written_in_its_layout(tmp_path):
    """By shape alone: a network of 8 channels, of which the reader finds every option."""
    resolved = resolve_options("edm", "cifar10", SMALL | {"augment_labels": 9})
    path = write_stand_in(tmp_path / "edm", model="edm", item_shape=(32, 32, 3), options=resolved)
    assert path.suffix == ".pkl"
    found = read_weights(Path(path))
    assert (found.network.channels, found.network.augment_labels, found.network.resolution) == (8, 9, 32)
