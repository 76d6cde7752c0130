import dataclasses
import hashlib
import warnings
from pathlib import Path
from unittest import mock

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
from iterative_retraining.metrics.features.dino import DinoFeatures
from iterative_retraining.metrics.features.inception import InceptionFeatures, InceptionSpace, WeightsFile

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
    monkeypatch.setattr(type(FEATURES[name]), "build", lambda entry, weights, device: (entry.name, weights, device))
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
    assert float(notes["held_out_accuracy"]) > 0.88


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


@pytest.fixture(scope="module")
def legacy_weights(tmp_path_factory):
    """A file of pytorch-fid's format, with random weights: the published ones cannot be had everywhere."""
    from cleanfid import inception_pytorch

    torch.manual_seed(0)
    with (
        warnings.catch_warnings(),
        mock.patch.object(inception_pytorch, "load_state_dict_from_url", return_value={}),
        mock.patch.object(torch.nn.Module, "load_state_dict"),
    ):
        warnings.simplefilter("ignore")
        net = inception_pytorch.fid_inception_v3()
    path = tmp_path_factory.mktemp("inception") / FEATURES["inception-legacy_pytorch"].weights.name
    torch.save(net.state_dict(), path)
    return path


def accepting(name: str, path: Path) -> InceptionSpace:
    """The space, for which ``path`` passes as the published file."""
    entry = FEATURES[name]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return dataclasses.replace(entry, weights=WeightsFile(entry.weights.name, digest, entry.weights.url))


def test_legacy_inception_equals_pytorch_fid_in_batches_of_any_size(legacy_weights):
    from pytorch_fid import inception

    space = accepting("inception-legacy_pytorch", legacy_weights)
    found = space.build(legacy_weights)(COLOUR)
    assert (found.shape, found.dtype) == ((5, 2048), np.float32)
    state = torch.load(legacy_weights, weights_only=True)
    with warnings.catch_warnings(), mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        warnings.simplefilter("ignore")
        theirs = inception.InceptionV3([3]).eval()
    x = torch.from_numpy(COLOUR).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_allclose(found, theirs(x)[0][:, :, 0, 0].numpy(), rtol=1e-4, atol=1e-5)
    by_folder = InceptionFeatures(space, legacy_weights.parent, batch_size=2)
    np.testing.assert_allclose(by_folder(COLOUR), found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_folder(COLOUR[..., :1]), by_folder(np.repeat(COLOUR[..., :1], 3, axis=3)))


def test_clean_inception_reads_a_torchscript_file(tmp_path):
    """The published file is TorchScript with a submodule `layers`; this one has the format, not the weights."""
    from cleanfid.resize import build_resizer

    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 2048)
            )

        def forward(self, x):
            return self.layers(x)

    path = tmp_path / FEATURES["inception-clean"].weights.name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Net()).save(str(path))
    found = InceptionFeatures(accepting("inception-clean", path), path, batch_size=2)(COLOUR)
    torch.manual_seed(0)
    x = torch.from_numpy(np.stack([build_resizer("clean")(image) for image in COLOUR])).permute(0, 3, 1, 2)
    np.testing.assert_allclose(found, Net()((x - 128) / 128).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_missing_and_damaged_weights_name_file_hash_address_and_parameter(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        build_features("inception-legacy_pytorch", "digits")
    for part in (str(tmp_path), "6726825d", "https://github.com/mseitzer/pytorch-fid", "features_weights"):
        assert part in str(error.value)
    damaged = tmp_path / "inception-2015-12-05.pt"
    damaged.write_bytes(b"half a file")
    with pytest.raises(
        WeightsError, match=f"damaged or another file .SHA-256 {hashlib.sha256(b'half a file').hexdigest()}"
    ):
        build_features("inception-clean", "cifar10", weights=damaged)
    with pytest.raises(WeightsError, match=r"no DINOv2 weights.*huggingface.co/facebook/dinov2-base.*features_weights"):
        DinoFeatures(tmp_path)


def test_dino_features_are_those_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 224,
        "patch_size": 14,
    }
    net = transformers.Dinov2Model(transformers.Dinov2Config(**settings)).eval()
    net.save_pretrained(tmp_path)
    images = RNG.integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    features = DinoFeatures(tmp_path)
    processor = transformers.BitImageProcessor(
        do_resize=False, do_center_crop=False, image_mean=DinoFeatures.MEAN, image_std=DinoFeatures.STD
    )
    with torch.inference_mode():
        x = processor(list(images), return_tensors="pt")["pixel_values"]
        expected = net(pixel_values=x).last_hidden_state[:, 0].numpy()
    found = features(images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert features(COLOUR[..., :1]).shape == (5, 32)
    np.testing.assert_allclose(DinoFeatures(tmp_path, batch_size=2)(images), found, rtol=1e-3, atol=1e-4)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match=r"cannot be read.*features_weights"):
        DinoFeatures(tmp_path)
    state = safetensors.torch.load(whole)
    del state["layernorm.weight"]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match="are those of a network 'dinov2', without 1 of its tensors"):
        DinoFeatures(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    config = (tmp_path / "config.json").read_text()
    for content, message in ((config[:-9], "cannot be read"), (config.replace("dinov2", "vit"), "of a network 'vit'")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(WeightsError, match=message):
            DinoFeatures(tmp_path)


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
    floor = tmp_path / "run" / "floor.json"
    floor.write_text(floor.read_text().replace("digits-classifier-64", "inception-clean-f58cb9b6"))
    with pytest.raises(
        RuntimeError, match="in the feature space 'inception-clean-f58cb9b6', not 'digits-classifier-64'"
    ):
        open_experiment(**arguments)
