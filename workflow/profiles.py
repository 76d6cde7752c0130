"""A profile describes a sweep: seeds x arms, each a run of notebooks/retrain.ipynb, and the chapters that show it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from iterative_retraining.config import ConfigError, RunConfig, check_count, refuse_unknown
from iterative_retraining.metrics.features import FEATURES

KEYS = ("description", "seeds", "run", "arms", "chapters")
BESIDE_CONFIG = ("n_retrain", "model_options", "features", "features_weights", "data_dir")  # of a run, not its identity
RUN_KEYS = (*(f.name for f in fields(RunConfig) if f.name not in ("options", "init", "seed")), *BESIDE_CONFIG)


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep: its id, the parameters of its notebook, and the id of the run that trains its theta_0."""

    run_id: str
    parameters: Mapping[str, Any]
    init: str | None = None


@dataclass(frozen=True)
class Profile:
    """A loaded profile: `runs` by id, theta_0 of each seed first, and the parameters of each chapter."""

    name: str
    description: str
    runs: Mapping[str, PlannedRun]
    chapters: Mapping[str, Mapping[str, Any]]

    @property
    def arms(self) -> list[str]:
        """The ids of the runs that chapters show: all but those that only train theta_0."""
        return [run.run_id for run in self.runs.values() if run.init]


def load_profile(path: str | Path) -> Profile:
    """Reads and checks a profile. Raises ConfigError that names the file and what is wrong, before anything runs."""
    path = Path(path)
    if not path.is_file():
        others = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml"))) or "none"
        raise ConfigError(f"there is no profile {path.stem!r}; in {path.parent} there are: {others}")
    try:
        text = yaml.safe_load(path.read_text())
        refuse_unknown("key", text, KEYS)
        base = dict(text.get("run", {}))
        refuse_unknown("key of 'run'", base, RUN_KEYS)
        runs = {}
        for seed in text["seeds"]:
            start = _planned({**base, "scheme": "mix", "lam": 0.0, "n_retrain": 0, "seed": seed}, None)
            runs[start.run_id] = start
            for arm in text["arms"]:
                refuse_unknown("key of an arm", arm, RUN_KEYS)
                run = _planned({**base, **arm, "seed": seed}, start.run_id)
                runs[run.run_id] = run
        return Profile(path.stem, text["description"], runs, text.get("chapters") or {})
    except (ConfigError, KeyError, TypeError, yaml.YAMLError) as error:
        detail = f"key {error} is missing" if isinstance(error, KeyError) else error
        raise ConfigError(f"{path}: {detail}") from error


def _planned(parameters: dict[str, Any], init: str | None) -> PlannedRun:
    check_count("n_retrain", parameters.get("n_retrain"), "it counts retrainings")
    refuse_unknown("features", [parameters.get("features", "auto")], FEATURES)
    of_config = {k: v for k, v in parameters.items() if k not in BESIDE_CONFIG}
    options = parameters.get("model_options", {})
    config = RunConfig(**of_config, options=options, init=f"{init}@0" if init else "")
    return PlannedRun(config.run_id, parameters, init)
