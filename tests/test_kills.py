"""kill -9 at thirty random instants, SIGTERM and Ctrl-C: nothing is lost, and the ledger ends the same."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iterative_retraining.runs.directory import read_ledger
from iterative_retraining.status import run_status

from conftest import ROOT, TINY_RUN, start_run, untimed

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
def test_a_run_that_is_asked_to_stop_says_what_is_kept_and_goes_on(tmp_path, number, message):
    parameters = {**TINY_RUN, "n_retrain": 40, "run_dir": str(tmp_path / "run")}
    process = start_run(parameters)
    while process.poll() is None and len(read_ledger(tmp_path / "run")) < 2:
        pass
    assert run_status(tmp_path / "run").state == "running"
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
