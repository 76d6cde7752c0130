"""Algorithm 1: iterative retraining of a generative model on real data and its own samples."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from iterative_retraining.interfaces import Metric, Model, Run, Scheme
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.seeding import stage_seed
from iterative_retraining.selectors.selection import Selection

N_PREVIEW = 16
Progress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class GenerationRecord:
    """One completed generation t: what theta_t was fitted on, how its samples measure, what it cost (wall seconds)."""

    generation: int
    n_images: int
    """Images shown to the model during this fit; 0 if theta_0 was loaded."""
    n_real: int
    n_synthetic: int
    """Sizes of the two parts of D_t."""
    metrics: Mapping[str, float]
    seconds_fit: float
    seconds_sample: float
    seconds_metrics: float

    def row(self) -> dict[str, float]:
        """The record as one flat mapping: a line of the ledger."""
        row = asdict(self)
        metrics = row.pop("metrics")
        seconds = {key: row.pop(key) for key in list(row) if key.startswith("seconds_")}
        return row | metrics | seconds

    @classmethod
    def from_row(cls, row: Mapping[str, float]) -> "GenerationRecord":
        """The inverse of `row`; what else a ledger line carries is left out."""
        own = {key: row[key] for key in cls.__dataclass_fields__ if key != "metrics"}
        rest = {key: value for key, value in row.items() if key not in own and not key.endswith("_sha256")}
        return cls(metrics=rest, **own)


def retrain(
    model: Model,
    real: np.ndarray,
    scheme: Scheme,
    metrics: Sequence[Metric],
    *,
    n_retrain: int,
    seed: int | tuple[int, ...],
    fixed_latents: bool = False,
    selection: Selection | None = None,
    run: Run | None = None,
    initial_state: Mapping[str, np.ndarray] | None = None,
    initial_samples: np.ndarray | None = None,
    progress: Progress | None = None,
) -> Iterator[GenerationRecord]:
    """Algorithm 1, one `GenerationRecord` per generation 0..n_retrain.

    ``model`` is not fitted yet. theta_0 = A(D_real), or ``initial_state`` if given; then, for t = 1..n_retrain,
    theta_t = A(D_t) where ``scheme`` makes D_t of ``real`` (n, ...) and of the samples of the generations before. Every
    generation samples at least n items, of which the first n are measured; with ``fixed_latents`` from the same noise
    in all generations, as the paper's code does (Theorem 2 assumes fresh samples).
    With a ``selection`` more are drawn than ``scheme`` needs, and it keeps of them what ``scheme`` then gets; what is
    measured is the first n of all, so the model and not the choice.
    ``initial_samples`` of ``initial_state`` are not drawn again if there are enough of them; they have to be those that
    the model would draw itself: those of generation 0 of a run with this seed and these weights.
    ``progress(generation, n_images_seen, n_images)`` watches the fits.

    With a ``run``, generations it already holds are yielded from its ledger and not computed again; each new one is
    on disk before it is yielded. Raises ValueError for n_retrain < 0, for too few real data, for samples without the
    state that they are of, and for a selection for several seeds at once; and what model, scheme, selection and run
    raise.
    """
    if n_retrain < 0:
        raise ValueError(f"n_retrain = {n_retrain} is not allowed: it counts retrainings, 0 or more")
    if initial_samples is not None and initial_state is None:
        raise ValueError("initial_samples are of initial_state, which is not given; give both, or none")
    scheme.check(len(real), n_retrain)
    if selection is not None:
        if isinstance(seed, tuple):
            raise ValueError("a selection is for the samples of one model: give one seed, not several")
        selection.check(len(real), has_density=hasattr(model, "log_prob"))
    run = MemoryRun() if run is None else run
    for row in run.rows[: n_retrain + 1]:
        yield GenerationRecord.from_row(row)
    if run.rows and len(run.rows) <= n_retrain:
        model.load_state_dict(run.load_state())

    n, n_kept = len(real), scheme.n_samples(len(real))
    n_samples = max(n, n_kept if selection is None else selection.n_candidates(n_kept))
    enough = initial_samples is not None and len(initial_samples) >= n_samples
    for generation in range(len(run.rows), n_retrain + 1):
        watch, clock = _Watch(generation, progress), _Clock()
        if generation == 0:
            data = scheme.initial_set(real)
        else:
            data = scheme.training_set(real, run.history, seed=stage_seed(seed, generation, "scheme"))
        with _naming(generation):
            if generation == 0 and initial_state is not None:
                model.load_state_dict(initial_state)
            else:
                model.fit(data, seed=stage_seed(seed, generation, "fit"), progress=watch)
            seconds_fit = clock.lap()

            if generation == 0 and enough:
                samples = np.array(initial_samples[:n_samples])
            else:
                samples = model.sample(n_samples, seed=stage_seed(seed, 0 if fixed_latents else generation, "sample"))
            preview = model.sample(N_PREVIEW, seed=stage_seed(seed, 0, "preview"))  # the same latents every time
            seconds_sample = clock.lap()

        kept = samples
        if selection is not None:
            kept = selection.keep(samples, n_kept, real=real, model=model, seed=stage_seed(seed, generation, "select"))
        measured = {name: value for metric in metrics for name, value in metric(samples[:n], real=real).items()}
        record = GenerationRecord(
            generation=generation,
            n_images=watch.n_images_seen,
            n_real=data.n_real,
            n_synthetic=data.n_synthetic,
            metrics=measured,
            seconds_fit=seconds_fit,
            seconds_sample=seconds_sample,
            seconds_metrics=clock.lap(),
        )
        run.commit(record.row(), model.state_dict(), kept, preview, scheme.history_length)
        yield record


@contextmanager
def _naming(generation: int) -> Iterator[None]:
    """Adds to a divergence in which generation it happened."""
    try:
        yield
    except FloatingPointError as error:
        kept = f"the {generation} generations before it are complete" if generation else "no generation is complete"
        raise type(error)(f"generation {generation}: {error}; {kept}") from error


class _Watch:
    """Passes a fit's progress on, and remembers how many images it has seen."""

    def __init__(self, generation: int, progress: Progress | None) -> None:
        self.generation, self.progress, self.n_images_seen = generation, progress, 0

    def __call__(self, n_images_seen: int, n_images: int) -> None:
        self.n_images_seen = n_images_seen
        if self.progress is not None:
            self.progress(self.generation, n_images_seen, n_images)


class _Clock:
    """Wall seconds since the last lap."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def lap(self) -> float:
        previous, self.start = self.start, time.perf_counter()
        return self.start - previous
