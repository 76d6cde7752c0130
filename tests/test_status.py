import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import NonFiniteLossError, RunError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.files import sealed, write_json
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.runs import provenance
from iterative_retraining.runs.attempts import Terminated, bytes_needed
from iterative_retraining.runs.directory import Run, read_state
from iterative_retraining.runs.provenance import sources_here, state_sha256
from iterative_retraining.runs.source import source_sha256
from iterative_retraining.status import markdown, run_status, stale_note, status_table

from conftest import PACKAGE, TINY_RUN, edit_json, exit_of

GAUSSIAN = {"model": "gaussian", "n_retrain": 2}


def finish(path: Path, **parameters) -> Path:
    experiment = open_experiment(run_dir=path, **{**GAUSSIAN, **parameters})
    for _ in experiment.records():
        pass
    experiment.run.close()
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """One run for all tests, which have copies."""
    return finish(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def done(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_a_complete_run(done):
    status = run_status(done)
    assert (status.state, status.generations, status.wanted, status.attempts) == ("complete", 3, 3, 1)
    assert (status.code, status.message) == ("current", "")
    assert 0 < status.hours < 1
    manifest = provenance.read_manifest(done)
    last = manifest["attempts"][-1]
    assert (last["outcome"], last["last_generation"]) == ("complete", 2)
    assert last["seconds"] > 0
    assert last["source_sha256"] == source_sha256(sources_here(manifest))


def test_a_run_that_is_held_is_running_and_one_that_was_killed_is_interrupted(tmp_path, done):
    held = Run(done, RunConfig(model="gaussian"))
    assert run_status(done).state == "running"
    held.close()

    def killed(manifest: dict) -> None:
        for name in ("ended", "outcome", "message", "seconds", "last_generation"):
            del manifest["attempts"][-1][name]  # as kill -9 leaves it
        manifest["n_retrain"] = 9

    edit_json(done / "manifest.json", killed)
    assert (run_status(done).state, run_status(done).wanted) == ("interrupted", 10)


def breaks(monkeypatch, error):
    def fit(self, data, *, seed, progress=None):
        raise error

    monkeypatch.setattr(Gaussian, "fit", fit)


def test_a_divergence_is_a_failure_with_its_message(tmp_path, monkeypatch):
    breaks(monkeypatch, NonFiniteLossError("the loss is nan at step 3"))
    experiment = open_experiment(run_dir=tmp_path / "run", **GAUSSIAN)
    with pytest.raises(NonFiniteLossError):
        next(experiment.records())
    status = run_status(tmp_path / "run")
    assert status.state == "running"  # this process still holds the directory
    experiment.run.close()
    status = run_status(tmp_path / "run")
    assert status.state == "failed"
    assert status.message.startswith("NonFiniteLossError: generation 0: the loss is nan at step 3")


@pytest.mark.parametrize("error", [MemoryError("array"), torch.OutOfMemoryError("CUDA out of memory. Tried")])
def test_memory_that_does_not_suffice_says_the_way_out(tmp_path, monkeypatch, error):
    from iterative_retraining.models.training import NetworkModel

    def fit(self, data, *, seed, progress=None):
        raise error

    monkeypatch.setattr(NetworkModel, "fit", fit)
    experiment = open_experiment(run_dir=tmp_path / "run", **TINY_RUN)
    message = (
        r"generation 0: out of memory \(.*\); with micro_batch below 32 .* is the same run, while a smaller one of "
        r"batch_size = 32, .*0 complete generations are kept"
    )
    with pytest.raises(RunError, match=message):
        next(experiment.records())
    experiment.run.close()
    assert run_status(tmp_path / "run").state == "failed"


def test_a_damaged_ledger_is_a_state_too(done):
    (done / "ledger.jsonl").write_text("{}\n")
    status = run_status(done)
    assert status.state == "damaged"
    assert "line 1 is damaged" in status.message


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "ledger.jsonl"])
def test_a_damaged_run_is_a_row_and_not_the_end(done, tmp_path, name):
    broken = tmp_path / "broken"
    shutil.copytree(done, broken)
    (broken / name).write_text('{"run_id": 3}\n')
    table = status_table([done, broken])
    assert sorted(table.state) == ["complete", "damaged"]
    assert name in table.message[table.state == "damaged"].item()


