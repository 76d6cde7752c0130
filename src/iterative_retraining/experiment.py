"""From the parameters of the retrain notebook to a run: everything is checked here before any compute is spent."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from iterative_retraining.config import OF_RARITY, RunConfig, check_count, check_device, check_path
from iterative_retraining.datasets.rare import rows_with_rare
from iterative_retraining.distributed import Team, find_team, set_float32
from iterative_retraining.errors import (
    ConfigError,
    DataError,
    PretrainedError,
    RunError,
    WeightsError,
    refuse_unknown,
    shown,
)
from iterative_retraining.files import sealed, write_json
from iterative_retraining.interfaces import FeatureSpace, Model, Scheme
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.metrics.features import AUTO, build_features
from iterative_retraining.metrics.model_loss import losses_of
from iterative_retraining.models.checkpoints import check_minutes, chosen_minutes
from iterative_retraining.models.graphs import check_graphs, chosen_graphs
from iterative_retraining.models.memory import check_micro_batch, chosen_micro_batch
from iterative_retraining.models.pretrained import diffusers_weights, state_that_fits
from iterative_retraining.retrain import GenerationRecord, Progress, retrain
from iterative_retraining.runs.attempts import attempt, bytes_needed, check_disk
from iterative_retraining.runs.directory import Run, read_config, read_floor, read_ledger, read_samples, read_state
from iterative_retraining.runs.origin import init_identity
from iterative_retraining.runs.provenance import write_manifest
from iterative_retraining.runs.shared_runs import SharedRun
from iterative_retraining.runs.shared_work import SharedStart, shared_floor
from iterative_retraining.schemes import set_size
from iterative_retraining.seeding import stage_seed
from iterative_retraining.selectors import Selection


@dataclass(frozen=True)
class Experiment:
    """One run, ready to go: `records` runs Algorithm 1 from where the run directory stands."""

    run: Run | SharedRun
    real: np.ndarray
    new_model: Callable[[], Model]
    scheme: Scheme
    metrics: ImageMetrics
    n_retrain: int
    initial_state: Mapping[str, np.ndarray] | None
    initial_samples: np.ndarray | None
    team: Team
    checkpoint_images: int = 0
    shares_start: bool = False
    selection: Selection | None = None
    checkpoint_minutes: float = 0.0
    micro_batch: int = 0
    cuda_graphs: bool = False

    def records(self, progress: Progress | None = None) -> Iterator[GenerationRecord]:
        """The generations of the run, see `iterative_retraining.retrain.retrain`.

        Each call starts from a new model: one that was stopped in the middle of a fit must not be trained on. How the
        attempt ends is written into the manifest. Raises Terminated on SIGTERM, RunError if memory does not suffice.
        """
        model, run, config = self.new_model(), self.run, self.run.config
        if (self.checkpoint_images or self.checkpoint_minutes) and hasattr(model, "keep_fits"):
            model.keep_fits(run, self.checkpoint_images, 60 * self.checkpoint_minutes)
        if hasattr(model, "split_batches"):
            model.split_batches(self.micro_batch)
        if self.cuda_graphs:
            model.replay_graphs()
        loop_model = model
        if self.shares_start and not run.rows:
            loop_model = SharedStart(model, self.metrics, config, self.initial_state)
        few = {"n_evaluations": len(self.real)} if config.rehearsal else {}
        metrics = [self.metrics, *losses_of(model, self.metrics.test, **few)] if self.team.rank == 0 else []
        with attempt(run, self.n_retrain) if self.team.rank == 0 else nullcontext():
            yield from retrain(
                loop_model,
                self.real,
                self.scheme,
                metrics,
                n_retrain=self.n_retrain,
                seed=config.seed,
                fixed_latents=config.latents == "fixed",
                selection=self.selection,
                run=run,
                initial_state=self.initial_state,
                initial_samples=self.initial_samples,
                progress=progress,
            )


def open_experiment(
    *,
    n_retrain: int,
    device: str = "auto",
    data_dir: str | Path | None = "",
    init: str = "",
    run_dir: str | Path = "",
    model_options: Mapping[str, Any] | None = None,
    features: str = "auto",
    features_weights: str | Path = "",
    features_resizing: str = "auto",
    keep_every: int = 0,
    keep_samples: int = 1,
    checkpoint_images: int = 0,
    checkpoint_minutes: float | str = "auto",
    micro_batch: int | str = "auto",
    cuda_graphs: bool = False,
    **parameters: Any,
) -> Experiment:
    """Checks the parameters, opens the run directory and writes its manifest and its real-vs-real floor.

    A run that is complete is opened as it is.

    ``parameters`` are those of `RunConfig`; ``features`` and ``features_weights`` choose the space of the metrics, see
    `iterative_retraining.metrics.features.build_features`: one space for all generations of a run.
    ``features_resizing``: of Inception, see `iterative_retraining.metrics.features.inception.InceptionFeatures`.
    ``keep_every`` = k > 0 keeps the weights of every k-th generation, besides theta_0 and the last; ``keep_samples`` =
    k > 0 the samples of every k-th, which can then be measured again (`iterative_retraining.remeasure`);
    ``checkpoint_images`` = k > 0 leaves a checkpoint within a fit every k images, from which a killed one goes on, and
    ``checkpoint_minutes`` > 0 by time; with either SIGTERM leaves one. "auto": see `models.checkpoints`.
    ``micro_batch``: how many images of a batch are trained on at once, which changes memory, time and rounding alone;
    "auto" is all of them on a CPU and what fits on a GPU, see `iterative_retraining.models.memory`.
    ``cuda_graphs``: whether a GPU replays training and sampling as `iterative_retraining.models.graphs`, faster where
    the network is small; on a CPU nothing does.
    The floor, and the samples of published weights ``init``, are shared by runs in the user's cache.
    In a process that ``torchrun`` has started, the run is that of all its processes.
    Raises ConfigError for a bad parameter, RunError for a bad directory or a disk that is too small.
    """
    n_retrain = check_count("n_retrain", n_retrain, "it counts retrainings")
    keep_every = check_count("keep_every", keep_every, "it counts generations")
    keep_samples = check_count("keep_samples", keep_samples, "it counts generations, 0 for those that are needed")
    checkpoint_images = check_count("checkpoint_images", checkpoint_images, "it counts images, 0 for no checkpoints")
    micro_batch, minutes = check_micro_batch(micro_batch), check_minutes(checkpoint_minutes)
    cuda_graphs = check_graphs(cuda_graphs)
    paths = {"data_dir": data_dir, "init": init, "run_dir": run_dir, "features_weights": features_weights}
    for name, value in paths.items():
        check_path(name, value)
    refuse_unknown("parameter", parameters, [f.name for f in fields(RunConfig) if f.name not in ("options", "init")])
    options = {} if model_options is None else model_options
    if not isinstance(options, Mapping):
        raise ConfigError(f"model_options = {shown(options)} is not allowed: it maps names of options to values")
    config = RunConfig(options=options, init=init_identity(init) if init else "", **parameters)
    with _as_config_error():
        config.built_scheme.check(config.n_real or config.data.counts["train"], n_retrain)
        team, device = find_team(check_device(device))
        how, settings = set_float32(device), {"device": device, "resizing": features_resizing}
        space = build_features(features, config.dataset, weights=features_weights, **settings)
        selection = _selection(config, features, space)
        real, test = _load_images(config, data_dir or None)
        new_model = partial(_new_model, config, real.shape[1:], device, team)
        model, initial_state = new_model(), _initial_state(init, config, real.shape[1:]) if init else None
        if initial_state is not None:
            model.load_state_dict(initial_state)  # weights of another network are refused here, not an hour later
    samples = _initial_samples(init, config) if init else None
    metrics, scheme = ImageMetrics(space, test=test, device=device), config.built_scheme
    path = Path(run_dir or Path("runs") / "manual" / config.run_id)
    n_samples = max(len(real), scheme.n_samples(len(real)))  # more are drawn for a selector, and not kept
    counts = (n_samples, n_retrain, scheme.history_length, keep_every, keep_samples)
    state = model.state_bytes(real.shape[1:])
    minutes = chosen_minutes(minutes, device)
    of_fits = 8 * state if checkpoint_images or minutes else 0  # weights, EMA, two moments, and as much while written
    check_disk(path, bytes_needed(state, real[0].nbytes, *counts) + of_fits)
    largest_set = partial(set_size, scheme, len(real), n_retrain)
    micro_batch = chosen_micro_batch(micro_batch, model, largest_set, real[0].nbytes)
    cuda_graphs = chosen_graphs(cuda_graphs, model)
    run = None
    if team.rank == 0:
        floor = _floor(path, config, metrics, real)
        about = {"n_retrain": n_retrain, "device": device, "world_size": team.size, "real": real}
        about |= {"initial_state": initial_state, "metrics": metrics.names(real)}
        about["initial_identity"] = _initial_identity(init)
        how |= {"micro_batch": micro_batch} if hasattr(model, "split_batches") else {}
        how |= {"cuda_graphs": True} if cuda_graphs else {}
        about["how"] = how | ({"features_resizing": space.resizing} if hasattr(space, "resizing") else {})
        about |= {"features": config.data.features if features == AUTO else features}
        kept = {"keep_every": keep_every, "keep_samples": keep_samples}
        run = _open_directory(Run(path, config, **kept), metrics, floor, about)
    if team.size > 1:
        run = SharedRun(path, config, team, run)
    begun = (run, real, new_model, scheme, metrics, n_retrain, initial_state, samples, team, checkpoint_images)
    shares = bool(init) and not _is_run(init) and team.size == 1
    changed = {"checkpoint_minutes": minutes, "micro_batch": micro_batch, "cuda_graphs": cuda_graphs}
    return Experiment(*begun, shares, selection, **changed)


def _open_directory(run: Run, metrics: ImageMetrics, floor: Mapping[str, Any], about: Mapping[str, Any]) -> Run:
    """Writes the manifest of this attempt, unless nothing is left to compute, and the floor; closes what it refuses."""
    try:
        if len(run.rows) <= about["n_retrain"]:
            write_manifest(run, **about)
        _keep_floor(run, metrics, floor)
    except BaseException:
        run.close()
        raise
    return run


@contextmanager
def _as_config_error() -> Iterator[None]:
    """What a lower layer says of a value that it does not allow is said as ConfigError."""
    try:
        yield
    except (ValueError, TypeError, DataError, WeightsError, PretrainedError) as error:
        raise ConfigError(str(error)) from error


def _new_model(config: RunConfig, item_shape: tuple[int, ...], device: str, team: Team) -> Model:
    budgets = {name: getattr(config, name) for name in ("n_images_initial", "n_images_per_retraining")}
    return config.family.build(item_shape, config.options, **budgets, device=device, team=team)


def _selection(config: RunConfig, features: str, space: FeatureSpace) -> Selection | None:
    """The selection of a run, checked. It looks in the feature space of the data set, whatever metrics look in: which
    space that is belongs to the run. Raises ValueError for another space, and for what the run does not offer."""
    if config.built_selector is None:
        return None
    if features not in (AUTO, config.data.features):
        raise ValueError(
            f"features = {features!r} is not allowed with selector = {config.selector!r}: a selector looks in the "
            f"feature space of the data set, {config.data.features!r}; set features to {AUTO!r}"
        )
    target = getattr(config.data, "log_prob", None)
    selection = Selection(config.built_selector, config.keep_rate, features=space, target=target)
    selection.check(config.n_real or config.data.counts["train"], has_density=config.family.has_density)
    return selection


def _load_images(config: RunConfig, data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The real images of a run, and the held-out ones if its data set, and these files, have some. Raises DataError."""
    real, labels = config.data.load("train", data_dir)
    test = config.data.load("test", data_dir)[0] if "test" in config.data.counts else ()
    real, labels = real[: config.n_real or None], labels[: config.n_real or None]
    real = real if config.rare_class < 0 else real[rows_with_rare(labels, config.rare_class, config.rare_share)]
    test = test[: len(real)] if config.rehearsal else test
    return real, test if len(test) else None


