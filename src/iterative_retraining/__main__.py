"""One run of Algorithm 1 from the command line, with the parameters of ``notebooks/retrain.ipynb``.

For a run by several processes, each with a device of its own:

    accelerate launch --num_processes 4 -m iterative_retraining -f params.yml -p lam 0.5 -p run_dir somewhere

A notebook has one process, so papermill cannot start these. The run directory is the same, and either goes on with it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from iterative_retraining.errors import ConfigError, RunError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs.progress import ProgressDisplay


def parameters(arguments: Sequence[str]) -> dict[str, Any]:
    """The parameters that a command line gives: those of the file, then those given one by one, as YAML values.

    Raises ConfigError if the file cannot be read or is no mapping.
    """
    parser = argparse.ArgumentParser(prog="python -m iterative_retraining", description=__doc__.splitlines()[0])
    parser.add_argument("-f", "--file", type=Path, help="parameters as YAML")
    parser.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    given = parser.parse_args(arguments)
    try:
        values = yaml.safe_load(given.file.read_text()) if given.file else {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {given.file}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{given.file} is not allowed: it maps names of parameters to values")
    return values | {name: yaml.safe_load(value) for name, value in given.parameter}


def main(arguments: Sequence[str]) -> None:
    """Runs what the command line asks for. Raises ConfigError or RunError."""
    values = {"n_retrain": 5} | parameters(arguments)
    try:
        experiment = open_experiment(**values)
    except TypeError as error:  # an unknown name
        raise ConfigError(f"{error}; notebooks/retrain.ipynb explains the parameters") from error
    first = experiment.team.rank == 0
    with ProgressDisplay(experiment.n_retrain, live=None if first else False) as progress:
        for record in experiment.records(progress):
            if first:
                progress.generation_done(record)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ConfigError, RunError) as error:
        sys.exit(f"error: {error}")
