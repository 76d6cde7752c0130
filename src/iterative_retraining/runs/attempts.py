"""One attempt at a run, from its start to whatever ends it: disk, SIGTERM, memory, and what the manifest says."""

import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from iterative_retraining.errors import RunError
from iterative_retraining.retrain import N_PREVIEW
from iterative_retraining.runs.directory import Run
from iterative_retraining.runs.provenance import finish_attempt
from iterative_retraining.runs.reading import read_manifest

# Of an attempt, what decides rounding beside versions and hardware, and how a note calls it.
SETTINGS = {"world_size": "number of processes"}
SETTINGS |= {name: name for name in ("micro_batch", "features_resizing", "tf32")}


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), as by a cluster that needs the machine."""


def bytes_needed(
    state: int,
    item: int,
    n_samples: int,
    n_retrain: int,
    history_length: int | None,
    keep_every: int,
    keep_samples: int = 0,
) -> int:
    """Bytes that a run of ``n_retrain`` retrainings takes at most, from those of its weights and of one item.

    Weights: theta_0, the last, the next, and every ``keep_every``-th; ``n_samples`` samples of as many generations as
    the scheme reads, of the next, and of every ``keep_samples``-th; previews, as if PNG did not compress them.
    """
    kept = n_retrain // keep_every if keep_every else 0
    generations = n_retrain + 1 if history_length is None else min(history_length, n_retrain) + 1
    if keep_samples:
        generations = min(n_retrain + 1, generations + n_retrain // keep_samples + 1)
    return (3 + kept) * state + (generations * n_samples + (n_retrain + 1) * N_PREVIEW) * item


def check_disk(path: Path, needed: int) -> None:
    """Raises RunError if the disk of a run directory, which need not be there yet, has less than ``needed`` bytes for
    what it holds and will hold."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    try:
        held = sum(file.stat().st_size for file in path.iterdir() if file.is_file()) if path.is_dir() else 0
        free = shutil.disk_usage(there).free
    except OSError as error:
        raise RunError(f"cannot read the run directory {path}: {error.strerror}; choose another run_dir") from error
    if free + held < needed:
        raise RunError(
            f"{path} needs about {needed / 1e6:.1f} MB and its disk has {free / 1e6:.1f} MB free; free some space, "
            "choose another run_dir, retrain less often (n_retrain), with less synthetic data (lam) or a smaller "
            "network (model_options), or keep fewer weights (keep_every) or samples (keep_samples)"
        )


@contextmanager
def attempt(run: Run, n_retrain: int) -> Iterator[None]:
    """Around the generations of a run: writes into its manifest how they ended, unless there was nothing to compute.

    Turns SIGTERM into Terminated, which says what is kept, and memory that does not suffice into RunError.
    """
    if len(run.rows) > n_retrain:
        yield
        return
    start = time.monotonic()

    def finish(outcome: str, message: str) -> None:
        if run.is_open:  # of a run that was closed before, somebody else may write the manifest now
            finish_attempt(run, outcome, message, round(time.monotonic() - start, 3))

    signals: list[str] = []
    try:
        with _watching_signals(run, signals):
            yield
    except BaseException as error:
        ending = RunError(_out_of_memory(run, error)) if _is_out_of_memory(error) else error
        try:
            finish(*_outcome(ending, signals))
        except RunError as second:  # a full disk takes no manifest either; what ended the attempt is what matters
            ending.add_note(str(second))
        if ending is error:
            raise
        raise ending from error
    finish("complete", "")


def resume_note(path: Path) -> str:
    """One sentence on what differs between the machine of the last attempt at a run and that of the one before; "" if
    nothing does: equal bits are promised for equal ones alone."""
    attempts = read_manifest(path)["attempts"]
    if len(attempts) < 2:
        return ""
    before, now = map(_rounding, attempts[-2:])
    known = [key for key in now if key in before or key not in SETTINGS.values()]  # earlier code recorded fewer
    differing = [f"{key} {before.get(key)} then, {now[key]} now" for key in known if before.get(key) != now[key]]
    if not differing:
        return ""
    return f"not the same bits as an undisturbed run: it goes on under another {', another '.join(differing)}"


def last_hardware(path: Path) -> dict[str, Any]:
    """The hardware of the last attempt at a run; {} before the first."""
    attempts = read_manifest(path)["attempts"]
    return attempts[-1]["hardware"] if attempts else {}


def _rounding(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how sums are rounded."""
    versions = {name: attempt["packages"].get(name) for name in ("torch", "numpy", "scipy", "scikit-learn")}
    machine = {"device": "device", "name": "processor", "threads": "number of threads"}
    found = versions | {word: attempt["hardware"].get(key) for key, word in machine.items()}
    found |= {word: attempt[key] for key, word in SETTINGS.items() if key in attempt}
    return found | {"instruction set": attempt["hardware"].get("cpu_capability")}


def _outcome(error: BaseException, signals: Sequence[str]) -> tuple[str, str]:
    """The outcome and the message of an attempt that ``error`` ends.

    signals: those that came, in words; between two generations they reach whoever asks for generations, and not us.
    """
    if isinstance(error, GeneratorExit):
        return "stopped", signals[-1] if signals else "no more generations were asked for"
    if isinstance(error, KeyboardInterrupt):
        return "stopped", str(error) or "interrupted from the keyboard"
    return "failed", f"{type(error).__name__}: {error}"


@contextmanager
def _watching_signals(run: Run, signals: list[str]) -> Iterator[None]:
    """Turns SIGTERM into Terminated, raised at once or by the fit (`FitStore.stop`), and leaves SIGINT what it was;
    adds to ``signals``, in words, what came."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        first = run.in_fit and run.stop is None  # a fit that leaves a checkpoint, and then ends; another signal ends it
        middle = ", whose fit goes on from its checkpoint" if first else ""
        signals.append(f"stopped by SIGTERM in generation {len(run.rows)}{middle}; {_kept(run)}")
        if not first:
            raise Terminated(signals[-1])
        run.stop = Terminated(signals[-1])

    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append("interrupted from the keyboard")
        on_interrupt(number, frame)

    on_interrupt = signal.getsignal(signal.SIGINT)
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, terminate)}
    if callable(on_interrupt):
        before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kept(run: Run) -> str:
    return f"{len(run.rows)} complete generations are kept, and the same command goes on from the last of them"


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def _out_of_memory(run: Run, error: BaseException) -> str:
    options = {
        name: run.config.options[name] for name in ("batch_size", "sampling_batch_size") if name in run.config.options
    }
    now = ", ".join(f"{name} = {value}" for name, value in options.items())
    at_once = (read_manifest(run.path)["attempts"] or [{}])[-1].get("micro_batch") or options.get("batch_size")
    way_out = f"a smaller one of {now} is another run; " if now else ""
    if at_once:
        way_out = f"with micro_batch below {at_once} a fit needs less and is the same run, while {way_out}"
    return f"generation {len(run.rows)}: out of memory ({str(error).splitlines()[0]}); {way_out}{_kept(run)}"
