"""Measures again without training again: the kept generations of runs, in another feature space or by other settings.

    python -m iterative_retraining.remeasure runs/cpu/* --k 10
    python -m iterative_retraining.remeasure RUN --features inception-legacy_pytorch --features-weights FILE

A generation is measured from its kept samples, or they are drawn again from its kept weights by their seed, and have to
have the SHA-256 that the ledger names. What is measured goes into a ledger beside the old one, ledger-NAME.jsonl, with
a floor of its own, floor-NAME.json, and what made them, manifest-NAME.json; the run itself stays as it is. The same
command goes on where it was stopped, and adds what the run has gained since. `read_runs(paths, NAME)` and
`read_floor(path, NAME)` read it.
"""

import argparse
import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iterative_retraining.config import RunConfig, check_device
from iterative_retraining.datasets import load_dataset
from iterative_retraining.datasets.rare import rows_with_rare
from iterative_retraining.errors import ConfigError, RunError, UserError
from iterative_retraining.files import append_line, cut_torn_line, data_sha256, sealed, write_json
from iterative_retraining.metrics import METRICS, ImageMetrics
from iterative_retraining.metrics.features import AUTO, build_features
from iterative_retraining.runs.locks import lock
from iterative_retraining.runs.provenance import measured_here
from iterative_retraining.runs.reading import (
    file_of,
    named,
    read_config,
    read_ledger,
    read_manifest,
    read_measurement,
    samples_of,
    state_of,
)
from iterative_retraining.seeding import stage_seed

OF_ROW = ("generation", "n_images", "n_real", "n_synthetic", "seconds_fit", "seconds_sample")
SETTINGS = ("k", "k_density")


@dataclass(frozen=True)
class Asked:
    """What a measurement is to be. name: "" for one made of the features and the settings; generations: () for all."""

    features: str = AUTO
    features_weights: str = ""
    data_dir: str = ""
    device: str = "auto"
    name: str = ""
    generations: Sequence[int] = ()
    settings: Mapping[str, Any] | None = None


def remeasure(path: str | Path, asked: Asked) -> Iterator[dict[str, Any]]:
    """Measures what is kept of the run in ``path`` and not yet measured so; yields the new ledger's lines.

    Raises RunError for a run that is in use, keeps nothing to measure, or has another measurement of that name or other
    real images than are here; ConfigError for a feature space or settings that cannot be had.
    """
    path, rows = Path(path), read_ledger(path)
    chosen, identity = _chosen(path, rows, asked.generations), read_config(path)["identity"]
    settings, device = dict(asked.settings or {}), check_device(asked.device)
    real, test = _images(path, identity, asked.data_dir)
    try:
        space = build_features(asked.features, identity["dataset"], weights=asked.features_weights, device=device)
        name = _name(asked.name or "-".join([space.name, *(f"{key}{value}" for key, value in settings.items())]))
        metrics = ImageMetrics(space, test=test, device=device, **settings)
        about = {"run_id": read_config(path)["run_id"], "features": space.name, "settings": settings}
        about |= {"metrics": metrics.names(real), "real_sha256": data_sha256(real)}
        has_floor = named(path, "floor.json", name).exists()
        floor = None if has_floor else metrics.floor(real, seed=stage_seed(identity["seed"], 0, "floor"))
    except (ValueError, TypeError, UserError) as error:
        raise ConfigError(str(error)) from error
    held = lock(path)
    try:
        _open(path, name, about, device)
        if floor is not None:
            write_json(named(path, "floor.json", name), sealed(floor))
        ledger = named(path, "ledger.jsonl", name)
        length = cut_torn_line(ledger)
        done = {row["generation"] for row in read_ledger(path, name)}
        for row in chosen:
            if row["generation"] not in done:
                new = _measured(path, row, metrics, real)
                length = append_line(ledger, new, length)
                yield new
    finally:
        held.release()


def _measured(path: Path, row: Mapping[str, Any], metrics: ImageMetrics, real: np.ndarray) -> dict[str, Any]:
    """The new line of a generation: what the old one says of its training, and the new values."""
    samples, start = _samples(path, row, len(real)), time.perf_counter()
    values = dict(metrics(samples[: len(real)], real=real))
    seconds = {"seconds_metrics": time.perf_counter() - start}
    digests = {key: row[key] for key in ("checkpoint_sha256", "samples_sha256")}
    return {key: row[key] for key in OF_ROW} | values | seconds | digests


def _chosen(path: Path, rows: Sequence[Mapping[str, Any]], generations: Sequence[int]) -> list[Mapping[str, Any]]:
    """The ledger lines of the generations that can be measured, all or those asked for. Raises RunError."""
    kept = [t for t in range(len(rows)) if any(file_of(path, kind, t).is_file() for kind in ("samples", "checkpoint"))]
    missing = sorted(set(generations) - set(kept))
    if missing or not kept:
        what = f"of generation {missing[0]}" if missing else f"of any of its {len(rows)} generations"
        there = f"; kept are {', '.join(map(str, kept))}" if kept else ""
        raise RunError(
            f"{path} keeps neither samples nor weights {what}{there}. keep_samples and keep_every say of which "
            "generations they are kept, before a run; published runs keep none: run it again, with the same parameters"
        )
    return [rows[t] for t in sorted(set(generations) or kept)]


