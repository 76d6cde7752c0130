"""Runs a command on a GPU of its own: takes a free slot, or waits for one, and becomes the command.

python workflow/on_gpu.py [--per-gpu K] [--locks FOLDER] -- command ...

A slot is a locked file; the command inherits the lock, and the system drops it when the command ends, however it ends.
"""

import argparse
import fcntl
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

SECONDS_BETWEEN_LOOKS = 0.5
NO_GPU = (
    "on_gpu: no GPU: {why}. Make one visible (nvidia-smi lists what there is; CUDA_VISIBLE_DEVICES chooses), or run on "
    "the CPU: --config device=cpu"
)


def visible_gpus() -> list[str]:
    """The GPUs of CUDA_VISIBLE_DEVICES where it is set, else all that nvidia-smi lists. Exits if there is none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        gpus = [gpu for gpu in (part.strip() for part in chosen.split(",")) if gpu]
        if not gpus or gpus[0] == "-1":
            raise SystemExit(NO_GPU.format(why=f"CUDA_VISIBLE_DEVICES is {chosen!r}"))
        return gpus
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        listed = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        listed = []
    if not listed:
        raise SystemExit(NO_GPU.format(why="CUDA_VISIBLE_DEVICES is not set and nvidia-smi lists none"))
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # the order in which nvidia-smi counts
    return listed


def default_locks() -> Path:
    """One folder for each user, and for each Slurm job: a job counts the GPUs that it was given from 0."""
    job = os.environ.get("SLURM_JOB_ID")
    return Path(tempfile.gettempdir(), f"iterative-retraining-gpus-{os.getuid()}" + (f"-job-{job}" if job else ""))


def take_slot(gpus: list[str], per_gpu: int, locks: Path) -> str | None:
    """Locks the first free slot and returns its GPU, or None. The first slot of every GPU comes before any second."""
    locks.mkdir(parents=True, exist_ok=True)
    for slot in range(per_gpu):
        for gpu in gpus:
            descriptor = os.open(locks / f"{quote(gpu, safe='')}.{slot}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            else:
                os.set_inheritable(descriptor, True)
                return gpu
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-gpu", type=int, default=1, metavar="K", help="commands at a time on one GPU")
    parser.add_argument("--locks", type=Path, default=default_locks(), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    given = parser.parse_args()
    if given.per_gpu < 1:
        parser.error(f"--per-gpu {given.per_gpu} is not allowed: it counts commands at a time on one GPU")

    gpus = visible_gpus()
    gpu = take_slot(gpus, given.per_gpu, given.locks)
    if gpu is None:
        print(f"on_gpu: all {len(gpus) * given.per_gpu} slots are taken, waiting", file=sys.stderr, flush=True)
    while gpu is None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        gpu = take_slot(gpus, given.per_gpu, given.locks)
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        os.execvp(given.command[0], given.command)
    except OSError as error:
        raise SystemExit(f"on_gpu: cannot run {given.command[0]}: {error.strerror}") from error


if __name__ == "__main__":
    main()