def _initial_state(init: str, config: RunConfig, item_shape: tuple[int, ...]) -> Mapping[str, np.ndarray]:
    """theta_0: the last weights of a run directory, or published ones that fit the run."""
    if _is_run(init):
        return read_state(Path(init))
    asked = {"model": config.model, "dataset": config.dataset, "options": config.options}
    return state_that_fits(init, item_shape=item_shape, **asked)


def _initial_samples(init: str, config: RunConfig) -> np.ndarray | None:
    """The samples of theta_0, if the run directory ``init`` holds those that this run would draw; None if not."""
    if not _is_run(init) or len(read_ledger(Path(init))) != 1:
        return None
    identity, own = read_config(Path(init))["identity"], config.identity()
    same = ("dataset", "n_real", *OF_RARITY, "model", "options", "seed")
    drawn = not identity.get("selector") and all(identity.get(key) == own.get(key) for key in same)
    return read_samples(Path(init)) if drawn else None


def _is_run(init: str) -> bool:
    """Whether ``init`` is a run directory, not published weights."""
    return bool(init) and not Path(init).is_file() and diffusers_weights(init) is None


def _initial_identity(init: str) -> dict[str, Any] | None:
    """The configuration of the run directory ``init``; None if it is none."""
    return read_config(Path(init))["identity"] if _is_run(init) else None


def _floor(path: Path, config: RunConfig, metrics: ImageMetrics, real: np.ndarray) -> Mapping[str, Any]:
    """The floor of a run that has none yet, before anything is made. Raises ConfigError for too few images."""
    if (path / "floor.json").exists():
        return {}
    try:
        few = {"n_splits": 2} if config.rehearsal else {}
        return shared_floor(metrics, real, seed=stage_seed(config.seed, 0, "floor"), **few)
    except ValueError as error:
        raise ConfigError(
            f"n_real = {len(real)} is not allowed: half of them are too few to be measured against the other half "
            f"({error}); take more"
        ) from error


def _keep_floor(run: Run, metrics: ImageMetrics, floor: Mapping[str, Any]) -> None:
    """Writes floor.json; if it is there, refuses another feature space than its own. Raises RunError."""
    if not (run.path / "floor.json").exists():
        write_json(run.path / "floor.json", sealed(floor))
    space = read_floor(run.path)["features"]
    if space != metrics.features.name:
        run.close()
        raise RunError(
            f"{run.path} measures its generations in the feature space {space!r}, not {metrics.features.name!r}; "
            "set features as before, or take another run_dir"
        )
