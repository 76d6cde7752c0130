"""Two processes on one machine, by gloo: the same gradients, weights and samples as one process."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forked import run_module

from iterative_retraining.distributed import Team, find_team
from iterative_retraining.runs.directory import read_ledger, read_state
from iterative_retraining.runs.reading import FIT, read_manifest

from conftest import TINY_EDM

TINY = {
    "n_images_initial": 320,
    "n_images_per_retraining": 161,  # the last batch has one image: fewer than there are processes
    "scheme": "fully_synthetic",
    "n_retrain": 2,
    "n_real": 300,
    "model_options": TINY_EDM | {"sampling_batch_size": 70, "dropout": 0.0},  # masks are drawn by each process
    "device": "cpu",
    "checkpoint_images": 100,
}


def command(n: int, *arguments: str) -> list[str]:
    """``torchrun`` with ``n`` processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    return [*launcher, "-m", "iterative_retraining", *arguments]


def launched(n: int, *arguments: str) -> subprocess.CompletedProcess:
    """The run by ``n`` processes, to its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command(n, *arguments), capture_output=True, text=True, check=False, env=environment)


def world_sizes(run: Path) -> list[int]:
    """How many processes worked on each attempt at a run, as its manifest says."""
    return [attempt["world_size"] for attempt in read_manifest(run)["attempts"]]


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path, str]:
    """The run directories of one process and of two, and what the two printed."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "params.yml").write_text(json.dumps(TINY))
    arguments = ["-f", str(folder / "params.yml"), "-p", "run_dir"]
    alone = run_module("iterative_retraining", *arguments, str(folder / "one"), cwd=folder)
    assert alone.returncode == 0, alone.stderr[-2000:]
    two = launched(2, *arguments, str(folder / "two"))
    assert two.returncode == 0, two.stderr[-3000:]
    return folder / "one", folder / "two", two.stdout


def assert_agree(one: Path, other: Path) -> None:
    """Weights to 1e-3 of themselves or 2e-5, samples to one level of 255."""
    a, b = read_state(one), read_state(other)
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_allclose(b[name], array, rtol=1e-3, atol=2e-5)
    samples = [np.load(run / "samples-0002.npy").astype(int) for run in (one, other)]
    assert samples[0].shape == samples[1].shape == (300, 8, 8, 1)
    assert np.abs(samples[0] - samples[1]).max() <= 1


def test_two_processes_compute_what_one_does(both):
    """Sums in another order differ by rounding, which training multiplies: weights agree closely, images to a level."""
    one, two, _ = both
    assert_agree(one, two)
    rows = [[(r["generation"], r["n_images"], r["n_synthetic"]) for r in read_ledger(run)] for run in (one, two)]
    assert rows[0] == rows[1] == [(0, 320, 0), (1, 161, 300), (2, 161, 300)]


def test_only_the_first_process_speaks(both):
    lines = [line for line in both[2].splitlines() if line.startswith("generation")]
    assert [line.split(":")[0] for line in lines] == [f"generation {t} of 2" for t in range(3)]


def test_the_manifest_says_how_many_worked(both):
    assert [world_sizes(run) for run in both[:2]] == [[1], [2]]


def workers(launcher: int) -> dict[int, int]:
    """The process id of each rank that ``launcher`` has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    environments = {int(child): Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in children}
    prefix = b"RANK="
    return {
        int(value.removeprefix(prefix)): child
        for child, values in environments.items()
        for value in values
        if value.startswith(prefix)
    }


def test_a_killed_rank_ends_all_and_the_run_goes_on_with_another_number_of_processes(both, tmp_path):
    """kill -9 of the second process within the fit of generation 1; then one process goes on from its checkpoint."""
    one, _, _ = both
    run = tmp_path / "run"
    (tmp_path / "params.yml").write_text(json.dumps(TINY | {"run_dir": str(run)}))
    arguments = ["-f", str(tmp_path / "params.yml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        command(2, *arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )
    while launcher.poll() is None and not (len(read_ledger(run)) == 1 and (run / FIT).exists()):
        time.sleep(0.005)
    started = workers(launcher.pid)
    os.kill(started[1], signal.SIGKILL)
    _, error = launcher.communicate()
    assert launcher.returncode != 0
    assert "SIGKILL" in error or "-9" in error
    assert not [pid for pid in started.values() if Path(f"/proc/{pid}").exists()]
    n_complete = len(read_ledger(run))
    alone = run_module("iterative_retraining", *arguments, cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr[-2000:]
    assert n_complete < len(read_ledger(run)) == 3
    assert world_sizes(run) == [2, 1]
    assert_agree(one, run)


def test_shares_are_everything_once():
    for n in (0, 1, 7, 256):
        parts = [list(range(n))[Team(rank, 3).shard(n)] for rank in range(3)]
        assert list(itertools.chain(*parts)) == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_device_for_several_processes_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"device = 'cuda:1' is one device .* take 'cuda' or 'cpu'"):
        find_team("cuda:1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert find_team("cuda:1") == (Team(), "cuda:1")
