"""The examples of CONTRIBUTING.md: they are executed, and run for two generations on 40 items."""

import re
from typing import Any

import numpy as np
import pytest

from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.retrain import retrain
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.schemes import FullySynthetic, Mix
from iterative_retraining.training_set import TrainingSet

from conftest import ROOT

BLOCKS = dict(re.findall(r"```python (\w+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL))


def example(kind: str, name: str) -> Any:
    """The class ``name`` that the example of this kind defines."""
    namespace: dict[str, Any] = {"__name__": f"example_{kind}"}
    exec(compile(BLOCKS[kind], f"CONTRIBUTING.md, {kind}", "exec"), namespace)
    return namespace[name]


@pytest.fixture
def real() -> np.ndarray:
    return example("dataset", "Bars")().load("train", None)[0][:40]


def test_there_are_four_examples_of_at_most_40_lines():
    assert set(BLOCKS) == {"scheme", "model", "dataset", "metric"}
    assert max(len(block.splitlines()) for block in BLOCKS.values()) <= 40


def test_the_scheme_runs_and_forgets_what_is_older_than_its_window(real):
    window = example("scheme", "Window")
    scheme, run = window(history_length=2), MemoryRun()
    records = list(retrain(Gaussian(), real, scheme, [], n_retrain=4, seed=0, run=run))
    assert [(r.n_real, r.n_synthetic) for r in records] == [(40, 0), (40, 40), (40, 80), (40, 80), (40, 80)]
    data = scheme.training_set(real, run.history, seed=0)
    np.testing.assert_array_equal(data.array(), np.concatenate([real, run.history[3], run.history[4]]))
    assert (scheme.label, scheme.id_part) == ("the last 2", "window-2")
    with pytest.raises(ValueError, match="history_length = 0 is not allowed"):
        window(history_length=0)


def test_the_model_retrains_and_goes_on_from_its_state(real):
    model, run = example("model", "KernelDensity")(), MemoryRun()
    records = list(retrain(model, real, Mix(0.5), [], n_retrain=2, seed=0, run=run))
    assert [r.n_images for r in records] == [40, 60, 60]
    other = example("model", "KernelDensity")()
    other.load_state_dict(run.load_state())
    np.testing.assert_array_equal(other.sample(7, seed=5), model.sample(9, seed=5)[:7])  # by index
    assert model.state_bytes(real.shape[1:]) == model.state_dict()["images"].nbytes
    still = example("model", "KernelDensity")(width=0.0).fit(TrainingSet.of(real), seed=0)
    found = {image.tobytes() for image in still.sample(2000, seed=1)}
    assert found == {image.tobytes() for image in real}  # every datum is drawn, and nothing else


def test_the_data_set_is_what_it_says():
    bars = example("dataset", "Bars")()
    for split, n in bars.counts.items():
        images, labels = bars.load(split, None)
        assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((n, *bars.shape), np.uint8, (n,), np.int64)
        bright = images[..., 0] > 0
        assert (bright.sum(axis=(1, 2)) == 8).all()
        np.testing.assert_array_equal(bright.any(axis=2).all(axis=1), labels == 0)  # a standing bar is in every row
    assert not np.array_equal(bars.load("train", None)[0][:100], images)


def test_the_metric_is_one_for_real_images_and_falls_with_collapse(real):
    metric = example("metric", "VarianceLeft")()
    assert metric(real, real=real) == {"variance_left": 1.0}
    assert metric(real[:1].repeat(40, axis=0), real=real) == {"variance_left": 0.0}
    records = list(retrain(Gaussian(), real, FullySynthetic(), [metric], n_retrain=2, seed=0))
    assert all(0 < r.metrics["variance_left"] < 1 for r in records)
    with pytest.raises(ValueError, match="there is no variance to compare with"):
        metric(real, real=real[:1])