def _images(path: Path, identity: Mapping[str, Any], data_dir: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The real images of the run, compared with those that it began with, and the held-out ones. Raises RunError."""
    if identity.get("selector"):
        raise RunError(
            f"{path} keeps the samples that its selector {identity['selector']!r} chose, not those that were measured, "
            "so it cannot be measured again"
        )
    real, labels = (a[: identity.get("n_real") or None] for a in load_dataset(identity["dataset"], data_dir or None))
    if "rare_class" in identity:
        real = real[rows_with_rare(labels, identity["rare_class"], identity["rare_share"])]
    began = read_manifest(path).get("real_sha256")
    if began != data_sha256(real):
        raise RunError(f"{path} was made with other real images (SHA-256 {began}); set --data-dir as it was then")
    try:
        return real, load_dataset(identity["dataset"], data_dir or None, "test")[0]
    except ConfigError:  # it has no held-out images
        return real, None


def _name(name: str) -> str:
    if not re.fullmatch(r"[\w.-]{1,100}", name):
        raise ConfigError(
            f"name = {name!r} is not allowed: letters, digits, and any of . _ - (it is part of file names)"
        )
    return name


def _open(path: Path, name: str, about: Mapping[str, Any], device: str) -> None:
    """Adds this attempt to manifest-NAME.json. Raises RunError if it is of another measurement."""
    found = read_measurement(path, name) if named(path, "manifest.json", name).exists() else {**about, "attempts": []}
    differing = [key for key in about if found.get(key) != about[key]]
    if differing:
        key = differing[0]
        raise RunError(
            f"{path} holds a measurement {name!r} of another kind ({key}: there {found.get(key)!r}, asked for "
            f"{about[key]!r}); choose another --name"
        )
    found["attempts"].append(measured_here(device))
    write_json(named(path, "manifest.json", name), sealed(found))


def _samples(path: Path, row: Mapping[str, Any], n_real: int) -> np.ndarray:
    """The samples of a generation: the kept ones, or drawn again. Raises RunError if those are others."""
    if file_of(path, "samples", row["generation"]).is_file():
        return samples_of(path, row)
    draw, made_by = _sampler(path, row, n_real)
    samples = draw()
    if _file_sha256(samples) != row["samples_sha256"]:
        raise RunError(
            f"{path}: the samples of generation {row['generation']}, drawn again from its weights, are not those of "
            f"the run: the code, PyTorch or the machine has changed since ({made_by}); only kept samples can be "
            "measured then (keep_samples)"
        )
    return samples


def _sampler(path: Path, row: Mapping[str, Any], n_real: int) -> tuple[Callable[[], np.ndarray], str]:
    """What draws the samples of a generation from its weights as the run did, and on what the run did."""
    t, identity = row["generation"], read_config(path)["identity"]
    attempts = [one for one in read_manifest(path)["attempts"] if one["first_generation"] <= t]
    machine = attempts[-1]["hardware"]
    torch.set_num_threads(machine["threads"])  # as many as then: they decide how sums are rounded
    config = RunConfig.of_identity(identity)
    device = check_device(machine["device"].partition(":")[0])
    shape = config.data.shape
    model = config.family.build(shape, config.options, device=device)
    model.load_state_dict(state_of(path, row))
    n, latents = max(n_real, config.built_scheme.n_samples(n_real)), 0 if config.latents == "fixed" else t
    draw = partial(model.sample, n, seed=stage_seed(config.seed, latents, "sample"))
    torch_then = attempts[-1]["packages"].get("torch")
    return draw, f"then PyTorch {torch_then} on {machine['name']}, {machine['threads']} threads"


class _Digest:
    """A file that keeps the SHA-256 of what is written, and nothing else."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Takes the next bytes."""
        self.sha256.update(content)
        return len(content)


def _file_sha256(samples: np.ndarray) -> str:
    """The SHA-256 of the file that a run keeps of ``samples``."""
    file = _Digest()
    np.save(file, samples, allow_pickle=False)
    return file.sha256.hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; a line for each generation measured. Raises UserError."""
    parser = argparse.ArgumentParser(
        prog="python -m iterative_retraining.remeasure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--name", default="", help="of the measurement; by default made of features and settings")
    parser.add_argument("--generations", type=int, nargs="+", default=[], metavar="T", help="only these")
    for name in ("features", "features-weights", "data-dir", "device"):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help="as for a run")
    for name in SETTINGS:
        of = ", ".join(metric for metric, kind in METRICS.items() if name in kind.__dataclass_fields__)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"neighbours of {of}")
    given = vars(parser.parse_args(arguments))
    runs = given.pop("runs")
    settings = {name: value for name in SETTINGS if (value := given.pop(name)) is not None}
    asked = Asked(settings=settings, **given)
    for run in runs:
        if not (run / "config.json").exists():
            raise RunError(f"{run} is no run directory: it has no config.json")
    for run in runs:
        for row in remeasure(run, asked):
            shown = ", ".join(f"{key} {row[key]:.4g}" for key in ("fid", "precision", "recall") if key in row)
            print(f"{run}, generation {row['generation']}: {shown}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
