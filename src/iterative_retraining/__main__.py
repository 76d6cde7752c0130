"""One run of Algorithm 1 from the command line, with the parameters of ``notebooks/retrain.ipynb``.

    python -m iterative_retraining -p scheme fully_synthetic -p seed 3 -p run_dir somewhere

For a run by several processes, each with a device of its own:

    torchrun --nproc-per-node 4 -m iterative_retraining -f params.yml -p lam 0.5 -p run_dir somewhere

``--rehearsal``: the run is not made but rehearsed in a few steps, with stand-ins for missing files, a kill and a
resumption; a table at the end says what it will take here (`iterative_retraining.rehearsal`).

A notebook has one process, so papermill cannot start these. The run directory is the same, and either goes on with it.
Without parameters it is the run of the notebook's defaults. SIGTERM ends it with exit status 143, Ctrl-C with 130.
"""

import argparse
import inspect
import signal
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import ConfigError, UserError, refuse_unknown
from iterative_retraining.experiment import open_experiment
from iterative_retraining.parameters import PATHS, check_text, load_yaml, parse_value
from iterative_retraining.rehearsal import Measured, rehearse, report
from iterative_retraining.runs.attempts import Terminated
from iterative_retraining.runs.progress import ProgressDisplay, opening_lines, tensorboard_writer

OF_CONFIG = [f.name for f in fields(RunConfig) if f.name not in ("options", "init")]
NAMES = [*(name for name in inspect.signature(open_experiment).parameters if name != "parameters"), *OF_CONFIG]


def parameters(arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters that a command line gives: those of the file, then those given one by one, see `parse_value`.

    Raises ConfigError if the file cannot be read or is no mapping, and for a name that does not exist.
    """
    parser = argparse.ArgumentParser(
        prog="python -m iterative_retraining",
        description=__doc__,
        epilog=f"Parameters, explained in notebooks/retrain.ipynb: {', '.join([*NAMES, 'tensorboard_dir'])}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-f", "--file", type=Path, help="parameters as YAML")
    parser.add_argument("--rehearsal", action="store_true", help="a few steps, to see whether the run will work")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    given = parser.parse_args(arguments)
    try:
        values = load_yaml(given.file.read_text(encoding="utf-8"))[0] if given.file else {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {given.file}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{given.file} is not allowed: it maps names of parameters to values")
    values |= {name: parse_value(value) for name, value in given.parameter}
    refuse_unknown("parameter", values, [*NAMES, "tensorboard_dir"])
    for name, text in given.parameter:
        if name in (*PATHS, "run_dir"):
            check_text(name, values[name], text)
    return values


def main(arguments: Sequence[str]) -> None:
    """Runs what the command line asks for. Raises UserError, and Terminated on SIGTERM."""
    values = {"n_retrain": 5} | parameters(arguments)
    folder = values.pop("tensorboard_dir", "")
    if not isinstance(folder, str):
        raise ConfigError(f"tensorboard_dir = {folder!r} is not allowed: it is a path, as text")
    rehearsal = rehearse(values) if "--rehearsal" in arguments else None
    experiment = open_experiment(**(values if rehearsal is None else rehearsal.parameters))
    first = experiment.team.rank == 0
    log = tensorboard_writer(folder, experiment.run.config.run_id) if first else None
    if first:
        print(opening_lines(experiment.run, experiment.n_retrain), flush=True)
    with ProgressDisplay(experiment.n_retrain, live=None if first else False, log=log) as progress:
        for record in experiment.records(progress):
            if first:
                progress.generation_done(record)
    if rehearsal is not None:
        print(report({experiment.run.config.run_id: Measured(rehearsal, experiment.run.path)}))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt as stop:
        print(str(stop) or "interrupted; complete generations are kept, and the same command goes on", file=sys.stderr)
        sys.exit(128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT))
