"""Two processes on one machine, by gloo: the same gradients, weights and samples as one process."""

import itertools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from iterative_retraining.distributed import Team, find_team
from iterative_retraining.runs.directory import read_ledger, read_state

from conftest import TINY_EDM, untimed

TINY = {
    "n_images_initial": 320,
    "n_images_per_retraining": 161,  # the last batch has one image: fewer than there are processes
    "scheme": "fully_synthetic",
    "n_retrain": 2,
    "n_real": 300,
    "model_options": TINY_EDM | {"sampling_batch_size": 70},
    "device": "cpu",
    "checkpoint_images": 100,
}


def launched(n: int, *arguments: str) -> subprocess.CompletedProcess:
    """``accelerate launch`` with ``n`` processes on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options = f"--cpu --num_machines 1 --num_processes {n} --num_cpu_threads_per_process 1 --main_process_port {port}"
    command = [sys.executable, "-m", "accelerate.commands.launch", *options.split(), "--mixed_precision", "no"]
    command += ["--dynamo_backend", "no", "--module", "iterative_retraining", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, Path, str]:
    """The run directories of one process and of two, and what the two printed."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "params.yml").write_text(json.dumps(TINY))
    arguments = ["-f", str(folder / "params.yml"), "-p", "run_dir"]
    alone = subprocess.run(
        [sys.executable, "-m", "iterative_retraining", *arguments, str(folder / "one")],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr[-2000:]
    two = launched(2, *arguments, str(folder / "two"))
    assert two.returncode == 0, two.stderr[-3000:]
    return folder / "one", folder / "two", two.stdout


def test_two_processes_compute_what_one_does(both):
    """Sums in another order differ by rounding, which training multiplies: weights agree closely, images to a level."""
    one, two, _ = both
    a, b = read_state(one), read_state(two)
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_allclose(b[name], array, rtol=1e-3, atol=2e-5)
    samples = [np.load(run / "samples-0002.npy").astype(int) for run in (one, two)]
    assert samples[0].shape == samples[1].shape == (300, 8, 8, 1)
    assert np.abs(samples[0] - samples[1]).max() <= 1
    rows = [[(r["generation"], r["n_images"], r["n_synthetic"]) for r in read_ledger(run)] for run in (one, two)]
    assert rows[0] == rows[1] == [(0, 320, 0), (1, 161, 300), (2, 161, 300)]


def test_only_the_first_process_speaks(both):
    lines = [line for line in both[2].splitlines() if line.startswith("generation")]
    assert [line.split(":")[0] for line in lines] == [f"generation {t} of 2" for t in range(3)]


def test_two_processes_go_on_with_a_run_directory(both, tmp_path):
    _, two, _ = both
    before = untimed(two / "ledger.jsonl")
    (tmp_path / "params.yml").write_text(json.dumps(TINY | {"n_retrain": 3, "run_dir": str(two)}))
    done = launched(2, "-f", str(tmp_path / "params.yml"))
    assert done.returncode == 0, done.stderr[-3000:]
    after = untimed(two / "ledger.jsonl")
    assert after[:-1] == before
    assert after[-1]["generation"] == 3


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "lamb", "0.5"], "unknown parameter 'lamb'; allowed: "),
        (["-p", "lam", "-1"], "lam = -1 is not allowed"),
        (["-f", "nowhere.yml"], "cannot read nowhere.yml"),
    ],
)
def test_bad_arguments_end_in_one_line(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "iterative_retraining", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
