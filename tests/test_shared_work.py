"""Shared by the runs of a sweep: the same bits with the cache and without, each made once, by several processes too."""

import json
import multiprocessing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from iterative_retraining.cache import cached_array, cached_numbers
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.metrics.features import build_features
from iterative_retraining.models import resolve_options
from iterative_retraining.models.pretrained.stand_ins import write_stand_in
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.runs.shared_work import shared_floor

from conftest import TINY_EDM, untimed

RUN = {"n_images_per_retraining": 32, "n_retrain": 1, "n_real": 100, "model_options": TINY_EDM | {"augment_labels": 9}}


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "iterative-retraining"


def finished(path: Path, **parameters) -> Path:
    experiment = open_experiment(run_dir=path, **(RUN | parameters))
    for _ in experiment.records():
        pass
    experiment.run.close()
    return path


def test_a_floor_is_computed_once_and_is_the_same_to_the_bit(caches, digits, monkeypatch):
    monkeypatch.setattr("iterative_retraining.runs.shared_work.cached_numbers", cached_numbers)
    metrics, calls = ImageMetrics(build_features("digits", "digits")), []
    honest = ImageMetrics.floor

    def counted(self, real, **settings):
        calls.append(settings)
        return honest(self, real, **settings)

    monkeypatch.setattr(ImageMetrics, "floor", counted)
    real = digits[:200]
    made, again = (json.dumps(shared_floor(metrics, real, seed=3, n_splits=2)) for _ in range(2))
    assert made == again == json.dumps(honest(metrics, real, seed=3, n_splits=2))
    assert len(calls) == 1
    for other in ({"seed": 4, "n_splits": 2}, {"seed": 3, "n_splits": 1}):
        shared_floor(metrics, real, **other)
    shared_floor(ImageMetrics(build_features("digits", "digits"), k=4), real, seed=3, n_splits=2)
    shared_floor(ImageMetrics(build_features("digits", "digits"), test=digits[200:300]), real, seed=3, n_splits=2)
    shared_floor(metrics, digits[1:201], seed=3, n_splits=2)
    assert len(calls) == 6
    assert len(list(caches.glob("floor-*.npy"))) == 6


def test_arms_of_a_seed_draw_the_samples_of_published_weights_once(caches, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "iterative_retraining.experiment.losses_of", lambda *arguments, **few: []
    )  # takes the most time
    asked = {"model": "edm", "item_shape": (8, 8, 1), "options": resolve_options("edm", "digits", RUN["model_options"])}
    init, drawn = str(write_stand_in(tmp_path / "weights", **asked)), []
    honest = NetworkModel.sample

    def counted(self, n, *, seed):
        drawn.append(n)
        return honest(self, n, seed=seed)

    monkeypatch.setattr(NetworkModel, "sample", counted)
    first = finished(tmp_path / "first", init=init, lam=1.0)
    assert drawn == [100, 16, 100, 16]
    drawn.clear()
    second = finished(tmp_path / "second", init=init, lam=0.5)
    assert drawn == [16, 100, 16]  # generation 0 but for its preview is there
    finished(tmp_path / "fixed", init=init, lam=0.5, latents="fixed")
    drawn.clear()
    finished(tmp_path / "seed", init=init, lam=0.5, seed=1)
    assert drawn == [100, 16, 100, 16]
    rows = [untimed(run / "ledger.jsonl") for run in (first, second)]
    assert rows[0][0] == rows[1][0]
    assert rows[0][1] != rows[1][1]

    def unshared(name, make, **about):
        return make()

    monkeypatch.setattr("iterative_retraining.runs.shared_work.cached_array", unshared)
    alone = finished(tmp_path / "alone", init=init, lam=0.5)
    assert untimed(alone / "ledger.jsonl") == rows[1]
    fixed = [np.load(tmp_path / "fixed" / f"samples-000{t}.npy") for t in (0, 1)]
    assert not np.array_equal(*fixed)  # the same latents, other weights


def _count(folder: Path, kind: str) -> dict:
    (folder / f"{len(list(folder.iterdir()))}").touch(exist_ok=False)
    return {"values": [0.1, 1 / 3], "n": 3} if kind == "numbers" else np.arange(12, dtype=np.uint8).reshape(3, 4)


def _ask(kind: str, made: Path, folder: Path, queue) -> None:
    if kind == "numbers":
        queue.put(cached_numbers("name", partial(_count, made, kind)))
    else:
        queue.put(cached_array("name", partial(_count, made, kind), n=3, dtype=np.uint8, folder=folder).sum())


@pytest.mark.parametrize("kind", ["numbers", "array"])
def test_processes_that_ask_at_once_make_it_once(caches, tmp_path, kind):
    made = tmp_path / "made"
    made.mkdir()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_ask, args=(kind, made, caches, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    found = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    assert all(one == found[0] for one in found)
    assert len(list(made.iterdir())) == 1
