"""Runs one configuration again and again, each time in a fork that kills itself (-9) at an event; for test_kills.py.

    python killed_at.py PARAMETERS FOLDER SEED KILLS

PARAMETERS are of `open_experiment`, as JSON. An event is a batch of a fit, a batch of samples, a metric, or a step of a
write. First a run without a kill, "whole"; then runs that are killed at random events of random kinds and resumed,
until there were KILLS kills and the last run is complete. Prints one line an attempt: the directory, and the kind of
event that it was killed at or "complete".
"""

import json
import os
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch

from iterative_retraining import experiment
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.models import training

EVENTS = {"fit": 12, "sample": 24, "metrics": 3, "write": 20}  # about how many a generation has, of each kind


def killing(owner: object, name: str, kind: str, event) -> None:
    """Makes ``owner.name`` an event: half of them before it, half after it."""
    call = getattr(owner, name)

    def counted(*arguments, **keywords):
        event(kind)
        value = call(*arguments, **keywords)
        event(kind)
        return value

    setattr(owner, name, counted)


def run_until(at: tuple[str, int] | None, parameters: dict, run: Path) -> None:
    """The run, in this process, up to event ``at``: the number of its kind."""
    seen = Counter()

    def event(kind: str) -> None:
        seen[kind] += 1
        if (kind, seen[kind]) == at:
            os.write(1, f"{run.name} {kind}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    killing(os, "fsync", "write", event)
    killing(os, "replace", "write", event)
    killing(ImageMetrics, "__call__", "metrics", event)
    killing(training, "noise_by_index", "sample", event)
    for _ in open_experiment(run_dir=run, **parameters).records(lambda *progress: event("fit")):
        pass
    os.write(1, f"{run.name} complete\n".encode())


def attempt(at: tuple[str, int] | None, parameters: dict, run: Path) -> bool:
    """`run_until` in a fork; whether it was killed."""
    child = os.fork()
    if child == 0:
        run_until(at, parameters, run)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status and not os.WIFSIGNALED(status):
        sys.exit(1)
    return os.WIFSIGNALED(status)


if __name__ == "__main__":
    parameters, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    rng, to_kill, number = np.random.default_rng(int(sys.argv[3])), int(sys.argv[4]), 0
    experiment.losses_of = partial(experiment.losses_of, n_evaluations=1)  # see conftest
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much, once for all forks
    open_experiment(run_dir=folder / "opened", **parameters).run.close()  # reads sources and images, once for all
    attempt(None, parameters, folder / "whole")
    while to_kill:
        kind = rng.choice(list(EVENTS))
        killed = attempt((kind, int(rng.integers(1, EVENTS[kind] + 1))), parameters, folder / f"run{number}")
        to_kill, number = to_kill - killed, number + (not killed)
    attempt(None, parameters, folder / f"run{number}")
