"""A rehearsal: a run as it will be, cut to a few steps, with stand-ins for the files that are missing.

    python -m iterative_retraining -f params.yml --rehearsal
    snakemake sweep --cores all --config profile=paper/edm-cifar10 rehearsal=true

The network, the data, the feature space and the starting weights are those of the run where they are here. In the place
of missing data stand patches of photographs of the same size (`photos32`, `photos64`), of missing weights random ones
in the published layout, of a missing feature network one of Inception's shape. The process is killed within a fit and
goes on from its checkpoint. At the end `report` says what a step takes, what the run would take here, what is missing.
A rehearsal has "rehearsal" in its id and is never published.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from iterative_retraining.config import RunConfig, check_device
from iterative_retraining.datasets import DATASETS
from iterative_retraining.errors import ConfigError, RunError, UserError, shown
from iterative_retraining.metrics.features import AUTO, build_features
from iterative_retraining.models.gain import evaluations
from iterative_retraining.models.pretrained.stand_ins import write_stand_in
from iterative_retraining.retrain import N_PREVIEW
from iterative_retraining.runs.origin import init_identity
from iterative_retraining.runs.reading import FIT, read_ledger, read_manifest

STAND_INS = {(32, 32, 3): "photos32", (64, 64, 3): "photos64"}
RANDOM_FEATURES = "inception-random"
N_RETRAIN_KILLED = 2  # of the run that is killed: the time of a fit that went on from its middle says nothing of a step


@dataclass(frozen=True)
class Size:
    """How much of a run is rehearsed. options: overrides of the model's, of those that it has."""

    n_real: int
    n_steps: int
    n_retrain: int
    options: Mapping[str, Any]


# The least that every metric takes. A network of 56 million weights sees about one image a second here.
ON_CPU = Size(16, 3, 1, {"batch_size": 2, "sampling_batch_size": 8, "n_steps": 2, "tolerance": 1.0})
ON_GPU = Size(1024, 20, 2, {})  # batches and solver as in the run: that is what memory and speed depend on


@dataclass(frozen=True)
class Rehearsal:
    """The parameters of a rehearsal, for `open_experiment`, those of the run itself, and what it lacks, a line each."""

    parameters: Mapping[str, Any]
    full: Mapping[str, Any]
    missing: tuple[str, ...]


def rehearsal_of(parameters: Mapping[str, Any], folder: Path) -> Rehearsal:
    """How the run with these parameters of `open_experiment` is rehearsed; stand-ins for weights go into ``folder``.

    Raises ConfigError for parameters that are not allowed, and where nothing can stand in for what is missing.
    """
    own, missing = dict(parameters), []
    full = full_config(parameters)
    device = check_device(own.get("device", "auto"))
    size = ON_CPU if device == "cpu" else ON_GPU
    options = dict(full.options) | {key: value for key, value in size.options.items() if key in full.options}
    features = own.get("features", AUTO)
    features = full.data.features if features == AUTO else features
    why = _lacks_features(features, full.dataset, str(own.get("features_weights", "")))
    if why:
        missing.append(why)
        features, own["features_weights"] = RANDOM_FEATURES, ""
    why = _lacks_data(full.dataset, str(own.get("data_dir") or ""))
    if why:
        missing.append(why)
        own |= {"dataset": _stand_in(full), "data_dir": ""}
    if own.get("init"):
        why = _lacks_init(str(own["init"]))
        if why:
            missing.append(why)
            about = {"model": full.model, "item_shape": full.data.shape, "options": full.options}
            name = Path(own["init"]).name.partition(".")[0]
            own["init"] = str(write_stand_in(folder / f"rehearsal-{name}", **about))
    batch = options.get("batch_size", 1)
    n_real = min(full.n_real or size.n_real, size.n_real, DATASETS[own.get("dataset", full.dataset)].counts["train"])
    budgets = dict.fromkeys(("n_images_initial", "n_images_per_retraining"), size.n_steps * batch)
    own |= {"model_options": options, "features": features, "n_real": n_real, "rehearsal": True, **budgets}
    own |= {"n_retrain": min(own.get("n_retrain", size.n_retrain), size.n_retrain), "checkpoint_images": batch}
    return Rehearsal(own, dict(parameters), tuple(missing))


