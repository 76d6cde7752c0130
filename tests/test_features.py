"""What every feature space of the registry keeps, the committed classifiers, and the cache of features."""

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from iterative_retraining.datasets import DATASETS, load_dataset
from iterative_retraining.errors import ConfigError, DataError, WeightsError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics.features import FEATURES, build_features, cached
from iterative_retraining.metrics.features.checks import check_images
from iterative_retraining.metrics.features.classifiers import (
    ClassifierFeatures,
    ClassifierSpace,
    accuracy,
    train_classifier,
)

from conftest import edit_json

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
CLASSIFIERS = [name for name, entry in FEATURES.items() if isinstance(entry, ClassifierSpace)]


def images_for(name: str, n: int = 7) -> np.ndarray:
    """Images of noise that the space takes."""
    return np.random.default_rng(1).integers(0, 256, (n, *(FEATURES[name].shape or (32, 32, 3))), dtype=np.uint8)


@pytest.mark.parametrize("name", FEATURES)
def test_a_space_says_what_it_is_and_is_built_or_says_what_is_missing(name, tmp_path, monkeypatch):
    entry = FEATURES[name]
    assert entry.name == name
    assert any(entry.shape in (None, dataset.shape) for dataset in DATASETS.values())
    if entry.needs_weights:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        for weights in ("", tmp_path, tmp_path / "elsewhere"):
            with pytest.raises(WeightsError, match=r"https://.*features_weights"):
                entry.build(weights, "cpu")
        return
    space, images = entry.build("", "cpu"), images_for(name)
    found = space(images)
    assert (len(found), found.ndim, found.dtype) == (len(images), 2, np.float32)
    np.testing.assert_allclose(np.concatenate([space(images[:3]), space(images[3:])]), found, rtol=1e-4, atol=1e-5)
    assert np.unique(found, axis=0).shape == found.shape
    with pytest.raises(ValueError, match="images must be uint8"):
        space(images.astype(np.float32))


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", FEATURES)
def test_a_space_is_for_the_images_that_it_takes(name, dataset, monkeypatch):
    monkeypatch.setattr(type(FEATURES[name]), "build", lambda entry, *given: (entry.name, *given[:2]))
    if FEATURES[name].shape in (None, DATASETS[dataset].shape):
        assert build_features(name, dataset, device="cuda") == (name, "", "cuda")
        if name == DATASETS[dataset].features:
            assert build_features("auto", dataset) == (name, "", "cpu")
    else:
        with pytest.raises(ConfigError, match=f"features = '{name}' is not allowed: it takes images .*one of: auto"):
            build_features(name, dataset)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_committed_weights_are_small_and_say_how_they_were_made(name):
    file = FEATURES[name].file
    assert file.stat().st_size < 2**20
    with safe_open(file, "np") as opened:
        notes = opened.metadata()
    assert (notes["dataset"], notes["seed"], int(notes["n_epochs"])) == (name, "0", FEATURES[name].n_epochs)
    assert float(notes["held_out_accuracy"]) > {"digits": 0.95, "fashion_mnist": 0.9}.get(name, 0.85)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_committed_weights_classify_held_out_images(name):
    try:
        images, labels = load_dataset(name, split="test")
    except DataError as error:
        pytest.skip(str(error))
    space = FEATURES[name].build()
    share = (space.classes(space(images)) == labels).mean()
    with safe_open(FEATURES[name].file, "np") as file:
        noted = float(file.metadata()["held_out_accuracy"])
    assert abs(share - noted) <= 2 / len(labels)  # bits, and with them a close call, may differ between processors
    assert abs(accuracy(space.net, images, labels) - noted) <= 2 / len(labels)


def test_committed_weights_are_what_the_code_trains_on_the_training_images():
    images, labels = load_dataset("digits")
    entry = FEATURES["digits"]
    committed, again = entry.build().net, train_classifier(entry, images, labels, seed=0)
    for p, q in zip(committed.parameters(), again.parameters(), strict=True):
        # Bits may differ between processors, and training amplifies that; another seed gives a correlation near 0.
        assert np.corrcoef(p.detach().flatten(), q.detach().flatten())[0, 1] > 0.9
    assert accuracy(again, *load_dataset("digits", split="test")) > 0.95


