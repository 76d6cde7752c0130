"""What names a run: the identity of one default run of every combination, and of every published run, is pinned."""

import itertools
import json
from pathlib import Path

import pytest

from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS
from iterative_retraining.models import MODELS
from iterative_retraining.schemes import SCHEMES

GOLDEN = Path(__file__).parent / "golden" / "run_ids.json"
PUBLISHED = sorted((Path(__file__).parents[1] / "results").glob("*/config.json"))


def default_runs() -> dict[str, str]:
    """The run id of every model, data set and scheme with their defaults."""
    combinations = itertools.product(DATASETS, MODELS, SCHEMES)
    return {" ".join(c): RunConfig(dataset=c[0], model=c[1], scheme=c[2]).run_id for c in combinations}


def test_default_runs_keep_their_ids():
    assert default_runs() == json.loads(GOLDEN.read_text())


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.parent.name)
def test_published_runs_keep_their_ids(file: Path):
    stored = json.loads(file.read_text())
    given = {key: value for key, value in stored["identity"].items() if value is not None}
    assert RunConfig(**given).run_id == stored["run_id"] == file.parent.name
