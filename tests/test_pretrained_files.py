"""Weights as people have them: our own safetensors, NVIDIA's snapshots, wrapped names, and what is none of all that."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from iterative_retraining.errors import ConfigError, PretrainedError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.pretrained import read_weights, state_that_fits
from iterative_retraining.models.pretrained.record import WEIGHTS_URLS, named_arrays
from iterative_retraining.training_set import TrainingSet

from conftest import TINY_EDM

DIGITS = {"dataset": "digits", "item_shape": (8, 8, 1)}
OPTIONS = resolve_options("edm", "digits", TINY_EDM | {"keep_optimizer": True, "next_start": "raw"})


def model_of(options: dict):
    return build_model("edm", (8, 8, 1), options, n_images_initial=64, n_images_per_retraining=0)


@pytest.fixture
def own(tmp_path, digits):
    """A checkpoint of this package, away from its run directory, and its arrays."""
    state = model_of(OPTIONS).fit(TrainingSet.of(digits[:64]), seed=0).state_dict()
    save_file(state, tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors", state


def test_our_own_networks_are_read_with_what_the_options_ask_for(own):
    path, state = own
    found = state_that_fits(path, model="edm", options=OPTIONS, **DIGITS)
    assert found.keys() == state.keys()
    assert all(np.array_equal(found[name], array) for name, array in state.items())
    model_of(OPTIONS).load_state_dict(found)
    weights = state_that_fits(path, model="edm", options=resolve_options("edm", "digits", TINY_EDM), **DIGITS)
    assert weights.keys() == {name for name in state if not name.startswith("carried/")}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_what_wrappers_put_before_names_is_passed_over(own, prefix):
    path, state = own
    weights = {name: array for name, array in state.items() if not name.startswith("carried/")}
    save_file({prefix + name: array for name, array in weights.items()}, path)
    found = state_that_fits(path, model="edm", options=resolve_options("edm", "digits", TINY_EDM), **DIGITS)
    assert found.keys() == weights.keys()


def test_a_run_starts_from_such_a_file(own, tmp_path):
    run = {"init": str(own[0]), "n_retrain": 0, "model_options": TINY_EDM}
    experiment = open_experiment(**run, run_dir=tmp_path / "run")
    assert [record.n_images for record in experiment.records()] == [0]
    np.testing.assert_array_equal(experiment.run.load_state()["first.weight"], own[1]["first.weight"])
    in_place = next((tmp_path / "run").glob("checkpoint-*.safetensors"))
    again = {**run, "init": str(in_place), "run_dir": tmp_path / "other"}
    with pytest.raises(ConfigError, match=r"was trained as model = 'edm', not 'flow_matching', says .*config\.json"):
        open_experiment(**again, model="flow_matching")
    with pytest.raises(ConfigError, match=r"a gaussian starts from a run directory, not from a file of weights"):
        open_experiment(**again | {"model_options": {}}, model="gaussian")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"first.weight": np.full((4, 1, 3, 3), np.nan, np.float32)}, "not all finite: first.weight has NaN"),
        ({"first.bias": np.zeros(5, np.float32)}, r"first\.bias differs, first of 1: needed \(4,\), got \(5,\)"),
        ({"carried/raw/first.bias": np.zeros(5, np.float32)}, "raw of first.bias is of no parameter"),
        ({"conv_in.weight": np.zeros(3, np.float32)}, r"a network of diffusers: set init to its folder, with the"),
    ],
)
def test_other_weights_are_refused_with_the_reason(own, change, message):
    path, state = own
    save_file(state | change, path)
    with pytest.raises(PretrainedError, match=rf"mine\.safetensors.*{message}"):
        state_that_fits(path, model="edm", options=OPTIONS, **DIGITS)


def test_a_tensor_that_only_claims_to_be_large_is_refused_without_being_made():
    network = model_of(OPTIONS).config.network
    with pytest.raises(PretrainedError, match="its weights are not those of its configuration"):
        named_arrays({"first.weight": torch.ones(1).expand(10**6, 10**7)}, network)


PAGE = b"<!DOCTYPE html>\n<html><title>Quota exceeded</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 223000000\n"


@pytest.mark.parametrize("name", [n for n in WEIGHTS_URLS if "." in n] + ["mine.safetensors"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "an empty file, as an interrupted download leaves"),
        (PAGE, "an HTML page, such as a server sends"),
        (POINTER, "a git-lfs pointer, not the file itself; `git lfs pull` fetches that"),
        (bytes(2000), "a file that begins with zeros, as an interrupted download leaves"),
    ],
)
def test_what_is_no_file_of_weights_is_named_with_where_to_get_it(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    options = resolve_options("edm", "digits", TINY_EDM)
    with pytest.raises(PretrainedError) as refused:
        state_that_fits(tmp_path / name, model="edm", options=options, **DIGITS)
    assert f"it seems to be {words}" in str(refused.value)
    assert WEIGHTS_URLS.get(name, "") in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_truncated_checkpoint_of_torch_and_an_unfinished_download_are_named(tmp_path):
    path = tmp_path / "cifar10_2040.pt"
    torch.save({"model": {"in_conv.weight": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(PretrainedError, match=r"2040\.pt is damaged.* a zip whose end is missing, as an interrupted"):
        read_weights(path)
    path.rename(tmp_path / "cifar10_2040.pt.part")
    message = r"it comes from https://github\.com/tqch/.*; cifar10_2040\.pt\.part lies beside it: that download was not"
    with pytest.raises(PretrainedError, match=message):
        read_weights(path)
    with pytest.raises(ConfigError, match=message):
        open_experiment(n_retrain=0, init=str(path), run_dir=tmp_path / "run")
