import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT, copy_of_project

# Says its GPU, then lives until its standard input is closed.
HOLD = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); sys.stdin.read()"
# Says its GPU in a file beside itself; theta_0 ends, every other waits until there are five such files.
PRETENDED_PAPERMILL = """
import os, pathlib, sys, time
folder = pathlib.Path(__file__).parent
(folder / f"{os.getpid()}.gpu").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
while '"n_retrain": 0' not in sys.argv[-1] and len(list(folder.glob("*.gpu"))) < 5:
    time.sleep(0.05)
"""


def command(locks: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "workflow" / "on_gpu.py"), "--locks", str(locks), *arguments]


def environment(**changes: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")} | changes


@pytest.fixture
def hold(tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts commands that hold a slot of the GPUs 3 and 5; all of them have ended after the test."""
    started = []

    def start(*arguments: str) -> subprocess.Popen:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        whole = command(tmp_path / "locks", *arguments, "--", sys.executable, "-c", HOLD)
        started.append(subprocess.Popen(whole, env=environment(CUDA_VISIBLE_DEVICES="3,5"), text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


def gpu(process: subprocess.Popen) -> str:
    """The GPU of a command; returns when it runs."""
    return process.stdout.readline().strip()


def test_two_at_once_get_a_gpu_each(hold):
    assert {gpu(hold()), gpu(hold())} == {"3", "5"}


def test_two_on_each_gpu_and_a_fifth_waits_until_one_ends(hold):
    holders = [hold("--per-gpu", "2") for _ in range(4)]
    taken = [gpu(process) for process in holders]
    assert sorted(taken) == ["3", "3", "5", "5"]
    fifth = hold("--per-gpu", "2")
    assert fifth.stderr.readline() == "on_gpu: all 4 slots are taken, waiting\n"
    holders[1].stdin.close()
    assert holders[1].wait() == 0
    assert gpu(fifth) == taken[1]


def test_the_first_slot_of_every_gpu_comes_before_a_second(hold):
    assert [gpu(hold("--per-gpu", "2")) for _ in range(4)] == ["3", "5", "3", "5"]


def test_a_command_on_two_gpus_waits_until_both_are_free_and_holds_none_meanwhile(hold):
    first = hold()
    assert gpu(first) == "3"
    both = hold("--gpus", "2")
    assert both.stderr.readline() == "on_gpu: fewer than 2 GPUs are free, waiting\n"
    second = hold()
    assert gpu(second) == "5"
    for process in (first, second):
        process.stdin.close()
        assert process.wait() == 0
    assert gpu(both) == "3,5"


def test_a_killed_command_gives_its_slot_back(hold):
    holders = [hold(), hold()]
    taken = [gpu(process) for process in holders]
    waiting = hold()
    assert "waiting" in waiting.stderr.readline()
    holders[0].send_signal(signal.SIGKILL)
    assert holders[0].wait() == -signal.SIGKILL
    assert gpu(waiting) == taken[0]


def test_the_exit_status_is_that_of_the_command(tmp_path):
    for status in (0, 7):
        whole = command(tmp_path, "--", sys.executable, "-c", f"raise SystemExit({status})")
        assert subprocess.run(whole, env=environment(CUDA_VISIBLE_DEVICES="0"), check=False).returncode == status


def test_gpus_that_nvidia_smi_lists_are_used_where_none_were_chosen(tmp_path):
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 0\necho 1\n")
    listing.chmod(0o755)
    show = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['CUDA_DEVICE_ORDER'])"
    whole = command(tmp_path / "locks", "--", sys.executable, "-c", show)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(whole, env=environment(PATH=path), capture_output=True, text=True, check=True)
    assert done.stdout == "0 PCI_BUS_ID\n"


@pytest.mark.parametrize("locks_of", [{}, {"SLURM_JOB_ID": "12"}])
def test_jobs_of_slurm_do_not_share_slots(tmp_path, locks_of):
    """Two jobs that both call their GPU 0 may mean two GPUs."""
    whole = [*command(tmp_path)[:2], "--", sys.executable, "-c", "pass"]
    given = environment(CUDA_VISIBLE_DEVICES="0", TMPDIR=str(tmp_path)) | locks_of
    subprocess.run(whole, env=given, check=True)
    job = "-job-12" if locks_of else ""
    assert [p.name for p in tmp_path.iterdir()] == [f"iterative-retraining-gpus-{os.getuid()}{job}"]


def test_a_sweep_on_cuda_runs_two_runs_on_each_gpu_where_asked_to(tmp_path):
    arms = [{"scheme": "fully_synthetic"}, *({"scheme": "mix", "lam": lam} for lam in (0.1, 0.5, 1.0))]
    profile = {"description": "tiny", "seeds": [0], "run": {"model": "gaussian", "n_retrain": 1}, "arms": arms}
    folder = copy_of_project(tmp_path / "project", profile)
    (tmp_path / "papermill").write_text(f"#!{sys.executable}\n{PRETENDED_PAPERMILL}")
    (tmp_path / "papermill").chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    whole = [sys.executable, "-m", "snakemake", "sweep", "--cores", "4", "--resources", "gpu=4"]
    whole += ["--config", "profile=tiny", "device=cuda", "runs_per_gpu=2"]
    given = environment(CUDA_VISIBLE_DEVICES="3,5", PATH=path, TMPDIR=str(tmp_path))
    done = subprocess.run(whole, cwd=folder, env=given, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(file.read_text() for file in tmp_path.glob("*.gpu")) == ["3", "3", "3", "5", "5"]  # and theta_0


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        ({"PATH": ""}, ["true"], "no GPU: CUDA_VISIBLE_DEVICES is not set and nvidia-smi lists none. .* device=cpu"),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["true"], "no GPU: CUDA_VISIBLE_DEVICES is ''"),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ["true"], "no GPU: CUDA_VISIBLE_DEVICES is '-1'"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, ["--per-gpu", "0", "true"], "--per-gpu 0 is not allowed"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, ["no-such-command"], "cannot run no-such-command: No such file"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, given, arguments, message):
    whole = command(tmp_path / "locks", *arguments)
    done = subprocess.run(whole, env=environment(**given), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert re.search(message, done.stderr.splitlines()[-1])
    assert "Traceback" not in done.stderr
