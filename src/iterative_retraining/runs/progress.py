"""Progress of a run: a bar where someone watches it live, one line per generation everywhere else."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from iterative_retraining.devices import why_no_gpu
from iterative_retraining.errors import ConfigError
from iterative_retraining.retrain import GenerationRecord
from iterative_retraining.runs.attempts import last_hardware, resume_note
from iterative_retraining.runs.directory import Run
from iterative_retraining.runs.shared_runs import SharedRun

SHOWN = ("fid", "precision", "recall", "fld")  # of the metrics; the ledger has them all


def is_live() -> bool:
    """True on a terminal and in a kernel that a person has open (Jupyter names its session), not under papermill."""
    return sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ


def opening_lines(run: Run | SharedRun, n_retrain: int) -> str:
    """What a run is and what is left of it, to say before it trains; then what there is to note."""
    identity = {key: value for key, value in run.config.identity().items() if value not in (None, "", {})}
    options = identity.pop("options", {})
    about = ", ".join(f"{key} {value}" for key, value in identity.items() if key not in ("dataset", "model", "scheme"))
    lines = [
        f"run {run.config.run_id} in {run.path}: {len(run.rows)} of {n_retrain + 1} generations are complete",
        f"{run.config.model} on {run.config.dataset}, scheme {run.config.scheme}, {about}; "
        f"{len(options)} options of the model are in {run.path / 'config.json'}",
    ]
    n = run.config.n_real or run.config.data.counts["train"]
    resumed = resume_note(run.path) if len(run.rows) <= n_retrain else ""
    hardware = {} if len(run.rows) > n_retrain else last_hardware(run.path)
    if hardware:
        lines.append(f"device {hardware['device']}: {hardware['name']}, {hardware['threads']} thread(s)")
    no_gpu = why_no_gpu() if hardware.get("device") == "cpu" else ""
    notes = (run.config.built_scheme.notice(n), resumed, no_gpu)
    return "\n".join([*lines, *(f"note: {note}" for note in notes if note)])


class ProgressDisplay:
    """A context manager to hand to `retrain` as ``progress``; call `generation_done` with every record."""

    def __init__(
        self, n_retrain: int, live: bool | None = None, log: Callable[[GenerationRecord], None] | None = None
    ) -> None:
        self.n_retrain, self.live = n_retrain, is_live() if live is None else live
        self.bar: tqdm | None = None
        self.generation, self.n_before, self.log = -1, 0, log

    def __enter__(self) -> Self:
        if self.live:
            self.bar = tqdm(unit="img", smoothing=0.1)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, generation: int, n_images_seen: int, n_images: int) -> None:
        """One bar for the whole run: its total takes later fits to be as long as this one, so time left is a guess."""
        if self.bar is None:
            return
        if generation != self.generation:
            self.generation, self.n_before = generation, self.bar.n
        self.bar.total = self.n_before + n_images * (self.n_retrain - generation + 1)
        self.bar.set_description(f"generation {generation} of {self.n_retrain}", refresh=False)
        self.bar.update(self.n_before + n_images_seen - self.bar.n)

    def generation_done(self, record: GenerationRecord) -> None:
        """Says what a completed generation measured."""
        if self.log is not None:
            self.log(record)
        measured = ", ".join(f"{name} {record.metrics[name]:.3f}" for name in SHOWN if name in record.metrics)
        seconds = record.seconds_fit + record.seconds_sample + record.seconds_metrics
        line = f"generation {record.generation} of {self.n_retrain}: {measured} ({seconds:.1f} s)"
        if self.bar is not None:
            self.bar.write(line)
        else:
            print(line, flush=True)


def tensorboard_writer(folder: str | Path, run_id: str) -> Callable[[GenerationRecord], None] | None:
    """A function that writes a record's numbers as scalars below ``folder``, for TensorBoard; None for folder "".

    Raises ConfigError where the package tensorboard is not installed (extra ``tensorboard``).
    """
    if not folder:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            f"tensorboard_dir = {str(folder)!r} needs the package tensorboard: pip install tensorboard"
        ) from error
    writer = SummaryWriter(Path(folder) / run_id)

    def write(record: GenerationRecord) -> None:
        for name, value in record.row().items():
            writer.add_scalar(name, value, record.generation)
        writer.flush()

    return write
