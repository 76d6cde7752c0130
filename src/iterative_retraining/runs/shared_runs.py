"""A run directory for a team of processes: the first writes, the others read what it wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.config import RunConfig
from iterative_retraining.distributed import Team
from iterative_retraining.runs.directory import History, Run
from iterative_retraining.runs.reading import read_fit, read_ledger, read_state


class SharedRun:
    """The interface of `Run` in every process of ``team``; ``run`` is the opened directory in the first, else None.

    All processes call all methods; each returns when the first has written.
    """

    def __init__(self, path: Path, config: RunConfig, team: Team, run: Run | None) -> None:
        self.path, self.config, self.team, self.run = path, config, team, run
        self.in_fit, self.stop = False, None
        team.wait()
        self.rows: list[dict[str, Any]] = read_ledger(path)

    @property
    def is_open(self) -> bool:
        """See `Run.is_open`."""
        return self.run is not None and self.run.is_open

    def close(self) -> None:
        """See `Run.close`."""
        if self.run is not None:
            self.run.close()

    @property
    def history(self) -> Sequence[np.ndarray]:
        """See `Run.history`."""
        return History(self)

    def load_state(self) -> dict[str, np.ndarray]:
        """The weights of the last complete generation."""
        return read_state(self.path)

    def load_fit(self, seed: int) -> dict[str, np.ndarray] | None:
        """See `read_fit`."""
        return read_fit(self.path, seed)

    def save_fit(self, seed: int, state: Mapping[str, np.ndarray]) -> None:
        """See `Run.save_fit`; the others do not wait for the first, since they do not read before the next attempt."""
        if self.run is not None:
            self.run.save_fit(seed, state)

    def commit(self, *generation: Any) -> None:
        """See `Run.commit`."""
        if self.run is not None:
            self.run.commit(*generation)
        self.team.wait()
        self.rows = read_ledger(self.path)