def full_config(parameters: Mapping[str, Any], init: str = "") -> RunConfig:
    """The configuration of a run with these parameters of `open_experiment`, whatever its starting weights, or with
    the identity ``init`` of them. Raises ConfigError."""
    names = {field.name for field in fields(RunConfig)} - {"options", "init"}
    of_config = {name: value for name, value in parameters.items() if name in names}
    return RunConfig(**of_config, options=parameters.get("model_options") or {}, init=init)


def _stand_in(config: RunConfig) -> str:
    if config.data.shape not in STAND_INS:
        raise ConfigError(
            f"the files of {config.dataset} are missing, and no data set of images {config.data.shape} is here"
        )
    return STAND_INS[config.data.shape]


@cache
def _lacks_data(dataset: str, data_dir: str) -> str:
    """Why the data cannot be had; "" if they can."""
    try:
        DATASETS[dataset].load("train", data_dir or None)
    except (UserError, OSError) as error:
        return str(error)
    return ""


@cache
def _lacks_features(name: str, dataset: str, weights: str) -> str:
    """Why the feature space cannot be had; "" if it can. Raises ConfigError for one that cannot be for these images."""
    try:
        build_features(name, dataset, weights=weights)
    except ConfigError:
        raise
    except UserError as error:
        return str(error)
    return ""


@cache
def _lacks_init(init: str) -> str:
    """Why there are no such weights; "" if there are."""
    try:
        init_identity(init)
    except ConfigError as error:
        return str(error)
    return ""


