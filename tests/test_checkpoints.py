"""Checkpoints within a fit: by time, on SIGTERM, and written by a thread while training goes on."""

import os
import signal
import threading

import numpy as np
import pytest

from iterative_retraining.distributed import Team
from iterative_retraining.errors import ConfigError, RunError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import checkpoints
from iterative_retraining.models.checkpoints import chosen_minutes
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.runs.attempts import Terminated
from iterative_retraining.runs.directory import FIT
from iterative_retraining.runs.provenance import read_manifest
from iterative_retraining.training_set import TrainingSet

from conftest import TINY_RUN

NETWORK = UNetConfig(
    resolution=8, colours=1, channels=4, multipliers=(1,), blocks_per_level=1, attention_resolutions=(),
    dropout=0.1, augment_labels=0,
)  # fmt: skip
CONFIG = TrainingConfig(network=NETWORK, n_images_initial=160, n_images_per_retraining=160, batch_size=16)  # 10 steps


class Store:
    """Keeps states in memory, and which images they are of; ``before_save`` is called first, in the thread."""

    def __init__(self, before_save=lambda: None):
        self.in_fit, self.stop, self.states, self.before_save = False, None, [], before_save

    @property
    def seen(self) -> list[int]:
        return [int(state["n_seen"]) for state in self.states]

    def load_fit(self, seed):
        return None

    def save_fit(self, seed, state):
        self.before_save()
        self.states.append(state)


def fitted(digits, store, progress=None, team=None, **due) -> NetworkModel:
    model = NetworkModel(EDM(), CONFIG, team=team)
    model.keep_fits(store, **due)
    return model.fit(TrainingSet.of(digits[:40]), seed=0, progress=progress)


def test_by_time_counted_from_the_last_one(digits, monkeypatch):
    clock = iter(range(1000))  # a second passes whenever the time is asked for
    monkeypatch.setattr(checkpoints, "monotonic", lambda: next(clock))
    store = Store()
    fitted(digits, store, seconds=3.0)
    assert store.seen == [48, 96, 144]  # a look after every step, and one at every checkpoint
    store = Store()
    fitted(digits, store, n_images=64, seconds=1000.0)
    assert store.seen == [64, 128]
    store = Store()
    fitted(digits, store)
    assert store.seen == []


def test_a_checkpoint_is_of_its_moment_though_it_is_written_later(digits):
    """The thread is held until training has gone on by two steps."""
    go, weights = threading.Event(), {}
    store = Store(before_save=lambda: go.wait(60))
    model = NetworkModel(EDM(), CONFIG)
    model.keep_fits(store, 64)

    def progress(n_seen, n_images):
        weights[n_seen] = {name: p.detach().numpy().copy() for name, p in model.net.named_parameters()}
        if n_seen == 96:
            assert store.states == []
            go.set()

    model.fit(TrainingSet.of(digits[:40]), seed=0, progress=progress)
    assert store.seen == [64, 128]
    for name, array in weights[64].items():
        np.testing.assert_array_equal(store.states[0][f"raw/{name}"], array)
        assert (array != weights[96][name]).any()


@pytest.mark.parametrize("n_images", [32, 160])
def test_what_the_writer_raises_is_raised(digits, n_images):
    """By a later step, or by the end of the fit."""

    def fails():
        raise RunError("the disk is full")

    with pytest.raises(RunError, match="the disk is full"):
        fitted(digits, Store(before_save=fails), n_images=n_images)
    assert not any(thread.name == "checkpoint" for thread in threading.enumerate())


def test_another_error_keeps_its_name_and_notes_that_of_the_writer(digits):
    go = threading.Event()

    def fails():
        go.wait(60)
        raise RunError("the disk is full")

    def progress(n_seen, n_images):
        if n_seen == 48:
            go.set()
            raise KeyError("something else")

    with pytest.raises(KeyError, match="something else") as caught:
        fitted(digits, Store(before_save=fails), progress, n_images=32)
    assert caught.value.__notes__ == ["and the last checkpoint failed: the disk is full"]


def test_of_a_team_the_first_writes_and_no_stop_is_looked_at(digits, monkeypatch):
    monkeypatch.setattr(Team, "add", lambda self, tensor: tensor)  # pretended others
    for rank, seen in ((0, [80, 160]), (1, [])):
        store = Store()
        fitted(digits, store, team=Team(rank, 2), n_images=80)
        assert store.seen == seen
        assert not store.in_fit


GIVEN = TINY_RUN | {"n_retrain": 1, "n_real": 100, "n_images_initial": 320, "device": "cpu"}


def test_sigterm_in_a_fit_leaves_a_checkpoint_and_the_run_goes_on_to_the_same_bits(tmp_path):
    def terminate(generation, n_seen, n_images):
        if (generation, n_seen) == (1, 96):
            os.kill(os.getpid(), signal.SIGTERM)

    whole = open_experiment(run_dir=tmp_path / "whole", **GIVEN)
    list(whole.records())
    given = GIVEN | {"run_dir": tmp_path / "run", "checkpoint_minutes": 60}
    experiment = open_experiment(**given)
    with pytest.raises(
        Terminated, match=r"stopped by SIGTERM in generation 1, whose fit goes on from its checkpoint; 1"
    ):
        list(experiment.records(terminate))
    assert (tmp_path / "run" / FIT).exists()
    experiment.run.close()
    assert read_manifest(tmp_path / "run")["attempts"][-1]["outcome"] == "stopped"
    first = []
    again = open_experiment(**given)
    list(again.records(lambda generation, n_seen, n_images: first.append(n_seen)))
    assert first[0] == 128
    assert not (tmp_path / "run" / FIT).exists()
    digests = [[row["checkpoint_sha256"] for row in run.rows] for run in (again.run, whole.run)]
    assert digests[0] == digests[1]


def test_a_second_sigterm_ends_a_fit_at_once_and_without_checkpoints_the_first(tmp_path):
    def terminate_twice(generation, n_seen, n_images):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    for minutes in (60, 0):
        experiment = open_experiment(run_dir=tmp_path / str(minutes), checkpoint_minutes=minutes, **GIVEN)
        with pytest.raises(Terminated, match=r"stopped by SIGTERM in generation 0; 0 complete"):
            list(experiment.records(terminate_twice))
        assert not (tmp_path / str(minutes) / FIT).exists()
        experiment.run.close()


@pytest.mark.parametrize("value", [-1, True, "often", None, float("inf"), float("nan")])
def test_impossible_times_are_refused(tmp_path, value):
    with pytest.raises(ConfigError, match=r"checkpoint_minutes = .* is not allowed: minutes between two"):
        open_experiment(n_retrain=0, checkpoint_minutes=value, run_dir=tmp_path / "run")


def test_by_default_every_ten_minutes_on_a_gpu():
    assert [chosen_minutes("auto", device) for device in ("cpu", "cuda", "cuda:1")] == [0, 10, 10]
    assert chosen_minutes(2.5, "cpu") == 2.5
