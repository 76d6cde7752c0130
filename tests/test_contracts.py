"""What every model, scheme and data set of the registries has to keep; a new one is tested by being there."""

from pathlib import Path

import matplotlib.pyplot as plt
import pytest

from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS
from iterative_retraining.errors import ConfigError, DataError
from iterative_retraining.experiment import Experiment, open_experiment
from iterative_retraining.metrics.features import FEATURES
from iterative_retraining.models import MODELS
from iterative_retraining.runs.directory import read_floor
from iterative_retraining.runs.results import read_runs
from iterative_retraining.schemes import SCHEMES
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.arms import arms
from iterative_retraining.studies.report.comparisons import arm_table

from conftest import QUICK, untimed

SMALL = {"dataset": "digits", "n_real": 40, "n_images_initial": 64, "n_images_per_retraining": 64, "n_retrain": 2}
CASES = [*((model, "mix") for model in MODELS), *(("gaussian", scheme) for scheme in SCHEMES)]


def opened(folder: Path, **parameters: object) -> Experiment:
    options = QUICK.get(parameters["model"], {})
    return open_experiment(**SMALL, **parameters, model_options=options, run_dir=folder)


@pytest.mark.parametrize(("model", "scheme"), CASES)
def test_two_retrainings_are_the_same_bits_when_they_are_interrupted(tmp_path: Path, model: str, scheme: str):
    for _ in (whole := opened(tmp_path / "whole", model=model, scheme=scheme)).records():
        pass
    whole.run.close()
    broken = opened(tmp_path / "broken", model=model, scheme=scheme)
    records = broken.records()
    next(records), next(records)
    records.close()
    broken.run.close()
    again = opened(tmp_path / "broken", model=model, scheme=scheme)
    assert len(list(again.records())) == 3
    again.run.close()
    assert untimed(tmp_path / "broken" / "ledger.jsonl") == untimed(tmp_path / "whole" / "ledger.jsonl")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_is_shown_in_tables_and_figures(tmp_path: Path, scheme: str):
    for name in dict.fromkeys((scheme, "mix")):
        lam = 0.0 if name == "mix" else 0.5
        one = opened(tmp_path / name, model="gaussian", scheme=name, lam=lam)
        assert len(list(one.records())) == 3
        one.run.close()
    runs, floor = read_runs(sorted(tmp_path.iterdir())), read_floor(tmp_path / scheme)
    labels = [arm.label for arm, _ in arms(runs)]
    assert len(set(labels)) == len(labels) == runs.run_id.nunique()
    figure = plots.quality_curves(runs, floor)
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    plt.close(figure)
    assert set(labels) <= set(shown)
    assert all(label in arm_table(runs, floor) for label in labels)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_has_a_part_of_the_run_id_and_looks(scheme: str):
    config = RunConfig(scheme=scheme, model="gaussian")
    built = config.built_scheme
    assert f"-{built.id_part}-" in config.run_id
    assert built.name == scheme
    assert set(built.style) <= {"color", "linestyle", "marker"}
    with pytest.raises(ConfigError, match="zzz"):
        RunConfig(scheme=scheme, scheme_options={"zzz": 1})


def test_no_two_schemes_look_the_same():
    looks = [tuple(sorted(plots.arm_style(scheme).items())) for scheme in SCHEMES]
    assert len(set(map(str, looks))) == len(SCHEMES)


@pytest.mark.parametrize("model", MODELS)
def test_a_model_says_what_it_is_and_refuses_an_unknown_option(model: str):
    family = MODELS[model]
    assert family.name == model
    assert family.label
    with pytest.raises(ConfigError, match=r"unknown option 'zzz' of model"):
        RunConfig(model=model, options={"zzz": 1})
    for network in family.networks or ("",):
        options = {"network": network} if network else {}
        assert set(RunConfig(model=model, dataset="cifar10", options=options).options) == set(family.defaults(network))


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_data_set_opens_an_experiment(tmp_path: Path, dataset: str):
    if FEATURES[DATASETS[dataset].features].needs_weights:
        pytest.skip(f"{dataset} is measured by a published network, whose weights are not at hand")
    try:
        DATASETS[dataset].load("train", None)
    except DataError as error:
        pytest.skip(str(error))
    experiment = open_experiment(dataset=dataset, model="gaussian", n_real=40, n_retrain=0, run_dir=tmp_path)
    (record,) = experiment.records()
    experiment.run.close()
    assert record.n_real == 40
