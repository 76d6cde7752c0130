"""Measuring again: the same numbers from kept samples and from samples drawn again, in a ledger of its own."""

import os
from pathlib import Path

import numpy as np
import pytest

from iterative_retraining.errors import ConfigError, RunError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import METRICS
from iterative_retraining.remeasure import Asked, main, remeasure
from iterative_retraining.runs.directory import Run
from iterative_retraining.runs.publishing import publish
from iterative_retraining.runs.reading import read_config, read_floor, read_ledger, read_measurement
from iterative_retraining.runs.results import read_runs

from conftest import TINY_EDM, edit_json, untimed

PARAMETERS = {"model": "gaussian", "n_retrain": 3, "lam": 0.5, "n_real": 300}
EDM = {"model": "edm", "n_images_initial": 64, "n_images_per_retraining": 32, "n_retrain": 2, "model_options": TINY_EDM}
OWN = ("fid", "kid", "precision", "recall", "density", "coverage", "held_out_fid", "pixel_variance", "rank")


def finished(path: Path, **parameters) -> Path:
    experiment = open_experiment(run_dir=path, **(PARAMETERS | parameters))
    for _ in experiment.records():
        pass
    experiment.run.close()
    return path


@pytest.fixture(scope="module")
def samples_kept(tmp_path_factory) -> Path:
    return finished(tmp_path_factory.mktemp("samples") / "run")


@pytest.fixture(scope="module")
def weights_kept(tmp_path_factory) -> Path:
    """A run that keeps weights, and of samples the last alone."""
    kept = {"keep_every": 1, "keep_samples": 0, "scheme": "fully_synthetic"}
    with pytest.MonkeyPatch.context() as patch:  # of the model itself, which is not measured again
        patch.setattr("iterative_retraining.experiment.losses_of", lambda *arguments, **few: [])
        return finished(tmp_path_factory.mktemp("weights") / "run", **EDM, **kept)


def sizes(path: Path) -> dict[str, list[int]]:
    return {kind: sorted(int(f.stem[-4:]) for f in path.glob(f"{kind}-*")) for kind in ("samples", "checkpoint")}


def test_samples_of_every_generation_are_kept_unless_said_otherwise(samples_kept, weights_kept, tmp_path):
    assert sizes(samples_kept) == {"samples": [0, 1, 2, 3], "checkpoint": [0, 3]}
    assert sizes(weights_kept) == {"samples": [2], "checkpoint": [0, 1, 2]}
    assert sizes(finished(tmp_path / "run", keep_samples=2))["samples"] == [0, 2, 3]


@pytest.mark.parametrize("run", ["samples_kept", "weights_kept"])
def test_the_same_settings_give_the_same_numbers(run, request):
    """From kept samples, and from samples drawn again from kept weights."""
    path = request.getfixturevalue(run)
    before = {file.name: file.read_bytes() for file in path.iterdir() if file.name != ".lock"}
    found = list(remeasure(path, Asked(name="same")))
    assert [row["generation"] for row in found] == list(range(len(read_ledger(path))))
    for old, new in zip(read_ledger(path), read_ledger(path, "same"), strict=True):
        assert {key: new[key] for key in OWN} == {key: old[key] for key in OWN}
        assert new["samples_sha256"] == old["samples_sha256"]
    assert read_floor(path, "same") == read_floor(path)
    assert {name: (path / name).read_bytes() for name in before} == before


def test_another_k_moves_what_has_neighbours_alone(samples_kept):
    (row,) = remeasure(samples_kept, Asked(generations=[1], settings={"k": 9}))
    old = read_ledger(samples_kept)[1]
    assert row["fid"] == old["fid"]
    assert row["recall"] > old["recall"]
    name = "digits-classifier-64-k9"
    assert read_floor(samples_kept, name)["k"] == 9
    assert read_measurement(samples_kept, name)["settings"] == {"k": 9}
    assert set(read_measurement(samples_kept, name)["metrics"]) == set(METRICS)


