"""Progress of a run: a bar where someone watches it live, one line per generation everywhere else."""

import os
import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm

from iterative_retraining.retrain import GenerationRecord

SHOWN = ("fid", "precision", "recall", "fld")  # of the metrics; the ledger has them all


def is_live() -> bool:
    """True on a terminal and in a kernel that a person has open (Jupyter names its session), not under papermill."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


class ProgressDisplay:
    """A context manager to hand to `retrain` as ``progress``; call `generation_done` with every record."""

    def __init__(self, n_retrain: int, live: bool | None = None) -> None:
        self.n_retrain, self.live = n_retrain, is_live() if live is None else live
        self.bar: tqdm | None = None

    def __enter__(self) -> Self:
        if self.live:
            self.bar = tqdm(unit="img", smoothing=0.1)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, generation: int, n_images_seen: int, n_images: int) -> None:
        if self.bar is None:
            return
        if self.bar.total != n_images or n_images_seen < self.bar.n:
            self.bar.reset(n_images)
        self.bar.set_description(f"generation {generation} of {self.n_retrain}", refresh=False)
        self.bar.update(n_images_seen - self.bar.n)

    def generation_done(self, record: GenerationRecord) -> None:
        """Says what a completed generation measured."""
        measured = ", ".join(f"{name} {record.metrics[name]:.3f}" for name in SHOWN if name in record.metrics)
        seconds = record.seconds_fit + record.seconds_sample + record.seconds_metrics
        line = f"generation {record.generation} of {self.n_retrain}: {measured} ({seconds:.1f} s)"
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)