def kill_in_a_fit(parameters: Mapping[str, Any]) -> None:
    """Starts the run in a process of its own and kills it (SIGKILL) when the first checkpoint within a fit is there.

    Nothing happens if the run has a complete generation with a fit already. A model that leaves no checkpoint runs to
    its end. Raises RunError if the process fails.
    """
    folder = Path(parameters["run_dir"])
    if (folder / FIT).exists() or any(row["n_images"] for row in read_ledger(folder)):
        return
    arguments = [word for name, value in parameters.items() for word in ("-p", name, json.dumps(value))]
    command = [sys.executable, "-m", "iterative_retraining", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (folder / FIT).exists():
        time.sleep(0.01)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    _, error = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RunError(f"the rehearsal ended with exit status {process.returncode}: {error.strip()[-2000:]}")


@dataclass(frozen=True)
class Measured:
    """What a finished rehearsal in ``folder`` says of its run. Seconds a step are of batches of ``batch`` images."""

    rehearsal: Rehearsal
    folder: Path

    @property
    def cells(self) -> tuple[str, ...]:
        """A row of the table, without the id."""
        fit, sample = self._seconds()
        options, manifest = self.rehearsal.parameters["model_options"], read_manifest(self.folder)
        batch = options.get("batch_size", 1)
        names = ("peak_memory_bytes", "peak_device_memory_bytes")
        host, device = (max(attempt.get(name, 0) for attempt in manifest["attempts"]) / 1e9 for name in names)
        memory = f"{host:.1f} GB" + (f", GPU {device:.1f} GB" if device else "")
        killed = sum("outcome" not in attempt for attempt in manifest["attempts"])
        return f"{fit * batch:.3g} at {batch}", f"{sample:.3g}", memory, f"{self.hours():.3g}", f"{killed}"

    def _seconds(self) -> tuple[float, float]:
        """Of an image in training and of a sample with the solver of the run itself."""
        last = read_ledger(self.folder)[-1]  # neither the killed fit, nor shared samples of the first weights
        fit = last["seconds_fit"] / last["n_images"] if last["n_images"] else 0.0
        n = self.rehearsal.parameters["n_real"]
        sample = last["seconds_sample"] / self._drawn(n)
        full = full_config(self.rehearsal.full)
        shown, wanted = (_evaluations(full, options) for options in (self.rehearsal.parameters["model_options"], {}))
        return fit, sample * wanted / shown if shown and wanted else sample

    def _drawn(self, n: int) -> int:
        return max(n, full_config(self.rehearsal.full).built_scheme.n_samples(n)) + N_PREVIEW

    def hours(self) -> float:
        """Of all fits and all samples of the run itself on this machine, metrics not counted."""
        fit, sample = self._seconds()
        config, given = full_config(self.rehearsal.full), self.rehearsal.full
        n, n_retrain = config.n_real or config.data.counts["train"], given.get("n_retrain", 0)
        images = n_retrain * config.n_images_per_retraining + (0 if given.get("init") else config.n_images_initial)
        return (images * fit + (n_retrain + 1) * self._drawn(n) * sample) / 3600


def _evaluations(config: RunConfig, options: Mapping[str, Any]) -> int | None:
    """Of the network, a sample; None where a solver chooses or the model has no network."""
    if not hasattr(config.family, "configured"):
        return None
    process, _ = config.family.configured(config.data.shape, dict(config.options) | options)
    return evaluations(process)


def report(measured: Mapping[str, Measured]) -> str:
    """What the rehearsals, by run id, say of their runs, as Markdown."""
    missing = dict.fromkeys(line for one in measured.values() for line in one.rehearsal.missing)
    device = next((read_manifest(one.folder)["attempts"][-1]["hardware"] for one in measured.values()), {})
    lines = [
        f"## Rehearsal on {device.get('name', 'nothing')}, {device.get('threads', 0)} threads",
        "",
        "| rehearsal | seconds a step | seconds a sample | memory, at most | hours of the whole run | times killed |",
        "|---|---|---|---|---|---|",
        *(f"| {run_id} | {' | '.join(one.cells)} |" for run_id, one in measured.items()),
        "",
        f"All runs, one after another: {sum(one.hours() for one in measured.values()):.3g} hours of training and "
        "sampling here. Metrics at the size of the run are not in it. A first step is slower than later ones.",
        "",
        *(
            ["Missing, and stood in for:", "", *(f"- {line}" for line in missing)]
            if missing
            else ["Nothing is missing."]
        ),
    ]
    return "\n".join(lines)


def rehearse(parameters: Mapping[str, Any]) -> Rehearsal:
    """Makes the rehearsal of one run ready, kills it within a fit, and returns it to be gone on with."""
    folder = Path("runs") / "rehearsal"
    found = rehearsal_of(parameters, folder)
    n_retrain = min(parameters.get("n_retrain", N_RETRAIN_KILLED), N_RETRAIN_KILLED)
    found = Rehearsal({**found.parameters, "n_retrain": n_retrain}, found.full, found.missing)
    if not found.parameters.get("run_dir"):
        init = found.parameters.get("init")
        run_id = full_config(found.parameters, init_identity(init) if init else "").run_id
        found = Rehearsal({**found.parameters, "run_dir": str(folder / run_id)}, found.full, found.missing)
    kill_in_a_fit(found.parameters)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line: `kill_in_a_fit` of the parameters that it gives, for the Snakefile. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m iterative_retraining.rehearsal",
        description="Starts a run and kills it within its first fit, as the Snakefile does in a rehearsal. A rehearsal "
        "of one run: python -m iterative_retraining --rehearsal",
    )
    parser.add_argument("parameters", metavar="JSON", help="parameters of the run, run_dir among them, as JSON")
    text = parser.parse_args(arguments).parameters
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{shown(text)} is not allowed: it is no JSON ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("run_dir"), str):
        raise ConfigError(f"{shown(text)} is not allowed: it maps parameters of a run to values, run_dir among them")
    kill_in_a_fit(values)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
