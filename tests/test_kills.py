"""kill -9 at thirty random instants, sleep, SIGTERM, Ctrl-C, clocks that jump, file systems that lack what others have:
nothing is lost, and the ledger ends the same."""

import datetime
import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forked import start_run

from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs import provenance
from iterative_retraining.runs.directory import read_ledger
from iterative_retraining.runs.publishing import publish
from iterative_retraining.runs.reading import read_manifest
from iterative_retraining.status import run_status

from conftest import ROOT, TINY_RUN, untimed, wait_for

N_KILLS = 30
TINY = {**TINY_RUN, "n_retrain": 2, "n_images_initial": 320}
TINY["model_options"] = {**TINY_RUN["model_options"], "sampling_batch_size": 30}


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, list[tuple[str, str]]]:
    """The folder of all runs, and what each instant killed: the run's name and the kind of event."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(ROOT / "tests" / "killed_at.py"), json.dumps(TINY), str(folder), "0", str(N_KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [tuple(line.split()) for line in done.stdout.splitlines()]


def test_thirty_kills_hit_every_stage(killed):
    _, events = killed
    kinds = [kind for _, kind in events if kind != "complete"]
    assert len(kinds) == N_KILLS
    assert set(kinds) == {"fit", "sample", "metrics", "write"}


def test_every_killed_run_ends_in_the_ledger_of_one_that_was_never_killed(killed):
    folder, events = killed
    whole = untimed(folder / "whole" / "ledger.jsonl")
    assert len(whole) == TINY["n_retrain"] + 1
    names = [name for name, kind in events if kind == "complete"]
    assert len(names) >= 3
    for name in names:
        assert untimed(folder / name / "ledger.jsonl") == whole
        assert run_status(folder / name).state == "complete"
        n_kills = sum(run == name and kind != "complete" for run, kind in events)
        assert 1 <= run_status(folder / name).attempts <= n_kills + 1  # a kill before the manifest leaves no attempt


@pytest.mark.parametrize(
    ("number", "message"), [(signal.SIGTERM, "stopped by SIGTERM in generation"), (signal.SIGINT, "")]
)
def test_a_run_that_sleeps_and_is_asked_to_stop_says_what_is_kept_and_goes_on(killed, tmp_path, number, message):
    """The machine sleeps, as when a laptop is closed (SIGSTOP), and wakes; then the run is asked to stop."""
    parameters = {**TINY, "n_retrain": 40, "run_dir": str(tmp_path / "run")}
    process = start_run(parameters)
    wait_for(process, (tmp_path / "run" / "floor.json").exists)
    process.send_signal(signal.SIGSTOP)
    wait_for(process, lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    assert run_status(tmp_path / "run").state == "running"  # asleep, it holds its lock
    process.send_signal(signal.SIGCONT)
    wait_for(process, lambda: len(read_ledger(tmp_path / "run")) >= 3)
    assert untimed(tmp_path / "run" / "ledger.jsonl")[:3] == untimed(killed[0] / "whole" / "ledger.jsonl")
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode != 0
    assert message in error
    status = run_status(tmp_path / "run")
    assert status.state == "stopped"
    assert status.message.startswith(message or "interrupted from the keyboard")
    before = untimed(tmp_path / "run" / "ledger.jsonl")
    process = start_run({**parameters, "n_retrain": len(before)})
    _, error = process.communicate()
    assert process.returncode == 0, error
    assert untimed(tmp_path / "run" / "ledger.jsonl")[:-1] == before
    assert run_status(tmp_path / "run").state == "complete"


def test_clocks_that_jump_and_file_systems_without_links_change_nothing(tmp_path, monkeypatch):
    """The wall clock goes back a year at every look; there are no hard links and no symbolic ones."""
    small = {"model": "gaussian", "n_real": 100, "n_retrain": 2}
    years = iter(range(2040, 1990, -1))

    def refuse(*names: object, **how: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    def now() -> str:
        return datetime.datetime(next(years), 1, 1, tzinfo=datetime.UTC).isoformat()

    def run(folder: Path) -> list[dict]:
        for _ in range(2):
            experiment = open_experiment(run_dir=folder, **small)
            records = experiment.records()
            next(records), next(records)
            records.close()
            experiment.run.close()
        experiment = open_experiment(run_dir=folder, **small)
        list(experiment.records())
        experiment.run.close()
        return untimed(folder / "ledger.jsonl")

    whole = run(tmp_path / "whole")
    for name in ("link", "symlink"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(provenance, "_now", now)
    monkeypatch.setattr("time.time", lambda: float(next(years)))
    assert run(tmp_path / "odd") == whole
    status = run_status(tmp_path / "odd")
    assert (status.state, status.attempts, status.generations) == ("complete", 3, 3)
    started = [attempt["started"] for attempt in read_manifest(tmp_path / "odd")["attempts"]]
    assert started == sorted(started, reverse=True)
    (published,) = publish([tmp_path / "odd"], tmp_path / "results")
    assert read_ledger(published) == read_ledger(tmp_path / "odd")
