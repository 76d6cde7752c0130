"""Processes that start at once: forks of one that has imported and read what every run needs (`warmed`), as each would
for seconds. That a shell starts runs is tested in test_parameters.py and test_commands.py."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest.mock import patch

TESTS = str(Path(__file__).parent)


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["warmed"])
    path = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
    with patch.dict(os.environ, PYTHONPATH=path, OMP_NUM_THREADS="1"):
        forkserver.ensure_running()
    return context


def _begin(said: Mapping[str, str], cwd: str, environment: Mapping[str, str]) -> None:
    """As a program of a shell has it: standard output and error, directory, environment, and Ctrl-C."""
    for name, file in said.items():
        os.dup2(os.open(file, os.O_WRONLY), getattr(sys, name).fileno())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it


def _run(parameters: Mapping[str, Any], *about: Any) -> None:
    _begin(*about)
    from iterative_retraining.experiment import open_experiment

    for _ in open_experiment(**parameters).records():
        pass


def _module(words: tuple[str, ...], *about: Any) -> None:
    _begin(*about)
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


class Forked:
    """A process that was started; has what tests need of `subprocess.Popen`."""

    def __init__(
        self, call: Callable[..., None], argument: object, cwd: Path | str = ".", env: Mapping[str, str] = os.environ
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        said = {name: str(Path(self._folder.name, name)) for name in ("stdout", "stderr")}
        for file in said.values():
            Path(file).touch()
        about = (argument, said, str(Path(cwd).resolve()), {**env, "OMP_NUM_THREADS": "1"})
        self._said, self._process = said, _server().Process(target=call, args=about)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """Its exit status, or None while it runs; -9 after a SIGKILL."""
        return self._process.exitcode

    returncode = property(poll)

    def send_signal(self, number: int) -> None:
        """Of `signal`."""
        os.kill(self.pid, number)

    def said(self, name: str) -> str:
        """What it has said on "stdout" or "stderr" until now."""
        return Path(self._said[name]).read_text()

    def communicate(self) -> tuple[str, str]:
        """Its standard output and error, once it has ended."""
        self._process.join()
        said = self.said("stdout"), self.said("stderr")
        self._folder.cleanup()
        return said


def start_run(parameters: dict) -> Forked:
    """A run in a process of its own; its last line of standard error is the error, if any."""
    return Forked(_run, parameters)


def start_module(*words: str, cwd: Path, env: Mapping[str, str] = os.environ) -> Forked:
    """``python -m words``, started."""
    return Forked(_module, words, cwd, env)


def run_module(*words: str, cwd: Path, env: Mapping[str, str] = os.environ) -> subprocess.CompletedProcess:
    """``python -m words``, to its end."""
    process = start_module(*words, cwd=cwd, env=env)
    out, error = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, out, error)