def test_features_do_not_depend_on_the_batch_size(digits):
    whole = build_features("digits", "digits")(digits)
    assert (whole.shape, whole.dtype) == ((1500, 64), np.float32)
    np.testing.assert_allclose(ClassifierFeatures(FEATURES["digits"], batch_size=100)(digits), whole, atol=1e-5)


def test_classes_are_those_of_the_whole_network(digits):
    space = build_features("digits", "digits")
    x = torch.from_numpy(digits[:50].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(space.classes(space(digits[:50])), space.net(x).argmax(dim=1).numpy())


def test_other_images_are_refused(digits):
    space = build_features("digits", "digits")
    with pytest.raises(ValueError, match=r"uint8 \(N, 8, 8, 1\) with N >= 1, got float64 \(1500, 8, 8, 1\)"):
        space(digits.astype(float))
    with pytest.raises(ValueError, match=r"got uint8 \(0, 8, 8, 1\)"):
        space(digits[:0])
    with pytest.raises(ValueError, match=r"C = 1 or 3 with N >= 1, got uint8 \(5, 3, 32, 32\)"):
        check_images(COLOUR.transpose(0, 3, 1, 2))
    with pytest.raises(TypeError, match="got list"):
        check_images([1, 2])


def test_missing_damaged_and_foreign_weights_of_a_classifier_name_the_file_and_the_notebook(tmp_path, monkeypatch):
    entry, file = FEATURES["digits"], tmp_path / "digits_classifier.safetensors"
    whole = entry.file.read_bytes()
    monkeypatch.setattr(ClassifierSpace, "file", file)
    match = r"digits_classifier.safetensors {} .*00_features.ipynb, dataset = 'digits'"
    with pytest.raises(WeightsError, match=match.format("is missing")):
        entry.build()
    other = safetensors.torch.save(FEATURES["fashion_mnist"].network().state_dict())
    for content in (b"", whole[:50], whole[:-1], b"<!DOCTYPE html>", b"\xff" * 100, other):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=match.format("cannot be read")):
            entry.build()


def test_features_are_cached_by_content(tmp_path):
    class Counting:
        name, calls = "counting", 0

        def __call__(self, images):
            self.calls += 1
            return images.reshape(len(images), -1).astype(np.float32)

    space = Counting()
    first = cached(space, COLOUR, tmp_path)
    np.testing.assert_array_equal(cached(space, COLOUR.copy(), tmp_path), first)
    assert space.calls == 1
    cached(space, COLOUR[:4], tmp_path)
    cached(space, 255 - COLOUR, tmp_path)
    space.name = "another"
    cached(space, COLOUR, tmp_path)
    assert space.calls == 4
    assert len(list(tmp_path.iterdir())) == 4


def test_the_cache_lies_where_caches_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    class Zeros:
        name = "zeros"

        def __call__(self, images):
            return np.zeros((len(images), 2), dtype=np.float32)

    cached(Zeros(), COLOUR)
    assert [p.parent.name for p in tmp_path.rglob("*.npy")] == ["iterative-retraining"]


def test_spaces_by_name_and_what_does_not_fit():
    assert build_features("auto", "digits").name == "digits-classifier-64"
    assert build_features("auto", "fashion_mnist").name == "fashion-mnist-classifier-64"
    with pytest.raises(ConfigError, match=r"unknown features 'inception'; allowed: auto, .*; did you mean 'inception-"):
        build_features("inception", "digits")
    with pytest.raises(ValueError, match="is not used by features 'digits'; leave it empty"):
        build_features("auto", "digits", weights="x.pt")


def test_a_run_refuses_a_bad_space_before_it_computes_and_a_change_of_space(tmp_path):
    arguments = {"model": "gaussian", "n_retrain": 1, "run_dir": tmp_path / "run"}
    with pytest.raises(ConfigError, match=r"features_weights"):
        open_experiment(**arguments, features="dinov2", features_weights=tmp_path)
    assert not (tmp_path / "run").exists()
    open_experiment(**arguments).run.close()
    edit_json(tmp_path / "run" / "floor.json", lambda floor: floor.update(features="inception-clean-f58cb9b6"))
    with pytest.raises(
        RuntimeError, match="in the feature space 'inception-clean-f58cb9b6', not 'digits-classifier-64'"
    ):
        open_experiment(**arguments)
