"""The table of what the published runs have taken, against a sum by hand."""

import json

import pytest

from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs.reading import read_ledger
from iterative_retraining.studies.report.spent import HEAD, spent_table


@pytest.fixture
def runs(tmp_path):
    for seed in (0, 1):
        parameters = {"model": "gaussian", "dataset": "digits", "n_real": 100, "seed": seed, "n_retrain": 2}
        experiment = open_experiment(run_dir=tmp_path / f"run{seed}", **parameters)
        for _ in experiment.records():
            pass
        experiment.run.close()
    return [tmp_path / "run0", tmp_path / "run1"]


def test_hours_are_those_of_the_ledgers(runs, tmp_path):
    ledgers = [read_ledger(run) for run in runs]
    seconds = [sum(v for row in rows for key, v in row.items() if key.startswith("seconds_")) for rows in ledgers]
    manifest = json.loads((runs[0] / "manifest.json").read_text())
    threads = manifest["attempts"][0]["hardware"]["threads"]
    head, rule, row = spent_table(runs).splitlines()
    assert f"{head}\n{rule}" == HEAD
    figure, what, n_runs, retrainings, minutes, hours, memory = [cell.strip() for cell in row.strip("|").split("|")]
    assert (figure, what, n_runs, retrainings) == ("–", "digits, Gaussian", "2", "4")
    assert minutes == f"{sum(seconds) / 2 / 60:.0f}"
    assert hours == f"{sum(seconds) * threads / 3600:.1f}"
    assert 0.1 < float(memory) < 24


def test_the_plane_has_a_row_a_distribution(tmp_path):
    scale = {"n_seeds": 3}
    told = {
        "plane-eight_gaussians-edm-accurate-mix-lam1": {"scale": scale, "seconds": 7200.0},
        "plane-eight_gaussians-edm-accurate-fully_synthetic": {"scale": scale},
        "plane-two_moons-edm-accurate-mix-lam1": {"scale": scale, "seconds": 3600.0},
    }
    file = tmp_path / "plane.json"
    file.write_text(json.dumps(told))
    rows = spent_table([], file).splitlines()[2:]
    assert rows == [
        "| 3 | eight gaussians, in the plane | 6 | – | – | 2.0, by 1 of 2 arms | – |",
        "| 4 | two moons, in the plane | 3 | – | – | 1.0 | – |",
    ]
    file.write_text(json.dumps({name: {"scale": scale} for name in told}))
    assert " | – | – |" in spent_table([], file).splitlines()[2]
    assert spent_table([], tmp_path / "none.json") == HEAD
