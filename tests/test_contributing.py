"""The examples of CONTRIBUTING.md: they are put into files, registered by one line, and run on 40 items."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from iterative_retraining.datasets import DATASETS, load_dataset
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import METRICS
from iterative_retraining.models import MODELS
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.retrain import retrain
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.schemes import SCHEMES, Mix
from iterative_retraining.selectors import SELECTORS, Selection
from iterative_retraining.training_set import TrainingSet

from conftest import ROOT

BLOCKS = dict(re.findall(r"```python (\w+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL))


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> dict[str, ModuleType]:
    """The examples as modules, by kind."""
    found, folder = {}, tmp_path_factory.mktemp("examples")
    for kind, block in BLOCKS.items():
        (folder / f"{kind}.py").write_text(block)
        spec = importlib.util.spec_from_file_location(f"example_{kind}", folder / f"{kind}.py")
        found[kind] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[kind])
    return found


@pytest.fixture
def real(examples) -> np.ndarray:
    return examples["dataset"].Bars().load("train", None)[0][:40]


@pytest.fixture
def registered(examples, monkeypatch) -> None:
    """The one line of each."""
    monkeypatch.setitem(SCHEMES, "window", examples["scheme"].Window)
    monkeypatch.setitem(SELECTORS, "brightness", examples["selector"].Brightness)
    monkeypatch.setitem(MODELS, "kernel_density", examples["model"].KERNEL_DENSITY_FAMILY)
    monkeypatch.setitem(METRICS, "variance_left", examples["metric"].VarianceLeft)
    monkeypatch.setitem(DATASETS, "bars", examples["dataset"].Bars())


def test_there_are_five_examples_of_at_most_40_lines():
    assert set(BLOCKS) == {"scheme", "selector", "model", "dataset", "metric"}
    assert max(len(block.splitlines()) for block in BLOCKS.values()) <= 40


@pytest.mark.usefixtures("registered")
def test_together_they_are_a_run_that_is_named_and_goes_on(tmp_path: Path):
    given = {"dataset": "bars", "model": "kernel_density", "scheme": "window", "scheme_options": {"history_length": 2}}
    given |= {"selector": "brightness", "keep_rate": 0.8}
    parts = []
    for n_retrain in (1, 2):
        experiment = open_experiment(**given, n_real=40, n_retrain=n_retrain, run_dir=tmp_path / "run")
        records = list(experiment.records())
        parts.append(experiment.run.config.run_id)
        experiment.run.close()
    assert [(r.n_real, r.n_synthetic) for r in records] == [(40, 0), (40, 40), (40, 80)]
    assert all(0 < record.metrics["variance_left"] < 2 for record in records)
    assert parts[0] == parts[1]
    assert parts[0].startswith("bars-kernel_density-window-history_length2-brightness-keep0.8-")
    np.testing.assert_array_equal(load_dataset("bars")[0][:40], experiment.real)


def test_the_scheme_forgets_what_is_older_than_its_window(examples, real):
    window = examples["scheme"].Window
    scheme, run = window(history_length=2), MemoryRun()
    records = list(retrain(Gaussian(), real, scheme, [], n_retrain=4, seed=0, run=run))
    assert [r.n_synthetic for r in records] == [0, 40, 80, 80, 80]
    data = scheme.training_set(real, run.history, seed=0)
    np.testing.assert_array_equal(data.array(), np.concatenate([real, run.history[3], run.history[4]]))
    with pytest.raises(ValueError, match="history_length = 0 is not allowed"):
        window(history_length=0)


def test_the_model_samples_by_index_and_by_weight_and_goes_on_from_its_state(examples, real):
    kernel_density = examples["model"].KernelDensity
    model, run = kernel_density(), MemoryRun()
    records = list(retrain(model, real, Mix(0.5), [], n_retrain=2, seed=0, run=run))
    assert [r.n_synthetic for r in records] == [0, 20, 20]
    other = kernel_density()
    other.load_state_dict(run.load_state())
    np.testing.assert_array_equal(other.sample(7, seed=5), model.sample(9, seed=5)[:7])
    rows, still = np.arange(40), kernel_density(width=0.0)
    drawn = {image.tobytes() for image in still.fit(TrainingSet.of(real), seed=0).sample(2000, seed=1)}
    assert drawn == {image.tobytes() for image in real}  # every datum is drawn, and nothing else
    dark = np.zeros_like(real)
    weighted = TrainingSet((real, dark), (rows, rows), weights=(0.2, 0.8))
    share = (still.fit(weighted, seed=0).sample(4000, seed=2) == 0).all(axis=(1, 2, 3)).mean()
    assert abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 4000)


def test_the_selector_keeps_the_brightest(examples):
    images = np.arange(10, dtype=np.uint8)[::-1, None, None, None] + np.zeros((1, 2, 2, 1), np.uint8)
    selection = Selection(examples["selector"].Brightness(), 0.3)
    kept = selection.keep(images, 3, real=images, model=None, seed=0)
    np.testing.assert_array_equal(kept, images[:3])


def test_the_data_set_is_what_it_says(examples):
    bars = examples["dataset"].Bars()
    for split, n in bars.counts.items():
        images, labels = bars.load(split, None)
        assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((n, *bars.shape), np.uint8, (n,), np.int64)
        bright = images[..., 0] > 0
        assert (bright.sum(axis=(1, 2)) == 8).all()
        np.testing.assert_array_equal(bright.any(axis=2).all(axis=1), labels == 0)  # a standing bar is in every row
    assert not np.array_equal(bars.load("train", None)[0][:100], images)


def test_the_metric_is_one_for_real_features_and_falls_with_collapse(examples):
    metric, real = examples["metric"].VarianceLeft(), np.random.default_rng(0).normal(size=(40, 3))
    assert metric(real, real=real)["variance_left"] == pytest.approx(1.0)
    assert metric(real / 2, real=real)["variance_left"] == pytest.approx(0.25)
    assert metric(real[:1].repeat(40, axis=0), real=real)["variance_left"] < 1e-20
    with pytest.raises(ValueError, match="there is no variance to compare with"):
        metric(real, real=real[:1].repeat(40, axis=0))
