import gzip
import hashlib
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.model_selection import train_test_split

from iterative_retraining.datasets import FASHION_MNIST_FOLDERS, load_dataset
from iterative_retraining.errors import ConfigError, WeightsError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import classifiers, pretrained
from iterative_retraining.metrics.features import build_features, cached
from iterative_retraining.metrics.features.checks import check_images
from iterative_retraining.metrics.features.classifiers import (
    Classifier,
    ClassifierFeatures,
    accuracy,
    train_classifier,
    weights_file,
)
from iterative_retraining.metrics.features.pretrained import INCEPTION, DinoFeatures, InceptionFeatures, WeightsFile
from iterative_retraining.runs.directory import read_floor

from conftest import TINY_RUN

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
needs_fashion = pytest.mark.skipif(
    not Path(FASHION_MNIST_FOLDERS[0]).is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


@pytest.mark.parametrize(("dataset", "at_least"), [("digits", 0.95), ("fashion_mnist", 0.9)])
def test_committed_weights_are_small_and_say_how_they_were_made(dataset, at_least):
    assert weights_file(dataset).stat().st_size < 2**20
    with safe_open(weights_file(dataset), "np") as file:
        assert file.metadata()["seed"] == "0"
        assert float(file.metadata()["held_out_accuracy"]) > at_least


def test_committed_weights_are_what_the_code_trains():
    images, labels = load_dataset("digits")
    committed, again = ClassifierFeatures("digits").net, train_classifier(images, labels, seed=0)
    for p, q in zip(committed.parameters(), again.parameters(), strict=True):
        # Bits may differ between processors, and training amplifies that; another seed gives a correlation near 0.
        assert np.corrcoef(p.detach().flatten(), q.detach().flatten())[0, 1] > 0.9


@needs_fashion
def test_committed_weights_classify_the_test_images_of_fashion_mnist():
    images, labels = load_dataset("fashion_mnist", split="test")
    space = ClassifierFeatures("fashion_mnist")
    found = space(images[:2000])
    assert (found.shape, found.dtype) == ((2000, 64), np.float32)
    assert (space.classes(found) == labels[:2000]).mean() > 0.9
    with safe_open(weights_file("fashion_mnist"), "np") as file:
        assert f"{accuracy(space.net, images, labels):.3f}" == f"{float(file.metadata()['held_out_accuracy']):.3f}"


def test_the_classifier_generalises():
    images, labels = load_dataset("digits")
    train, test = train_test_split(np.arange(len(images)), test_size=0.2, random_state=1, stratify=labels)
    net = train_classifier(images[train], labels[train], seed=1)
    assert accuracy(net, images[test], labels[test]) > 0.95


@pytest.mark.parametrize("dataset", ["digits", "fashion_mnist"])
def test_classifiers_take_their_images(dataset):
    size = classifiers.IMAGE_SIZES[dataset]
    assert Classifier.of(dataset)(torch.zeros(2, 1, size, size)).shape == (2, 10)


def test_features_do_not_depend_on_the_batch_size(digits):
    whole = ClassifierFeatures("digits")(digits)
    assert (whole.shape, whole.dtype) == ((1797, 64), np.float32)
    np.testing.assert_allclose(ClassifierFeatures("digits", batch_size=100)(digits), whole, atol=1e-5)


def test_classes_are_those_of_the_whole_network(digits):
    space = ClassifierFeatures("digits")
    x = torch.from_numpy(digits[:50].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(space.classes(space(digits[:50])), space.net(x).argmax(dim=1).numpy())


def test_other_images_and_missing_weights_are_refused(digits, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"uint8 \(N, 8, 8, 1\) with N >= 1, got float64 \(1797, 8, 8, 1\)"):
        ClassifierFeatures("digits")(digits.astype(float))
    with pytest.raises(ValueError, match=r"got uint8 \(0, 8, 8, 1\)"):
        ClassifierFeatures("digits")(digits[:0])
    with pytest.raises(ValueError, match=r"C = 1 or 3 with N >= 1, got uint8 \(5, 3, 32, 32\)"):
        check_images(COLOUR.transpose(0, 3, 1, 2))
    with pytest.raises(TypeError, match="got list"):
        check_images([1, 2])
    monkeypatch.setattr(classifiers, "weights_file", lambda dataset: tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match=r"00_features.ipynb, dataset = 'digits'"):
        ClassifierFeatures("digits")


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
    path = tmp_path_factory.mktemp("inception") / INCEPTION["legacy_pytorch"].name
    torch.save(net.state_dict(), path)
    return path


def accept(monkeypatch, mode, path):
    """Lets ``path`` pass for the published file."""
    known = INCEPTION[mode]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(pretrained.INCEPTION, mode, WeightsFile(known.name, digest, known.url))


def test_legacy_inception_equals_pytorch_fid_in_batches_of_any_size(legacy_weights, monkeypatch):
    from pytorch_fid import inception

    accept(monkeypatch, "legacy_pytorch", legacy_weights)
    found = InceptionFeatures("legacy_pytorch", legacy_weights)(COLOUR)
    assert (found.shape, found.dtype) == ((5, 2048), np.float32)
    state = torch.load(legacy_weights, weights_only=True)
    with warnings.catch_warnings(), mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        warnings.simplefilter("ignore")
        theirs = inception.InceptionV3([3]).eval()
    x = torch.from_numpy(COLOUR).permute(0, 3, 1, 2).float() / 255
    np.testing.assert_allclose(found, theirs(x)[0][:, :, 0, 0].numpy(), rtol=1e-4, atol=1e-5)
    by_folder = InceptionFeatures("legacy_pytorch", legacy_weights.parent, batch_size=2)
    np.testing.assert_allclose(by_folder(COLOUR), found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_folder(COLOUR[..., :1]), by_folder(np.repeat(COLOUR[..., :1], 3, axis=3)))


def test_clean_inception_reads_a_torchscript_file(tmp_path, monkeypatch):
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

    path = tmp_path / INCEPTION["clean"].name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Net()).save(str(path))
    accept(monkeypatch, "clean", path)
    found = InceptionFeatures("clean", path, batch_size=2)(COLOUR)
    torch.manual_seed(0)
    x = torch.from_numpy(np.stack([build_resizer("clean")(image) for image in COLOUR])).permute(0, 3, 1, 2)
    np.testing.assert_allclose(found, Net()((x - 128) / 128).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_missing_and_damaged_weights_name_file_hash_address_and_parameter(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        InceptionFeatures("legacy_pytorch")
    for part in (str(tmp_path), "6726825d", "https://github.com/mseitzer/pytorch-fid", "features_weights"):
        assert part in str(error.value)
    damaged = tmp_path / "inception-2015-12-05.pt"
    damaged.write_bytes(b"half a file")
    with pytest.raises(
        WeightsError, match=f"damaged or another file .SHA-256 {hashlib.sha256(b'half a file').hexdigest()}"
    ):
        InceptionFeatures("clean", damaged)
    with pytest.raises(ValueError, match="unknown Inception mode 'dirty'; allowed: legacy_pytorch, clean"):
        InceptionFeatures("dirty")
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
    (tmp_path / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="cannot be read"):
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
    with pytest.raises(ValueError, match="features = 'inception' is not allowed; allowed: auto, digits"):
        build_features("inception", "digits")
    with pytest.raises(ValueError, match="is not used by the classifier 'digits'"):
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


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_files_are_read_zipped_or_not(tmp_path, monkeypatch, zipped):
    from iterative_retraining import datasets

    images, labels = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8), np.arange(6, dtype=np.uint8)
    folder = tmp_path if zipped else tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()
        table.append((name, hashlib.sha256(content).hexdigest(), array.shape))
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    monkeypatch.setitem(datasets.FASHION_MNIST, "train", tuple(table))
    found, found_labels = load_dataset("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(found[..., 0], images)
    np.testing.assert_array_equal(found_labels, labels)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(datasets.DataError, match=r"train-labels-idx1-ubyte.* is damaged.*set data_dir"):
        load_dataset("fashion_mnist", tmp_path)
    path.unlink()
    with pytest.raises(ConfigError, match=r"train-labels-idx1-ubyte\[.gz\] of fashion_mnist is in none of .*data_dir"):
        open_experiment(dataset="fashion_mnist", data_dir=tmp_path, n_retrain=1, run_dir=tmp_path / "run")


def test_a_run_on_fashion_mnist_measures_against_held_out_images(tmp_path, monkeypatch):
    from iterative_retraining import datasets

    for split, (images, labels) in datasets.FASHION_MNIST.items():
        table = []
        for (name, _, _), array in (
            (images, RNG.integers(0, 256, (24, 28, 28), dtype=np.uint8)),
            (labels, np.arange(24, dtype=np.uint8) % 10),
        ):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()
            (tmp_path / name).write_bytes(content)
            table.append((name, hashlib.sha256(content).hexdigest(), array.shape))
        monkeypatch.setitem(datasets.FASHION_MNIST, split, tuple(table))
    changes = {"dataset": "fashion_mnist", "n_retrain": 1, "n_images_initial": 64, "n_images_per_retraining": 32}
    experiment = open_experiment(**{**TINY_RUN, **changes}, data_dir=tmp_path, run_dir=tmp_path / "run")
    records = list(experiment.records())
    assert all(np.isfinite(record.metrics["fld"]) for record in records)
    assert records[1].metrics["rank"] <= 23
    floor = read_floor(tmp_path / "run")
    assert floor["features"] == "fashion-mnist-classifier-64"
    assert len(floor["fld"]) == 20


@needs_fashion
def test_fashion_mnist_is_whole():
    for split, n in (("train", 60_000), ("test", 10_000)):
        images, labels = load_dataset("fashion_mnist", split=split)
        assert (images.shape, images.dtype) == ((n, 28, 28, 1), np.uint8)
        assert (np.bincount(labels) == n // 10).all()
    with pytest.raises(ValueError, match="dataset 'digits' has no split 'test'"):
        load_dataset("digits", split="test")
