"""What names a run: the identity of one default run of every combination, and of every published run, is pinned."""

import itertools
import json
from pathlib import Path

from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS
from iterative_retraining.models import MODELS
from iterative_retraining.schemes import SCHEMES

GOLDEN = Path(__file__).parent / "golden" / "run_ids.json"


def default_runs() -> dict[str, str]:
    """The run id of every model, data set and scheme with their defaults."""
    combinations = itertools.product(DATASETS, MODELS, SCHEMES)
    return {" ".join(c): RunConfig(dataset=c[0], model=c[1], scheme=c[2]).run_id for c in combinations}


def test_default_runs_keep_their_ids():
    assert default_runs() == json.loads(GOLDEN.read_text())


def published() -> list[Path]:
    """The configurations in results/ that have today's form; earlier code made the others, which are to be replaced."""
    files = sorted((Path(__file__).parents[1] / "results").glob("*/config.json"))
    return [file for file in files if "scheme_options" in json.loads(file.read_text())["identity"]]


def test_published_runs_keep_their_ids():
    for file in published():
        stored = json.loads(file.read_text())
        given = {key: value for key, value in stored["identity"].items() if value is not None}
        assert RunConfig(**given).run_id == stored["run_id"] == file.parent.name
