"""Has the code changed since? Answered by doing: the first generations of published runs, run again by the code here.

python -m iterative_retraining.reproduce results/* --generations 1

A ledger line holds the SHA-256 of weights and samples, so equal lines are equal weights. A run that comes out the same
gets an entry under ``reproduced`` in its manifest, which `iterative_retraining.status` reads. Another outcome need not
come from the code: another processor or PyTorch rounds otherwise. To tell, run the published commit here as well.
"""

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iterative_retraining.config import RunConfig, check_count
from iterative_retraining.errors import ConfigError, RunError, UserError
from iterative_retraining.experiment import Experiment, open_experiment
from iterative_retraining.runs.directory import read_config, read_ledger
from iterative_retraining.runs.provenance import add_reproduced, data_sha256, read_manifest
from iterative_retraining.runs.publishing import CRATE, software, write_crate
from iterative_retraining.runs.source import definitions, source_sha256

HASHES = ("checkpoint_sha256", "samples_sha256")


class OtherRunError(ConfigError):
    """The code here makes another run of a published configuration, as it does of those of earlier versions."""


@dataclass(frozen=True)
class Published:
    """A run as published: configuration, manifest, ledger, and the identity of the run that trains its theta_0, None
    if it does so itself."""

    path: Path
    identity: Mapping[str, Any]
    manifest: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    initial: Mapping[str, Any] | None

    @property
    def run_id(self) -> str:
        """The name of the run, from its manifest."""
        return self.manifest["run_id"]


@dataclass(frozen=True)
class Comparison:
    """A generation run again: of every value of the published ledger line that came out otherwise, by key, the one
    published and the one here (None: not measured any more). Wall times, and what only the code here measures, do not
    count."""

    generation: int
    differing: Mapping[str, tuple[Any, Any]]

    @classmethod
    def of(cls, published: Mapping[str, Any], here: Mapping[str, Any]) -> "Comparison":
        """Compares two ledger lines of one generation; the hashes come first among what differs."""
        keys = sorted(published, key=lambda key: key not in HASHES)
        pairs = {key: (published[key], here.get(key)) for key in keys if not key.startswith("seconds_")}
        return cls(published["generation"], {key: (old, new) for key, (old, new) in pairs.items() if old != new})

    @property
    def same_weights(self) -> bool:
        """Whether weights and samples are those published."""
        return not set(HASHES) & set(self.differing)

    def __str__(self) -> str:
        if not self.differing:
            return f"generation {self.generation}: equal"
        what = "weights differ"
        if self.same_weights:
            most = max(math.inf if new is None else abs(new - old) for old, new in self.differing.values())
            what = f"weights equal, metrics differ by up to {most:.3g}"
        key, (old, new) = next(iter(self.differing.items()))
        return f"generation {self.generation}: {what} ({key}: published {old}, here {new}; keys: {len(self.differing)})"


def read_published_run(path: str | Path, generations: int, n_images_initial: int | None = None) -> Published:
    """The run in ``path``, checked: the code here can run it again up to generation ``generations``.

    ``n_images_initial``: training budget of its theta_0, where the manifest does not record the run that trained it.
    Raises RunError if the ledger is too short, ConfigError if configuration or theta_0 cannot be made again, of which
    OtherRunError if it is the configuration of another run now.
    """
    path, config = Path(path), read_config(Path(path))
    identity, manifest, rows = config["identity"], read_manifest(path), read_ledger(path)
    if len(rows) <= generations:
        needed = f"generations = {generations} compares {generations + 1}; set a smaller --generations"
        raise RunError(f"{path} holds {len(rows)} complete generations, and {needed}")
    here = RunConfig.of_identity(identity).run_id
    if here != config["run_id"]:
        raise OtherRunError(f"{path}: the code here makes another run of this configuration, {here}")
    initial = _initial(path, identity, manifest, n_images_initial) if identity["init"] else None
    return Published(path, identity, manifest, rows[: generations + 1], initial)


def _initial(
    path: Path, identity: Mapping[str, Any], manifest: Mapping[str, Any], n_images_initial: int | None
) -> dict[str, Any]:
    """The identity of the run whose weights ``path`` starts from; its hash tells whether it is the right one."""
    run_id, _, generation = identity["init"].rpartition("@")
    if not generation.isdigit():
        raise ConfigError(f"{path} starts from the file of weights {identity['init']}, which cannot be trained again")
    found = manifest.get("initial_identity")
    if found is None:
        found = {**identity, "scheme": "mix", "lam": 0.0, "init": ""}
        if n_images_initial is not None:
            found["n_images_initial"] = n_images_initial
    elif found["init"]:
        raise ConfigError(f"{path} starts from {run_id}, and that from {found['init']}; so far back nothing is run")
    config = RunConfig.of_identity(found)
    if config.run_id != run_id:
        raise ConfigError(
            f"{path} starts from {run_id}, which n_images_initial = {config.n_images_initial} does not make (that is "
            f"{config.run_id}); set --n-images-initial to the budget of its theta_0"
        )
    return found


