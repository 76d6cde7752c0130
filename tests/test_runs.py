import errno
import gc
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from filelock import SoftFileLock
from forked import Forked, start_run

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import RunError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs.directory import Run, read_ledger
from iterative_retraining.runs.locks import in_use
from iterative_retraining.runs.progress import opening_lines
from iterative_retraining.status import run_status

from conftest import TINY_RUN, edit_json, untimed, wait_for

GAUSSIAN = {"model": "gaussian", "n_retrain": 3}


def finish(parameters: dict, path: Path) -> Path:
    for _ in open_experiment(run_dir=path, **parameters).records():
        pass
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """One run for all tests, which have copies; its lock is free."""
    experiment = open_experiment(run_dir=tmp_path_factory.mktemp("finished") / "run", **GAUSSIAN)
    list(experiment.records())
    experiment.run.close()
    return experiment.run.path


@pytest.fixture
def done(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def test_a_run_leaves_what_the_docs_say(done):
    assert {p.name for p in done.iterdir() if p.suffix != ".png"} == {
        ".lock",
        "config.json",
        "manifest.json",
        "floor.json",
        "ledger.jsonl",
        "checkpoint-0000.safetensors",
        "checkpoint-0003.safetensors",
        *(f"samples-{t:04d}.npy" for t in range(4)),
    }
    rows = read_ledger(done)
    assert list(rows[0])[:2] == ["generation", "n_images"]
    assert {"fid", "precision", "recall", "seconds_fit", "seconds_sample", "seconds_metrics"} <= set(rows[0])
    manifest = json.loads((done / "manifest.json").read_text())
    assert manifest["attempts"][0]["packages"]["torch"]
    assert manifest["config"] == json.loads((done / "config.json").read_text())["identity"]


def ended(process: Forked) -> tuple[int, str]:
    _, error = process.communicate()
    return process.returncode, error


def test_killed_again_and_again_a_run_ends_in_the_same_ledger(tmp_path):
    """kill -9 in a fit, between files of one generation, and right after a ledger line; then to the end."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tiny = {**TINY_RUN, "n_retrain": 5}
    code, error = ended(start_run({**tiny, "run_dir": str(whole)}))
    assert code == 0, error

    instants = [
        lambda: (broken / "floor.json").exists(),  # in the fit of theta_0
        lambda: (broken / "checkpoint-0000.safetensors").exists(),  # before its ledger line
        lambda: len(read_ledger(broken)) >= 2,  # right after a line
        lambda: (broken / "samples-0002.npy").exists(),
    ]
    for instant in instants:
        process = start_run({**tiny, "run_dir": str(broken)})
        wait_for(process, instant)
        process.send_signal(signal.SIGKILL)
        assert ended(process)[0] == -signal.SIGKILL
    code, error = ended(start_run({**tiny, "run_dir": str(broken)}))
    assert code == 0, error
    assert untimed(broken / "ledger.jsonl") == untimed(whole / "ledger.jsonl")
    assert len(json.loads((broken / "manifest.json").read_text())["attempts"]) == len(instants) + 1


def test_a_torn_ledger_line_is_computed_again(done, tmp_path):
    ledger = done / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    before = untimed(ledger)
    # As a kill in the middle of generation 3 leaves it: files of generation 2 in place, half a line for 3.
    partial = finish({**GAUSSIAN, "n_retrain": 2}, tmp_path / "partial")
    with open(partial / "ledger.jsonl", "ab") as file:
        file.write(lines[3][:40])
    finish(GAUSSIAN, partial)
    assert untimed(partial / "ledger.jsonl") == before


def test_a_finished_run_computes_nothing_and_can_be_extended(done):
    before, manifest = (done / "ledger.jsonl").read_bytes(), (done / "manifest.json").read_bytes()
    records = list(open_experiment(run_dir=done, **GAUSSIAN).records())
    assert [r.generation for r in records] == [0, 1, 2, 3]
    assert (done / "ledger.jsonl").read_bytes() == before
    assert (done / "manifest.json").read_bytes() == manifest
    finish({**GAUSSIAN, "n_retrain": 5}, done)
    assert (done / "ledger.jsonl").read_bytes().startswith(before)
    assert len(read_ledger(done)) == 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of a network that nothing disturbed."""
    return finish(TINY_RUN, tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("generation", [0, 2])
def test_interrupted_in_a_fit_and_continued_in_the_same_process(whole, tmp_path, generation):
    """As in a notebook: the cell is interrupted, and run again on the same objects."""

    def interrupt(current, n_seen, n_images):
        if current == generation and n_seen > n_images / 2:
            raise KeyboardInterrupt

    experiment = open_experiment(run_dir=tmp_path / "broken", **TINY_RUN)
    with pytest.raises(KeyboardInterrupt):
        list(experiment.records(interrupt))
    list(experiment.records())
    assert untimed(tmp_path / "broken" / "ledger.jsonl") == untimed(whole / "ledger.jsonl")


def test_another_configuration_is_refused_and_nothing_is_touched(done):
    before = (done / "ledger.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"another configuration \(lam: there 0.5, asked for 0.7\)"):
        open_experiment(run_dir=done, **GAUSSIAN, lam=0.7)
    assert (done / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["checkpoint-0003.safetensors", "samples-0003.npy"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_file_is_named(done, name, damage):
    file = done / name
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(RunError, match=rf"{name} is {'damaged' if damage == 'truncated' else 'missing'}"):
        open_experiment(run_dir=done, **GAUSSIAN)
    assert len(read_ledger(done)) == 4


def test_a_damaged_ledger_or_config_is_named(done):
    text = (done / "ledger.jsonl").read_text()
    (done / "ledger.jsonl").write_text(text.replace('"generation": 1', '"generation": 7'))
    with pytest.raises(RunError, match=r"ledger.jsonl, line 2 is damaged \(content_sha256 is of another content\)"):
        open_experiment(run_dir=done, **GAUSSIAN)
    (done / "ledger.jsonl").write_text(text)
    os.truncate(done / "config.json", 20)
    with pytest.raises(RunError, match=r"config.json is damaged"):
        open_experiment(run_dir=done, **GAUSSIAN)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match=r"is no run directory \(it holds 'thesis.tex'\)"):
        open_experiment(run_dir=tmp_path, **GAUSSIAN)


def test_an_unwritable_run_dir_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"cannot write the run directory .*choose another run_dir"):
        open_experiment(run_dir=tmp_path / "file" / "run", **GAUSSIAN)


def test_two_processes_on_one_run(done):
    held = Run(done, RunConfig(model="gaussian"))
    code, error = ended(start_run({**GAUSSIAN, "run_dir": str(done)}))
    assert code != 0
    assert "is in use by another process" in error
    held.close()
    assert ended(start_run({**GAUSSIAN, "run_dir": str(done)}))[0] == 0


def test_a_refused_second_opener_leaves_the_lock_to_the_first(done):
    first = open_experiment(run_dir=done, **{**GAUSSIAN, "n_retrain": 5})
    for seed in (1, 0):
        with pytest.raises(
            RunError, match=r"is open already in this process; close it first \(experiment.run.close\(\)"
        ):
            open_experiment(run_dir=done, **GAUSSIAN, seed=seed)
    code, error = ended(start_run({**GAUSSIAN, "run_dir": str(done)}))
    assert code != 0
    assert "is in use by another process" in error
    assert len(list(first.records())) == 6
    assert [row["generation"] for row in read_ledger(done)] == list(range(6))


def test_a_lock_ends_with_its_object(done):
    first = open_experiment(run_dir=done, **{**GAUSSIAN, "n_retrain": 5})
    first.run.close()
    second = open_experiment(run_dir=done, **{**GAUSSIAN, "n_retrain": 5})
    first.run.close()  # a second time: not the lock of the second
    assert in_use(done)
    with pytest.raises(RunError, match="was closed, and others may write there now; open the experiment again"):
        list(first.records())
    assert len(read_ledger(done)) == 4
    del second
    gc.collect()
    assert not in_use(done)
    open_experiment(run_dir=done, **GAUSSIAN).run.close()


def test_two_machines_whose_locks_do_not_reach_each_other_do_not_write_one_ledger(finished, tmp_path, monkeypatch):
    """As on NFS mounted with local locks: each machine has a lock of its own, here of two implementations."""

    def lock_of_another_machine(path: Path) -> SoftFileLock:
        taken = SoftFileLock(path / ".lock-elsewhere")
        taken.acquire(timeout=0)
        return taken

    run = tmp_path / "run"
    here = open_experiment(run_dir=run, **GAUSSIAN)
    with monkeypatch.context() as patch:
        patch.setattr("iterative_retraining.runs.directory.lock", lock_of_another_machine)
        there = open_experiment(run_dir=run, **GAUSSIAN)
    records, others = here.records(), there.records()
    next(records)
    with pytest.raises(RunError, match=r"changed by another process while .* locks .* do not hold between machines"):
        next(others)
    assert len(list(records)) == 3
    assert [row["generation"] for row in read_ledger(run)] == list(range(4))
    here.run.close()
    assert run_status(run).state == "complete"
    assert untimed(run / "ledger.jsonl") == untimed(finished / "ledger.jsonl")
    open_experiment(run_dir=run, **{**GAUSSIAN, "n_retrain": 4}).run.close()  # its weights are those of its ledger


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_and_no_descriptor_leaks(done, monkeypatch, number):
    def flock(descriptor, how):
        raise OSError(number, os.strerror(number))

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", flock)
        with pytest.raises(RunError, match=r"is on a file system without locks .* choose a run_dir on another"):
            open_experiment(run_dir=done, **GAUSSIAN)
        assert not in_use(done)
    assert len(os.listdir("/proc/self/fd")) == before
    open_experiment(run_dir=done, **GAUSSIAN).run.close()


@pytest.mark.parametrize("gone", [["ledger.jsonl"], ["ledger.jsonl", "manifest.json"], ["manifest.json"]])
def test_a_run_does_not_start_over_where_its_ledger_or_manifest_is_lost(done, gone):
    for name in gone:
        (done / name).unlink()
    before = (done / "checkpoint-0003.safetensors").read_bytes()
    with pytest.raises(
        RunError, match=rf"{gone[0]} (holds 0 complete generations and there were \d or more|is missing)"
    ):
        open_experiment(run_dir=done, **GAUSSIAN)
    assert (done / "checkpoint-0003.safetensors").read_bytes() == before
    assert run_status(done).state == "damaged"


def test_weights_that_an_earlier_attempt_promised_to_keep_are_kept(tmp_path):
    run = finish({**GAUSSIAN, "keep_every": 2}, tmp_path / "run")
    finish({**GAUSSIAN, "n_retrain": 7}, run)
    assert sorted(int(p.stem[-4:]) for p in run.glob("checkpoint-*")) == [0, 2, 4, 6, 7]


def test_another_machine_is_said_in_one_line(done):
    def elsewhere(manifest: dict) -> None:
        manifest["attempts"][0]["packages"]["torch"] = "1.0"
        manifest["attempts"][0]["hardware"]["threads"] = 7

    edit_json(done / "manifest.json", elsewhere)
    more = {**GAUSSIAN, "n_retrain": 4}
    run = open_experiment(run_dir=done, **more).run
    (note,) = [line for line in opening_lines(run, 4).splitlines() if line.startswith("note: ")]
    assert re.search(r"another torch 1\.0 then, \S+ now, another number of threads 7 then, 1 now$", note)
    run.close()
    run = open_experiment(run_dir=done, **more).run
    assert "note" not in opening_lines(run, 4)


def test_settings_that_round_otherwise_are_said_too(done):
    """How many processes, how much of a batch at once; earlier code did not record them, and nothing is said of it."""

    def otherwise(manifest: dict) -> None:
        manifest["attempts"][0] |= {"world_size": 4, "micro_batch": 8}

    edit_json(done / "manifest.json", otherwise)
    run = open_experiment(run_dir=done, **{**GAUSSIAN, "n_retrain": 4}).run
    edit_json(done / "manifest.json", lambda manifest: manifest["attempts"][-1].update(micro_batch=32, tf32=False))
    (note,) = [line for line in opening_lines(run, 4).splitlines() if line.startswith("note: ")]
    assert note.endswith("another number of processes 4 then, 1 now, another micro_batch 8 then, 32 now")


def test_numbers_that_are_not_finite_are_not_kept(done):
    run = Run(done, RunConfig(model="gaussian"))
    with pytest.raises(RunError, match="generation 4: fid is nan"):
        run.commit({"generation": 4, "fid": float("nan")}, {}, np.zeros(1), np.zeros(1), 1)
    assert len(read_ledger(done)) == 4


def test_pruned_history_is_named(done):
    history = Run(done, RunConfig(model="gaussian")).history
    assert len(history) == 4
    assert history[-1].shape == (1500, 8, 8, 1)
    (done / "samples-0000.npy").unlink()
    with pytest.raises(RunError, match="the samples of generation 0 are no longer kept"):
        history[0]


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing(small_disk, finished):
    run = small_disk / "run"
    experiment = open_experiment(run_dir=run, **GAUSSIAN)
    records = experiment.records()
    next(records)
    filler = small_disk / "filler"
    fill = subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, text=True, check=False)
    assert "No space left" in fill.stderr
    with pytest.raises(
        RunError, match=r"cannot write .*No space left on device\. Free some space; complete generations"
    ):
        next(records)
    experiment.run.close()
    filler.unlink()
    finish(GAUSSIAN, run)
    assert untimed(run / "ledger.jsonl") == untimed(finished / "ledger.jsonl")


def test_a_file_system_that_became_read_only_loses_nothing(small_disk, finished):
    run = finish({**GAUSSIAN, "n_retrain": 1}, small_disk / "run")
    Run(run, RunConfig(model="gaussian")).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for place in (run, small_disk / "other"):
        with pytest.raises(RunError, match=r"cannot write the run directory .*Read-only file system; choose another"):
            open_experiment(run_dir=place, **GAUSSIAN)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    finish(GAUSSIAN, run)
    assert untimed(run / "ledger.jsonl") == untimed(finished / "ledger.jsonl")


def test_runs_that_start_from_one_theta0_share_it_to_the_bit(tmp_path):
    start = finish({**TINY_RUN, "n_retrain": 0, "scheme": "mix", "lam": 0.0}, tmp_path / "theta0")
    arms = [
        finish({**TINY_RUN, "n_retrain": 1, "scheme": "mix", "lam": lam, "init": str(start)}, tmp_path / str(lam))
        for lam in (0.0, 1.0)
    ]
    first = [untimed(arm / "ledger.jsonl") for arm in arms]
    assert first[0][0] == first[1][0]
    assert first[0][0]["n_images"] == 0
    assert first[0][0]["fid"] == read_ledger(start)[0]["fid"]
    assert first[0][1]["fid"] != first[1][1]["fid"]


def test_weights_of_another_network_are_refused_before_anything_is_written(finished, tmp_path):
    with pytest.raises(ValueError, match="weights are of another network"):
        open_experiment(init=str(finished), run_dir=tmp_path / "run", **TINY_RUN)
    assert not (tmp_path / "run").exists()
