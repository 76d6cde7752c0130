"""What every data set of the registry keeps, and what those that ship inside a library are."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits, load_sample_images

from iterative_retraining.datasets import DATASETS, digits, find_dataset, load_dataset
from iterative_retraining.errors import ConfigError, DataError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics.features import FEATURES
from iterative_retraining.models import MODELS, resolve_options
from iterative_retraining.training_set import TrainingSet

RNG = np.random.default_rng(0)
NETWORKS = ("ddpmpp", "adm", "diffusers")
SPLITS = [(name, split) for name, dataset in DATASETS.items() for split in dataset.counts]


# SHA-256 of the rows held out, of images and of labels.
PINNED = {
    "test": [
        "8ccab6530fad4aca635c181bbc97c6ad9bead4831f6e3aab45b2a7047d5b4df1",
        "ec827e8ae9d86573459e071bf47a7e8a8bbbeb20cb91f6e52cc58fe3a3d457ed",
        "19437446767a7da12b6b26e847c0c822c287c919c52ee5bf66bcaaf05a477c22",
    ],
    "train": [
        "bc30def50c09127126be7527157345bb3940f5bad49df42db8eaff8ff654f2c6",
        "12e5dd7b8b025b16593f6a16f66365776909f89d3040a7b532ec8d68f27d6ed6",
    ],
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_says_what_it_is(name: str):
    dataset = DATASETS[name]
    assert dataset.name == name
    assert next(iter(dataset.counts)) == "train"
    assert set(dataset.counts) <= {"train", "test"}
    height, width, colours = dataset.shape
    assert height == width
    assert colours in (1, 3)
    assert FEATURES[dataset.features].shape in (None, dataset.shape)


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_changes_options_that_models_have(name: str):
    """A name that no model has would be passed over everywhere, so a misspelt one would never be seen."""
    choices = [(m, n) for m in MODELS for n in (NETWORKS if "network" in resolve_options(m, "digits", {}) else ("",))]
    known = {(m, n): resolve_options(m, "digits", {"network": n} if n else {}) for m, n in choices}
    everywhere = set().union(*known.values())
    for choice, own in known.items():
        changed = DATASETS[name].options(*choice)
        assert set(changed) <= everywhere
        assert all(isinstance(changed[key], type(own[key])) for key in changed.keys() & own.keys())


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_images_and_labels_are_as_announced(name: str, split: str):
    dataset = DATASETS[name]
    try:
        images, labels = load_dataset(name, split=split)
    except DataError as error:
        pytest.skip(str(error))
    assert (images.shape, images.dtype) == ((dataset.counts[split], *dataset.shape), np.uint8)
    assert (labels.shape, labels.dtype) == ((len(images),), np.int64)
    assert dataset.has_labels == (np.unique(labels).size > 1)
    assert images.min() == 0
    assert images.max() == 255
    again, _ = load_dataset(name, split=split)
    np.testing.assert_array_equal(again, images)
    assert len(TrainingSet.of(images)) == len(images)


def test_unknown_names_are_refused_with_the_nearest():
    for find in (find_dataset, load_dataset):
        with pytest.raises(ConfigError, match=r"unknown dataset 'cifar'; allowed: digits.*; did you mean 'cifar10'\?"):
            find("cifar")
    with pytest.raises(ConfigError, match="unknown split of ffhq64 'test'; allowed: train"):
        load_dataset("ffhq64", split="test")
    with pytest.raises(ConfigError, match=r"allowed: train, test; did you mean 'test'\?"):
        load_dataset("digits", split="tets")


def test_a_place_that_cannot_be_read_is_one_clear_error():
    for name in ("cifar10", "fashion_mnist", "ffhq64"):
        with pytest.raises(DataError, match=f"{name} cannot be read from data_dir = 'x+'.* too long"):
            load_dataset(name, "x" * 5000)


def test_digits_are_the_images_of_scikit_learn_each_in_one_split():
    original, parts = load_digits(), [load_dataset("digits", split=split) for split in ("train", "test")]
    held_out = digits.held_out_rows(original.target, 297)
    rows = np.setdiff1d(np.arange(1797), held_out), held_out
    for (images, labels), own in zip(parts, rows, strict=True):
        np.testing.assert_allclose(images[..., 0] / 255 * 16, original.images[own], atol=16 / 255 / 2)
        np.testing.assert_array_equal(labels, original.target[own])
    contents = [{image.tobytes() for image in images} for images, _ in parts]
    assert [len(content) for content in contents] == [1500, 297]
    assert not contents[0] & contents[1]


def test_the_split_of_digits_is_fixed():
    images, labels = load_dataset("digits", split="test")
    held_out = digits.held_out_rows(load_digits().target, 297)
    found = [hashlib.sha256(part.tobytes()).hexdigest() for part in (held_out.astype("<i8"), images, labels)]
    assert found == PINNED["test"]
    found = [hashlib.sha256(part.tobytes()).hexdigest() for part in load_dataset("digits")]
    assert found == PINNED["train"]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_a_split_keeps_the_shares_of_the_classes(sizes, data):
    labels = RNG.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = data.draw(st.integers(1, len(labels)))
    rows = digits.held_out_rows(labels, n)
    assert len(np.unique(rows)) == len(rows) == n
    taken = np.bincount(labels[rows], minlength=len(sizes))
    assert (np.abs(taken - np.array(sizes) * n / len(labels)) < 1).all()


@pytest.mark.parametrize("size", [32, 64])
def test_photos_are_patches_and_no_pixel_is_in_both_splits(size, monkeypatch):
    temple, flower = load_sample_images().images
    images, labels = load_dataset(f"photos{size}")
    across = (480 - size) // (size // 4) + 1
    np.testing.assert_array_equal(images[0], temple[:size, :size])
    np.testing.assert_array_equal(images[across + 2], temple[size // 4 :, size // 2 :][:size, :size])
    np.testing.assert_array_equal(images[len(images) // 2], flower[:size, :size])
    np.testing.assert_array_equal(labels, np.repeat([0, 1], len(images) // 2))
    numbered = np.arange(2 * 427 * 640 * 3).reshape(2, 427, 640, 3)  # every pixel its own
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: SimpleNamespace(images=list(numbered)))
    train, test = (np.unique(load_dataset(f"photos{size}", split=split)[0]) for split in ("train", "test"))
    assert not np.intersect1d(train, test).size
    assert numbered[:, :, :480].min() == train.min()
    assert (test % (640 * 3)).min() == 480 * 3


def test_a_run_on_digits_measures_against_held_out_images(tmp_path):
    experiment = open_experiment(model="gaussian", n_retrain=0, run_dir=tmp_path / "run")
    assert len(experiment.real) == 1500
    (record,) = experiment.records()
    assert np.isfinite(record.metrics["fld"])
