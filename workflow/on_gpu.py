"""Runs a command on a GPU of its own, or on several: takes free slots, or waits for them, and becomes the command.

python workflow/on_gpu.py [--gpus N] [--per-gpu K] [--locks FOLDER] -- command ...

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


def take_slots(n: int, gpus: list[str], per_gpu: int, locks: Path) -> list[str]:
    """Locks a free slot of each of ``n`` GPUs and returns these, or locks nothing and returns [].

    The first slot of every GPU comes before any second. Two that want several GPUs each never hold a part of them.
    """
    locks.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    for slot in range(per_gpu):
        for gpu in gpus:
            if gpu in taken or len(taken) == n:
                continue
            descriptor = os.open(locks / f"{quote(gpu, safe='')}.{slot}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
            except OSError:
                os.close(descriptor)
                raise
            else:
                taken[gpu] = descriptor
    for descriptor in taken.values():
        if len(taken) == n:
            os.set_inheritable(descriptor, True)
        else:
            os.close(descriptor)
    return list(taken) if len(taken) == n else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="GPUs of the command")
    parser.add_argument("--per-gpu", type=int, default=1, metavar="K", help="commands at a time on one GPU")
    parser.add_argument("--locks", type=Path, default=default_locks(), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("command", nargs="+", help="what to run, after --")
    given = parser.parse_args()
    if given.per_gpu < 1:
        parser.error(f"--per-gpu {given.per_gpu} is not allowed: it counts commands at a time on one GPU")

    gpus = visible_gpus()
    if not 1 <= given.gpus <= len(gpus):
        parser.error(f"--gpus {given.gpus} is not allowed: it counts GPUs of the command, and {len(gpus)} are visible")
    try:
        own = take_slots(given.gpus, gpus, given.per_gpu, given.locks)
    except OSError as error:  # a folder that cannot be written, a file system without locks
        raise SystemExit(
            f"on_gpu: no locks in {given.locks} ({error.strerror}); choose another folder by --locks or TMPDIR"
        ) from error
    if not own:
        all_taken = f"all {len(gpus) * given.per_gpu} slots are taken"
        why = all_taken if given.gpus == 1 else f"fewer than {given.gpus} GPUs are free"
        print(f"on_gpu: {why}, waiting", file=sys.stderr, flush=True)
    while not own:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        own = take_slots(given.gpus, gpus, given.per_gpu, given.locks)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    try:
        os.execvp(given.command[0], given.command)
    except OSError as error:
        raise SystemExit(f"on_gpu: cannot run {given.command[0]}: {error.strerror}") from error


if __name__ == "__main__":
    main()