def test_without_a_manifest_no_run_is_complete(done):
    (done / "manifest.json").unlink()
    assert (run_status(done).state, run_status(done).wanted) == ("damaged", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "error: nowhere: nothing is there"),
        (["."], "error: no run directory in .: none has a config.json"),
    ],
)
def test_status_of_nothing_is_an_error(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert exit_of(PACKAGE / "status.py", *arguments) == message
    assert capsys.readouterr() == ("", "")


def test_results_of_other_code_are_stale(done):
    assert stale_note([done]) == ""
    manifest = provenance.read_manifest(done)
    (pairs,) = manifest["sources"].values()
    manifest["attempts"][0]["source_sha256"] = "0" * 64
    manifest["sources"] = {"0" * 64: [pair for pair in pairs if pair[0] != "Gaussian.sample"]}
    write_json(done / "manifest.json", sealed(manifest))
    assert run_status(done).code == "stale: 1 definition changed (Gaussian.sample (new))"
    assert "**1 of these 1 runs are stale**" in stale_note([done])
    assert "Gaussian.sample" in stale_note([done])
    manifest["sources"]["0" * 64] = [[name, "0" * 16] for name, _ in pairs]
    write_json(done / "manifest.json", sealed(manifest))
    assert run_status(done).code.startswith(f"stale: {len({name for name, _ in pairs})} definitions changed (")
    assert run_status(done).code.endswith(", ...)")


@pytest.mark.parametrize("recorded", [{"source_sha256": "0" * 64}, {}])
def test_runs_that_do_not_say_which_definitions_made_them_are_of_earlier_code(done, recorded):
    manifest = provenance.read_manifest(done)
    del manifest["sources"], manifest["measured"], manifest["attempts"][0]["source_sha256"]
    manifest["attempts"][0] |= recorded
    write_json(done / "manifest.json", sealed(manifest))
    assert run_status(done).code == "earlier code"
    assert stale_note([done]) == "**1 of these 1 runs were made by earlier code** and are to be replaced."


def test_the_table_has_a_row_a_run(done, tmp_path):
    other = finish(tmp_path / "other", seed=1)
    table = status_table([other, done, tmp_path])
    assert list(table.seed if "seed" in table else table.run_id) == sorted(table.run_id)
    text = markdown(table)
    assert len(text.splitlines()) == 4
    assert f"| `{table.run_id[0]}` | complete | 3 of 3 | 1 | current |" in text
    assert status_table([]).empty


def test_starting_weights_are_in_the_manifest(done, tmp_path):
    child = finish(tmp_path / "child", init=str(done))
    manifest = provenance.read_manifest(child)
    assert manifest["initial_weights_sha256"] == state_sha256(read_state(done))
    assert provenance.read_manifest(done)["initial_weights_sha256"] is None
    state = {"a": np.zeros(3), "b": np.ones(2)}
    assert state_sha256(state) == state_sha256(dict(reversed(state.items())))
    assert state_sha256(state) != state_sha256({"a": np.zeros(3), "b": np.zeros(2)})


def test_bytes_needed_by_hand():
    assert bytes_needed(1000, 10, 50, 4, 1, 0) == 3 * 1000 + (2 * 50 + 5 * 16) * 10
    assert bytes_needed(1000, 10, 50, 4, None, 2) == 5 * 1000 + (5 * 50 + 5 * 16) * 10


def test_a_disk_that_is_too_small_is_refused_before_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    message = r"needs about 0\.\d MB and its disk has 0\.0 MB free; free some space, choose another run_dir"
    with pytest.raises(RunError, match=message):
        finish(tmp_path / "run")
    assert not (tmp_path / "run" / "ledger.jsonl").exists()


@pytest.mark.parametrize("model", [GAUSSIAN, TINY_RUN])
def test_the_size_of_weights_is_known_before_there_are_any(tmp_path, model):
    experiment = open_experiment(run_dir=tmp_path / "run", **{**model, "n_retrain": 0})
    next(experiment.records())
    held = sum(array.nbytes for array in read_state(tmp_path / "run").values())
    shape = experiment.real.shape[1:]
    assert abs(experiment.new_model().state_bytes(shape) - held) <= 64


def test_more_weights_are_kept_if_asked_for(tmp_path):
    run = finish(tmp_path / "run", n_retrain=5, keep_every=2)
    assert sorted(int(p.stem[-4:]) for p in run.glob("checkpoint-*")) == [0, 2, 4, 5]


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (signal.SIGINT, KeyboardInterrupt, "interrupted from the keyboard"),
        (signal.SIGTERM, Terminated, "stopped by SIGTERM in generation 1; 1 complete generations are kept"),
    ],
)
def test_a_signal_between_two_generations_is_told_too(tmp_path, number, error, message):
    experiment = open_experiment(model="gaussian", n_retrain=3, run_dir=tmp_path / "run")
    records = experiment.records()
    next(records)
    with pytest.raises(error):
        signal.raise_signal(number)
    records.close()
    experiment.run.close()
    status = run_status(tmp_path / "run")
    assert status.state == "stopped"
    assert status.message.startswith(message)