def test_it_goes_on_and_never_measures_twice(samples_kept, capsys):
    main([str(samples_kept), "--k-density", "7", "--name", "seven", "--generations", "2"])
    ledger = samples_kept / "ledger-seven.jsonl"
    first = ledger.read_bytes()
    with open(ledger, "ab") as file:
        file.write(first[:50])  # as a kill leaves it
    main([str(samples_kept), "--k-density", "7", "--name", "seven"])
    assert ledger.read_bytes().startswith(first)
    assert [row["generation"] for row in read_ledger(samples_kept, "seven")] == [0, 1, 2, 3]
    assert [line.split(":")[0][-1] for line in capsys.readouterr().out.splitlines()] == ["2", "0", "1", "3"]
    assert len(read_measurement(samples_kept, "seven")["attempts"]) == 2
    with pytest.raises(RunError, match=r"a measurement 'seven' of another kind \(settings: there .*another --name"):
        list(remeasure(samples_kept, Asked(name="seven")))


def test_a_table_and_a_publication_have_the_new_ledger(samples_kept, tmp_path):
    list(remeasure(samples_kept, Asked(name="table", settings={"k": 4})))
    table = read_runs([samples_kept], "table")
    assert list(table["generation"]) == [0, 1, 2, 3]
    assert list(table["run_id"].unique()) == [read_config(samples_kept)["run_id"]]
    (published,) = publish([samples_kept], tmp_path)
    assert read_runs([published], "table")["recall"].equals(table["recall"])
    with pytest.raises(RunError, match="holds no measurement 'nothing'"):
        read_runs([samples_kept], "nothing")


def test_what_is_not_kept_is_one_error(samples_kept, tmp_path):
    (published,) = publish([samples_kept], tmp_path)
    with pytest.raises(RunError, match=r"keeps neither samples nor weights of any of its 4 generations\. keep_samples"):
        list(remeasure(published, Asked()))
    run = finished(tmp_path / "run", keep_samples=2)
    with pytest.raises(RunError, match=r"nor weights of generation 1; kept are 0, 2, 3\."):
        list(remeasure(run, Asked(generations=[0, 1])))


def test_samples_that_come_out_otherwise_are_refused(weights_kept, monkeypatch):
    from iterative_retraining.models.training import NetworkModel

    honest = NetworkModel.sample
    monkeypatch.setattr(NetworkModel, "sample", lambda self, n, *, seed: np.flip(honest(self, n, seed=seed), axis=0))
    with pytest.raises(RunError, match=r"generation 1, drawn again .* not those of the run: .* \(then PyTorch "):
        list(remeasure(weights_kept, Asked(name="flipped", generations=[1])))
    assert read_ledger(weights_kept, "flipped") == []


def test_a_damaged_sample_file_and_other_images_are_refused(tmp_path):
    run = finished(tmp_path / "run")
    os.truncate(run / "samples-0001.npy", 500)
    with pytest.raises(RunError, match=r"samples-0001\.npy is damaged"):
        list(remeasure(run, Asked(generations=[1])))
    edit_json(run / "manifest.json", lambda manifest: manifest.update(real_sha256="0" * 64))
    with pytest.raises(RunError, match=r"made with other real images .* set --data-dir as it was then"):
        list(remeasure(run, Asked()))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(features="inception-clean"), "Inception weights .* are missing"),
        (Asked(features="fashion_mnist"), "features = 'fashion_mnist' is not allowed"),
        (Asked(name="a/b"), "name = 'a/b' is not allowed"),
        (Asked(settings={"k": 5000}), "k = 5000"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_written(samples_kept, asked, message):
    before = sorted(samples_kept.iterdir())
    with pytest.raises(ConfigError, match=message):
        list(remeasure(samples_kept, asked))
    assert sorted(samples_kept.iterdir()) == before


def test_a_run_in_use_is_left_alone(samples_kept):
    from iterative_retraining.config import RunConfig

    stored = {k: v for k, v in read_config(samples_kept)["identity"].items() if v is not None}
    held = Run(samples_kept, RunConfig(**stored))
    with pytest.raises(RunError, match="is open already in this process"):
        list(remeasure(samples_kept, Asked(name="busy")))
    held.close()
    assert untimed(samples_kept / "ledger.jsonl")
