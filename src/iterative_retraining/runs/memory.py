"""A run without a disk."""

from collections.abc import Mapping
from typing import Any

import numpy as np


class MemoryRun:
    """A `Run` without a disk: every generation's samples stay in memory."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.history: list[np.ndarray] = []

    def load_state(self) -> Mapping[str, np.ndarray]:
        """The weights of the last complete generation."""
        return self._state

    def commit(
        self,
        row: dict[str, Any],
        state: Mapping[str, np.ndarray],
        samples: np.ndarray,
        preview: np.ndarray,
        history_length: int | None,
    ) -> None:
        """Keeps a complete generation."""
        self.rows.append(row)
        self.history.append(samples)
        self._state = state
