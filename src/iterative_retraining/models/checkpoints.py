"""Checkpoints within a fit: when one is due, and the thread that writes it while training goes on."""

import math
import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch

from iterative_retraining.distributed import Team
from iterative_retraining.errors import ConfigError, shown
from iterative_retraining.models.fitting import Arrays, Fit

AUTO = "auto"
MINUTES_ON_A_GPU = 10.0  # a choice: what a kill costs at most; on the published networks a checkpoint has 0.9 GB


class FitStore(Protocol):
    """Where a fit leaves what it needs to go on after the process has died."""

    in_fit: bool
    """Whether a fit is under way that looks at ``stop`` after every step; set by the fit."""
    stop: BaseException | None
    """What the fit has to end with, once it has left a checkpoint; None to go on."""

    def load_fit(self, seed: int) -> Arrays | None:
        """What `save_fit` was last given, if it was for the fit of this seed."""

    def save_fit(self, seed: int, state: Arrays) -> None:
        """Keeps ``state``, whole or not at all, in the place of what was there. Called from a thread of its own."""


class Checkpoints:
    """The checkpoints of one fit in ``store``, as a context around its steps: `after_step` leaves those that are due.

    store: None for no checkpoints. n_images, seconds: how often; 0 for not by this measure. Copies are made at once,
    and written by a thread while training goes on. What the thread raises is raised by the next step, or at the end of
    the context, which waits for it: nothing is written after that. Of a ``team`` the first process writes; a stop is
    for a process alone.
    """

    def __init__(
        self,
        store: FitStore | None,
        fit: Fit,
        seed: int,
        rng: torch.Generator,
        team: Team,
        *,
        n_images: int = 0,
        seconds: float = 0.0,
    ) -> None:
        self.store, self.fit, self.seed, self.rng, self.team = store, fit, seed, rng, team
        self.n_images, self.seconds = n_images, seconds
        self._last = monotonic()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def resume(self) -> int:
        """Puts a checkpoint of this fit back, if there is one; returns how many images the fit has seen."""
        state = self.store.load_fit(self.seed) if self.store is not None else None
        if state is not None:
            self.fit.restore(state)
            self.rng.set_state(torch.from_numpy(np.array(state["rng"])))
        return self.fit.n_seen

    def __enter__(self) -> Self:
        if self.store is not None:
            self.store.in_fit = self.team.size == 1
        return self

    def after_step(self, batch: int) -> None:
        """After a step of ``batch`` images: a checkpoint if one is due, and the end of the fit if that is asked for."""
        if self.store is None or self.team.rank:
            return
        self._raise()
        seen, stop = self.fit.n_seen, self.store.stop
        by_images = self.n_images and seen // self.n_images > (seen - batch) // self.n_images
        by_time = self.seconds and monotonic() - self._last >= self.seconds
        if by_images or by_time or stop is not None:
            self._save()
        if stop is not None:
            self._wait()
            raise stop

    def _save(self) -> None:
        self._wait()
        self.fit.look()  # weights after a loss that is not finite are no checkpoint
        self._last = monotonic()
        named, rng = self.fit.snapshot(), self.rng.get_state().numpy().copy()
        self._thread = threading.Thread(target=self._write, args=(named, rng), name="checkpoint")
        self._thread.start()

    def _write(self, named: Callable[[], dict[str, np.ndarray]], rng: np.ndarray) -> None:
        try:
            self.store.save_fit(self.seed, named() | {"rng": rng})
        except BaseException as error:
            self._failure = error

    def _wait(self) -> None:
        """Until the thread has written. Raises what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._raise()

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.store is not None:
            self.store.in_fit = False
        try:
            self._wait()
        except BaseException as second:
            if error is None:
                raise
            error.add_note(f"and the last checkpoint failed: {second}")


def check_minutes(value: object) -> float | str:
    """``value`` if it may be the parameter checkpoint_minutes. Raises ConfigError."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if not number and value != AUTO:
        raise ConfigError(
            f"checkpoint_minutes = {shown(value)} is not allowed: minutes between two checkpoints within a fit, 0 for "
            f"none by time, or {AUTO!r} for {MINUTES_ON_A_GPU:g} on a GPU and none on a CPU"
        )
    return AUTO if value == AUTO else float(value)


def chosen_minutes(given: float | str, device: str) -> float:
    """``given``, see `check_minutes`, on ``device``."""
    if given != AUTO:
        return float(given)
    return MINUTES_ON_A_GPU if device.startswith("cuda") else 0.0
