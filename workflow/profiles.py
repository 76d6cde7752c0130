"""A profile describes a sweep: seeds x arms, each a run of notebooks/retrain.ipynb, and the chapters that show it."""

import difflib
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import yaml

from iterative_retraining.config import OF_SELECTION, RunConfig, check_count, refuse_unknown
from iterative_retraining.errors import ConfigError
from iterative_retraining.metrics.features import AUTO, FEATURES, check_resizing
from iterative_retraining.models.checkpoints import check_minutes
from iterative_retraining.models.graphs import check_graphs
from iterative_retraining.models.memory import check_micro_batch
from iterative_retraining.models.paths import SAMPLER_OPTIONS
from iterative_retraining.parameters import PATHS, load_yaml
from iterative_retraining.runs.origin import init_identity

KEYS = ("description", "seeds", "run", "arms", "chapters", "resources")
# Of a run, but not of its identity.
BESIDE_CONFIG = (
    "n_retrain", "model_options", "features", "features_resizing", "keep_every", "keep_samples", "checkpoint_images",
    "checkpoint_minutes", "micro_batch", "cuda_graphs", *PATHS,
)  # fmt: skip
NOT_GIVEN = ("options", "init", "seed", "rehearsal")
RUN_KEYS = (*(f.name for f in fields(RunConfig) if f.name not in NOT_GIVEN), *BESIDE_CONFIG)
Change = Callable[[Mapping[str, Any]], dict[str, Any]]
RESOURCES = {
    "threads": "threads of a run",
    "mem_mb": "memory of a run in MB",
    "runtime": "minutes of a run",
    "gpus_per_run": "GPUs that one run is split over, by torchrun",
}
THETA_0 = {"scheme": "mix", "lam": 0.0, "n_retrain": 0}
# Arms that differ in these alone share one theta_0.
NOT_OF_THETA_0 = (*THETA_0, *OF_SELECTION, "n_images_per_retraining", "latents")


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep: its id, the parameters of its notebook, and the id of the run that trains its theta_0, if one
    does; a run whose parameter ``init`` is a file or a run directory starts from that. ``start`` is what names what it
    starts from, whichever it is, "" if it trains its theta_0."""

    run_id: str
    parameters: Mapping[str, Any]
    init: str | None = None
    start: str = ""

    @property
    def config(self) -> RunConfig:
        """The configuration that the notebook makes of the parameters."""
        of_config = {key: value for key, value in self.parameters.items() if key not in BESIDE_CONFIG}
        return RunConfig(**of_config, options=self.parameters.get("model_options", {}), init=self.start)


Identity = Callable[[str], str]  # of the parameter ``init``: what names the weights there
_identity = cache(init_identity)  # a file of weights is read whole once, whatever the number of its arms


@dataclass(frozen=True)
class Profile:
    """A loaded profile: `runs` by id, each theta_0 before its arms, the parameters of each chapter, and the resources
    of a run: threads, and mem_mb, runtime (minutes) and gpus_per_run if they are given."""

    name: str
    description: str
    runs: Mapping[str, PlannedRun]
    chapters: Mapping[str, Mapping[str, Any]]
    resources: Mapping[str, int]

    @property
    def arms(self) -> list[str]:
        """The ids of the runs that chapters show: all but those that only train theta_0."""
        return [run.run_id for run in self.runs.values() if run.init or run.parameters.get("init")]


def load_profile(path: str | Path, *, identity: Identity = _identity, change: Change = dict) -> Profile:
    """Reads and checks a profile. Raises ConfigError that names file, line and key, before anything runs.

    identity: what names the weights that runs start from; a planner can do without the files. change: makes other
    parameters of those of each run, before they are checked.
    """
    path = Path(path)
    if not path.is_file():
        found = [*path.parent.glob("*.yml"), *path.parent.glob("*/*.yml")]
        others = sorted(p.relative_to(path.parent).with_suffix("").as_posix() for p in found)
        close = difflib.get_close_matches(path.stem, others, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(
            f"there is no profile {path.stem!r}; in {path.parent} there are: {', '.join(others) or 'none'}{hint}"
        )
    file = replace(_File.read(path), identity=identity)
    text = file.mapping((), "key", KEYS, optional=False)
    for key in ("description", "seeds", "arms"):
        if key not in text:
            raise ConfigError(f"{path}: key {key!r} is missing")
    if not isinstance(text["description"], str):
        file.refuse(f"description = {text['description']!r} is not allowed: it is text", "description")
    resources = {"threads": 1} | file.mapping(("resources",), "key of 'resources'", tuple(RESOURCES))
    for key, value in resources.items():
        if type(value) is not int or value < 1:
            file.refuse(f"{key} = {value!r} is not allowed: {RESOURCES[key]}, a whole number >= 1", "resources", key)
    return Profile(path.stem, text["description"], _runs(file, change), _chapters(file), resources)


@dataclass(frozen=True)
class _File:
    """The values of a YAML file, and the line of every key and list item by its place, e.g. ("arms", 0, "lam")."""

    path: Path
    values: Any
    lines: Mapping[tuple, int]
    identity: Identity = _identity

    @classmethod
    def read(cls, path: Path) -> "_File":
        """Raises ConfigError for what is not YAML, and for a key that is there twice."""
        try:
            values, root = load_yaml(path.read_text(encoding="utf-8"))
            lines: dict[tuple, int] = {}
            if root is not None:
                lines[()] = root.start_mark.line + 1
                _note_lines(root, (), lines, set())
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: this is not the YAML of a profile: {error}") from error
        if root is None:
            raise ConfigError(f"{path} is empty; a profile has the keys {', '.join(KEYS)}")
        return cls(path, values, lines)

    def refuse(self, message: object, *place: str | int) -> NoReturn:
        """Raises ConfigError with the line of ``place``, or of the nearest that has one around it."""
        while place not in self.lines:
            place = place[:-1]
        raise ConfigError(f"{self.path}, line {self.lines[place]}: {message}")

    def at(self, place: tuple) -> Any:
        """The value at ``place``; None if there is none."""
        value = self.values
        for key in place:
            value = value[key] if isinstance(value, list) else value.get(key)
        return value

    def mapping(
        self, place: tuple, name: str, allowed: Collection[str] | None = None, *, optional: bool = True
    ) -> dict[str, Any]:
        """The mapping at ``place``, {} if an optional one is not there; other values and unknown keys are refused."""
        value = self.at(place)
        if value is None and optional:
            return {}
        if not isinstance(value, dict):
            what = f"{_words(place)} = {value!r}" if place else f"{value!r}"
            self.refuse(f"{what} is not allowed: a mapping of keys to values belongs here", *place)
        for key in value:
            try:
                refuse_unknown(name, [key], allowed or [str(key)])
            except ConfigError as error:
                self.refuse(error, *place, key)
        return value

    def items(self, key: str) -> list[Any]:
        """The list of ``key``; other values, and a list of nothing, are refused."""
        value = self.at((key,))
        if not isinstance(value, list) or not value:
            self.refuse(f"{key} = {value!r} is not allowed: it is a list of at least one", key)
        return value


def _words(place: tuple) -> str:
    """A place as a reader would say it: arms[0].lam."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _note_lines(node: yaml.Node, place: tuple, lines: dict, seen: set[int]) -> None:
    """Adds the lines of all keys and list items below ``node``."""
    if id(node) in seen:  # an alias of a node that was visited, perhaps of one around it
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[*place, i] = item.start_mark.line + 1
            _note_lines(item, (*place, i), lines, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            lines[*place, name] = key.start_mark.line + 1
            _note_lines(value, (*place, name), lines, seen)


def _chapters(file: _File) -> dict[str, dict[str, Any]]:
    chapters = {}
    for name in file.mapping(("chapters",), "chapter"):
        chapters[name] = file.mapping(("chapters", name), f"key of chapter {name!r}")
        try:
            json.dumps(chapters[name])  # the way they go to the notebook
        except (TypeError, ValueError, RecursionError) as error:
            file.refuse(f"chapters.{name} cannot be handed to a notebook: {error}", "chapters", name)
    return chapters


def _seeds(file: _File) -> list[int]:
    seeds = file.items("seeds")
    seen = set()
    for i, seed in enumerate(seeds):
        try:
            check_count("seed", seed, "it names the run's random numbers")
        except (ConfigError, ValueError) as error:
            file.refuse(error, "seeds", i)
        if seed in seen:
            file.refuse(f"seed = {seed} is there twice", "seeds", i)
        seen.add(seed)
    return seeds


def _arms(file: _File) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every arm, with its number in the file: a list as the value of a key stands for one arm of each of its items."""
    for i in range(len(file.items("arms"))):
        arm = file.mapping(("arms", i), "key of an arm", RUN_KEYS, optional=False)
        for key, value in arm.items():
            if value == []:
                file.refuse(f"{key} = [] is not allowed: a list stands for one arm or more", "arms", i, key)
        choices = [value if isinstance(value, list) else [value] for value in arm.values()]
        for values in itertools.product(*choices):
            yield i, dict(zip(arm, values, strict=True))


def _runs(file: _File, change: Change) -> dict[str, PlannedRun]:
    """Every seed of every arm, and theta_0 of each: the arm without retraining, once where arms share it, as those do
    that differ in their sampler alone. An arm with ``init`` has its theta_0."""
    base = file.mapping(("run",), "key of 'run'", RUN_KEYS)
    seeds, arms, runs, numbers = _seeds(file), list(_arms(file)), {}, {}
    for k, seed in enumerate(seeds):
        for i, arm in arms:
            parameters, start = change({**base, **arm, "seed": seed}), None
            if not parameters.get("init"):
                initial = {key: value for key, value in arm.items() if key not in NOT_OF_THETA_0}
                if isinstance(options := initial.get("model_options"), dict):
                    trained = {name: value for name, value in options.items() if name not in SAMPLER_OPTIONS}
                    initial["model_options"] = trained
                plain = {key: value for key, value in base.items() if key not in OF_SELECTION}
                theta_0 = _planned(file, change({**plain, **initial, **THETA_0, "seed": seed}), None, i, k)
                start = runs.setdefault(theta_0.run_id, theta_0).run_id
            run = _planned(file, parameters, start, i, k)
            if run.run_id in numbers:
                first = file.lines["arms", numbers[run.run_id]]
                file.refuse(f"this arm plans {run.run_id} again; the arm of line {first} does already", "arms", i)
            runs[run.run_id], numbers[run.run_id] = run, i
    return runs


def _planned(file: _File, parameters: dict[str, Any], init: str | None, arm: int, seed: int) -> PlannedRun:
    """A run, checked; what is wrong is refused at the line of its key in the arm, in 'run' or among the seeds."""
    try:
        _check_beside_config(parameters)
        given = parameters.get("init")
        start = f"{init}@0" if init else file.identity(given) if given else ""
        run_id = PlannedRun("", parameters, init, start).config.run_id
    except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
        message = str(error)
        option = re.match(r"unknown option '(.*?)'", message)
        named = re.match(r"(?:unknown )?(\w+)", message)
        key = "model_options" if option else named[1] if named else ""
        inside = (option[1],) if option else ()
        if key == "seed":
            file.refuse(message, "seeds", seed)
        if key not in file.at(("arms", arm)) and key in (file.at(("run",)) or {}):
            file.refuse(message, "run", key, *inside)
        file.refuse(message, "arms", arm, key, *inside)
    return PlannedRun(run_id, parameters, init, start)


def _check_beside_config(parameters: Mapping[str, Any]) -> None:
    if "n_retrain" not in parameters:
        raise ConfigError("key 'n_retrain' is missing, in the arm and in 'run'")
    check_count("n_retrain", parameters["n_retrain"], "it counts retrainings")
    refuse_unknown("features", [parameters.get("features", AUTO)], (AUTO, *FEATURES))
    for name, of in (("keep_every", "generations"), ("keep_samples", "generations"), ("checkpoint_images", "images")):
        check_count(name, parameters.get(name, 0), f"it counts {of}")
    check_resizing(parameters.get("features_resizing", AUTO))
    check_minutes(parameters.get("checkpoint_minutes", "auto"))
    check_micro_batch(parameters.get("micro_batch", "auto"))
    check_graphs(parameters.get("cuda_graphs", False))
    for name in PATHS:
        if not isinstance(parameters.get(name, ""), str):
            raise ConfigError(f"{name} = {parameters[name]!r} is not allowed: it is a path, as text")
    if not isinstance(parameters.get("model_options", {}), dict):
        raise ConfigError(f"model_options = {parameters['model_options']!r} is not allowed: it maps options to values")
