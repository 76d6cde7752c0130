"""Every model can be started by the command line and a profile; by papermill: tests/test_parameters.py and
tests/test_commands.py. Models and schemes together, through `open_experiment`: tests/test_contracts.py."""

from pathlib import Path

import pytest
import yaml

from iterative_retraining.__main__ import main
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import MODELS
from iterative_retraining.runs.reading import read_ledger
from iterative_retraining.schemes import SCHEMES

from conftest import QUICK
from profiles import load_profile

SMALL = {"n_real": 40, "n_images_initial": 64, "n_images_per_retraining": 64, "n_retrain": 1}


def sizes(folder: Path) -> list[tuple[int, int]]:
    return [(row["n_real"], row["n_synthetic"]) for row in read_ledger(folder)]


@pytest.mark.parametrize("model", MODELS)
def test_a_model_runs_by_the_command_line(tmp_path, model):
    (tmp_path / "params.yml").write_text(yaml.safe_dump(SMALL | {"model_options": QUICK.get(model, {})}))
    main(["-f", str(tmp_path / "params.yml"), "-p", "model", model, "-p", "run_dir", str(tmp_path / "run")])
    assert sizes(tmp_path / "run") == [(40, 0), (40, 20)]


def test_every_model_and_scheme_runs_by_a_profile(tmp_path):
    arms = [{"model": model, "lam": 0.5, "model_options": QUICK.get(model, {})} for model in MODELS]
    arms += [{"model": "gaussian", "scheme": scheme} for scheme in SCHEMES if scheme != "mix"]
    (tmp_path / "all.yml").write_text(yaml.safe_dump({"description": "all", "seeds": [0], "run": SMALL, "arms": arms}))
    planned = load_profile(tmp_path / "all.yml").runs
    assert {run.config.model for run in planned.values()} == set(MODELS)
    assert {run.config.scheme for run in planned.values()} == set(SCHEMES)
    for run_id, run in planned.items():
        start = {"init": str(tmp_path / run.init)} if run.init else {}
        experiment = open_experiment(**run.parameters, **start, run_dir=tmp_path / run_id)
        assert len(list(experiment.records())) == run.parameters["n_retrain"] + 1
        assert experiment.run.config.run_id == run_id
        experiment.run.close()