def reproduce(run: Published, folder: Path, **beside: Any) -> Iterator[Comparison]:
    """Runs ``run`` again in ``folder``, and the run of its theta_0 unless that is there; yields generation by
    generation how they compare, up to the first with other weights. If all are equal, an entry goes into the manifest.

    Device and number of threads are those published. ``beside``: what else `open_experiment` takes, such as data_dir.
    Raises RunError if the real images are others, and what `open_experiment` raises.
    """
    hardware = run.manifest["attempts"][0]["hardware"]
    torch.set_num_threads(hardware["threads"])
    beside = {"device": hardware["device"], **beside}
    init = ""
    if run.initial is not None:
        init = folder / run.identity["init"]
        start = _open(run.initial, init, n_retrain=int(init.name.rpartition("@")[2]), **beside)
        for _ in start.records():
            pass
        start.run.close()
    again = folder / run.run_id
    again.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "floor.json"):  # another configuration or feature space is refused at once
        shutil.copyfile(run.path / name, again / name)
    experiment = _open(run.identity, again, n_retrain=len(run.rows) - 1, init=str(init), **beside)
    try:
        yield from _compare(run, experiment)
    finally:
        experiment.run.close()


def _open(identity: Mapping[str, Any], folder: Path, *, init: str = "", **beside: Any) -> Experiment:
    parameters = {key: value for key, value in identity.items() if value is not None and key not in ("options", "init")}
    return open_experiment(**parameters, model_options=identity["options"], init=init, run_dir=folder, **beside)


def _compare(run: Published, experiment: Experiment) -> Iterator[Comparison]:
    if data_sha256(experiment.real) != run.manifest["real_sha256"]:
        raise RunError(f"{run.path}: its real images (SHA-256 {run.manifest['real_sha256']}) are not those here")
    equal = True
    with closing(experiment.records()) as records:
        for record in records:
            found = Comparison.of(run.rows[record.generation], experiment.run.rows[record.generation])
            equal = equal and not found.differing
            yield found
            if not found.same_weights:
                return
    if equal:
        add_reproduced(run.path, experiment.run.path, len(run.rows) - 1)
        if (run.path.parent / CRATE).is_file():
            write_crate(run.path.parent)  # it holds the hash of the manifest


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 1 if a run did not come out as published."""
    parser = argparse.ArgumentParser(prog="python -m iterative_retraining.reproduce", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="published run directories; what is none is passed over")
    parser.add_argument("--generations", type=int, default=1, metavar="K", help="up to generation K (1)")
    parser.add_argument("--n-images-initial", type=int, metavar="N", help="budget of theta_0, where none is recorded")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the runs made here in DIR, and go on with them")
    for name in ("device", "data-dir", "features", "features-weights"):
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, help="as for a run")
    given = vars(parser.parse_args(arguments))
    paths, keep = given.pop("runs"), given.pop("keep")
    k = check_count("generations", given.pop("generations"), "it counts retrainings")
    n_images_initial = given.pop("n_images_initial")
    found = [path for path in paths if (path / "config.json").exists()]
    others = [str(path) for path in paths if path not in found]
    if not found:
        raise RunError(f"no run directory among {', '.join(others)}: none has a config.json")
    if others:
        print(f"passed over, no run directories: {', '.join(others)}", flush=True)
    runs = _checked(found, k, n_images_initial)
    with tempfile.TemporaryDirectory() as temporary:
        source = source_sha256(definitions())  # what other code has made is not gone on with
        folder = (keep or Path(temporary)) / source[:10]
        equal = [_report(run, folder, given) for run in runs]
    return int(not all(equal))


def _checked(paths: Sequence[Path], generations: int, n_images_initial: int | None) -> list[Published]:
    """`read_published_run` of all, before the first is run; what is another run now is named and passed over, unless
    nothing is left."""
    runs: list[Published] = []
    others: list[OtherRunError] = []
    for path in paths:
        try:
            runs.append(read_published_run(path, generations, n_images_initial))
        except OtherRunError as error:
            others.append(error)
    if not runs:
        raise others[0]
    for error in others:
        print(f"passed over, {error}", flush=True)
    return runs


def _report(run: Published, folder: Path, beside: Mapping[str, Any]) -> bool:
    """Runs a run again and prints a line a generation. Returns whether all were equal."""
    found = []
    for comparison in reproduce(run, folder, **beside):
        print(f"{run.run_id}, {comparison}", flush=True)
        found.append(not comparison.differing)
    if not all(found):
        attempts = run.manifest["attempts"][0], read_manifest(folder / run.run_id)["attempts"][-1]
        print("published by {}\nhere by {}".format(*map(software, attempts)), flush=True)
    return all(found)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
