"""Sweeps on a Slurm cluster of one node, which these tests start and stop: its files, ports and key are its own."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import copy_of_project, untimed
from profiles import load_profile

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])  # daemons are in sbin
MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch", "srun") if not shutil.which(name, path=PATH)]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian: slurm-wlm and munge)"),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can start a Slurm node"),
]
DEADLINE_SECONDS = 600  # for what takes seconds: a busy machine fails no test
ARMS = [{"scheme": "fully_synthetic"}, {"scheme": "mix", "lam": 0.5}]
N_RETRAIN = 30  # so many that a run can be disturbed before it is complete
SHARED = {"dataset": "digits", "model": "gaussian", "n_real": 300, "n_retrain": N_RETRAIN}
PROFILE = {"description": "tiny", "seeds": [0], "run": SHARED, "arms": ARMS}
# The plugin looks at its jobs less and less often, for runs of hours; here it looks every second.
SNAKEMAKE = """
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
Executor.next_seconds_between_status_checks = property(lambda self: 1, lambda self, seconds: None)
main()
"""
SLURM_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 Gres=gpu:2
PartitionName=all Nodes=node Default=YES State=UP
"""


def until(condition: Callable[[], bool], what: str) -> None:
    """Returns once ``condition()`` holds."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.05)


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A running cluster of one node with two CPUs; the environment in which Slurm's commands speak to it."""
    folder, conf = tmp_path_factory.mktemp("slurm"), tmp_path_factory.getbasetemp() / "slurm.conf"
    conf.write_text(SLURM_CONF.format(host=socket.gethostname(), folder=folder, ports=free_ports(2)))
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    # Slurm counts and hands out whatever devices it is told are GPUs.
    conf.with_name("gres.conf").write_text("AutoDetect=off\nName=gpu File=/dev/null\nName=gpu File=/dev/zero\n")
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    # Snakemake's plugin hides SLURM_CONF from srun, which finds the configuration of a real cluster without it.
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={conf} exec {shutil.which("srun", path=PATH)} "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": f"{folder / 'bin'}{os.pathsep}{PATH}"}

    def slurm(*command: str) -> str:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    own = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "seed-file": "munged.seed"}
    munged = ["munged", "--force", "--foreground", *(f"--{option}={folder / name}" for option, name in own.items())]
    with contextlib.ExitStack() as stack:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D", "-N", "node"]):
            log = stack.enter_context(open(folder / f"{command[0]}.log", "w"))
            daemon = stack.enter_context(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            stack.callback(daemon.terminate)
            if command is munged:
                until((folder / "munge.socket").exists, "munged")
        until(lambda: slurm("sinfo", "--noheader", "--format=%T") == "idle\n", f"a node; see {folder}/*.log")
        yield environment
        slurm("scancel", "--user=root")
        until(lambda: slurm("squeue", "--noheader") == "", "the last job's end")


@contextlib.contextmanager
def sweep(folder: Path, environment: dict[str, str], device: str = "cpu") -> Iterator[subprocess.Popen]:
    """A sweep that was submitted; what it says goes to ``folder/sweep.txt``."""
    command = [sys.executable, "-c", SNAKEMAKE, "sweep", "--workflow-profile", "workflow/slurm"]
    command += ["--config", "profile=tiny", f"device={device}"]
    with open(folder / "sweep.txt", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def ended(process: subprocess.Popen, folder: Path) -> str:
    until(lambda: process.poll() is not None, f"the sweep of {folder}")
    said = (folder / "sweep.txt").read_text()
    assert process.returncode == 0, said[-5000:]
    return said


def run_dirs(folder: Path) -> list[Path]:
    return [folder / "runs" / "tiny" / arm for arm in load_profile(folder / "profiles" / "tiny.yml").arms]


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory) -> tuple[Path, str]:
    """A swept project, and what the sweep said."""
    folder = copy_of_project(tmp_path_factory.mktemp("undisturbed"), PROFILE)
    with sweep(folder, cluster) as process:
        return folder, ended(process, folder)


def test_a_sweep_is_done_by_jobs_of_slurm(undisturbed):
    folder, said = undisturbed
    assert said.count("has been submitted with SLURM jobid") == 3  # theta_0 and two arms
    assert [len(untimed(run / "ledger.jsonl")) for run in run_dirs(folder)] == [N_RETRAIN + 1] * 2


def complete_lines(ledger: Path) -> bytes:
    text = ledger.read_bytes() if ledger.exists() else b""
    return text[: text.rfind(b"\n") + 1]


def jobs_of(run: Path, environment: dict[str, str], state: str) -> list[str]:
    """The jobs of a run that are in a state: the plugin writes the run's name into a job's comment."""
    listing = ["squeue", "--noheader", f"--states={state}", "--format=%i %k"]
    jobs = subprocess.run(listing, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split()[0] for line in jobs if line.endswith(f"_{run.name}")]


def cancel_job(run: Path, environment: dict[str, str], state: str = "running") -> str:
    """scancel to the job that computes a run, or is to; its number."""
    (job,) = jobs_of(run, environment, state)
    subprocess.run(["scancel", job], env=environment, check=True)
    return job


def kill_process(run: Path, environment: dict[str, str]) -> str:
    """kill -9 to the process that holds the lock of a run directory; the number of its job."""
    lock, (job,) = str((run / ".lock").resolve()), jobs_of(run, environment, "running")
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # processes and their open files come and go
            for file in Path("/proc", process, "fd").iterdir():
                if os.path.realpath(file) == lock:
                    os.kill(int(process), signal.SIGKILL)
                    return job
    raise AssertionError(f"nobody holds {lock}")


def test_a_cancelled_job_and_a_killed_run_go_on_to_the_same_ledgers(undisturbed, cluster, tmp_path):
    """One of the jobs is cancelled before it has begun, too: another job holds the node until then."""
    folder = copy_of_project(tmp_path / "project", PROFILE)
    references, arms = run_dirs(undisturbed[0]), run_dirs(folder)
    arm_names = shutil.ignore_patterns(*(run.name for run in arms))
    shutil.copytree(undisturbed[0] / "runs", folder / "runs", ignore=arm_names)  # theta_0 is there
    disturb, before = dict(zip(arms, (cancel_job, kill_process), strict=True)), {}
    numbers = {}

    def all_disturbed() -> bool:
        assert process.poll() is None, (folder / "sweep.txt").read_text()[-5000:]
        for run in disturb.keys() - before.keys():
            if complete_lines(run / "ledger.jsonl"):
                numbers[disturb[run]] = disturb[run](run, cluster)
                before[run] = complete_lines(run / "ledger.jsonl")
        return before.keys() == disturb.keys()

    blocker = ["sbatch", "--parsable", "--exclusive", "--output=/dev/null", "--wrap=sleep 3600"]
    number = subprocess.run(blocker, env=cluster, capture_output=True, text=True, check=True).stdout.strip()
    with sweep(folder, cluster) as process:
        until(lambda: all(jobs_of(run, cluster, "pending") for run in arms), f"two waiting jobs of {folder}")
        waiting = cancel_job(arms[1], cluster, "pending")
        subprocess.run(["scancel", number], env=cluster, check=True)
        until(all_disturbed, f"a first generation of each arm of {folder}")
        said = ended(process, folder)
    failed = dict(re.findall(r"SLURM-job '(\d+)' failed, SLURM status is: '(\w+)'", said))
    assert failed[waiting] == failed[numbers[cancel_job]] == "CANCELLED"
    assert failed[numbers[kill_process]] == "FAILED"
    # On a busy machine more may fail, as a submission does that is not answered in time; each is one more restart.
    assert said.count("Trying to restart job") >= 3
    for run, reference in zip(arms, references, strict=True):
        assert 0 < before[run].count(b"\n") <= N_RETRAIN
        assert (run / "ledger.jsonl").read_bytes().startswith(before[run])  # it went on, and did not begin again
        assert untimed(run / "ledger.jsonl") == untimed(reference / "ledger.jsonl")


def test_on_cuda_a_job_is_given_a_gpu(cluster, tmp_path):
    """The GPUs are pretended and so is papermill, which here only says what it was given."""
    folder = copy_of_project(tmp_path / "project", PROFILE | {"arms": ARMS[:1]})
    (tmp_path / "papermill").write_text(f"#!/bin/sh\necho $SLURM_JOB_ID $CUDA_VISIBLE_DEVICES >> {tmp_path}/given\n")
    (tmp_path / "papermill").chmod(0o755)
    with sweep(folder, cluster | {"PATH": f"{tmp_path}{os.pathsep}{cluster['PATH']}"}, "cuda") as process:
        ended(process, folder)
    jobs, gpus = zip(*[line.split() for line in (tmp_path / "given").read_text().splitlines()], strict=True)
    assert len(set(jobs)) == 2  # theta_0 and an arm
    assert set(gpus) <= {"0", "1"}
