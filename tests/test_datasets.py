"""What every data set of the registry keeps; and each layout of files, whole and damaged, in small form."""

import gzip
import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from iterative_retraining.datasets import DATASETS, digits, fashion_mnist, find_dataset, load_dataset
from iterative_retraining.errors import ConfigError, DataError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics.features import FEATURES
from iterative_retraining.models import MODELS, resolve_options
from iterative_retraining.runs.directory import read_floor
from iterative_retraining.training_set import TrainingSet

from conftest import TINY_RUN

RNG = np.random.default_rng(0)
NETWORKS = ("ddpmpp", "adm", "diffusers")
REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
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


def loaded(name: str, place: Path | None = None, split: str = "train") -> tuple[np.ndarray, np.ndarray] | str:
    """What the data set gives, or what its error says."""
    try:
        return load_dataset(name, place, split)
    except DataError as error:
        return str(error)


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
    found, dataset = loaded(name, split=split), DATASETS[name]
    if isinstance(found, str):
        assert "set data_dir" in found
        pytest.skip(found)
    images, labels = found
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


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """Files in the format of CIFAR-10's, with their own checksums in torchvision's lists: (folder, images, labels)."""
    rng, folder = np.random.default_rng(0), tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    data, labels = rng.integers(0, 256, (6, 4, 3072), dtype=np.uint8), rng.integers(0, 10, (6, 4))
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    written = []
    for name, pixels, classes in zip(names, data, labels, strict=True):
        content = pickle.dumps({"data": pixels, "labels": classes.tolist()}, protocol=2)
        (folder / name).write_bytes(content)
        written.append([name, hashlib.md5(content).hexdigest()])
    published = torchvision.datasets.CIFAR10
    meta = pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(published, "train_list", written[:5])
    monkeypatch.setattr(published, "test_list", written[5:])
    monkeypatch.setattr(published, "meta", published.meta | {"md5": hashlib.md5(meta).hexdigest()})
    return folder, data, labels


def archived(folder: Path, path: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        archive.add(folder, folder.name)
    return path


def layouts(folder: Path, tmp_path: Path) -> list[Path]:
    """Every place that may be data_dir, one after another so that none is found by way of another."""
    moved = shutil.copytree(folder, tmp_path / "moved" / "my cifar é")
    (tmp_path / "holds").mkdir()
    archive = archived(folder, tmp_path / "holds" / "cifar-10-python.tar.gz")
    plain = archived(folder, tmp_path / "unzipped.tar", "w")
    return [folder.parent, folder, moved, archive, archive.parent, plain]


def test_cifar10_is_read_as_torchvision_reads_it_from_every_layout(batches, tmp_path):
    folder, data, labels = batches
    for split, rows in (("train", slice(5)), ("test", slice(5, 6))):
        theirs = torchvision.datasets.CIFAR10(folder.parent, train=split == "train")
        for place in layouts(folder, tmp_path / split):
            images, classes = load_dataset("cifar10", str(place), split)
            assert (images.dtype, classes.dtype) == (np.uint8, np.int64)
            np.testing.assert_array_equal(images, theirs.data)
            np.testing.assert_array_equal(images.transpose(0, 3, 1, 2).reshape(-1, 3072), data[rows].reshape(-1, 3072))
            np.testing.assert_array_equal(classes, labels[rows].ravel())


def test_cifar10_that_is_not_there_says_how_to_get_it(batches, tmp_path):
    folder, _, _ = batches
    with pytest.raises(DataError, match=r"looked for in data_dir, which is empty; .*cifar-10-python\.tar\.gz"):
        load_dataset("cifar10")
    with pytest.raises(DataError, match=r"looked for in .*elsewhere, which is not there; set data_dir to"):
        load_dataset("cifar10", tmp_path / "elsewhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"looked for in .*empty, which has none of them; set data_dir to"):
        load_dataset("cifar10", tmp_path / "empty")
    (folder / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"batches-py/data_batch_4 is missing or cannot be read .*; set data_dir to"):
        load_dataset("cifar10", folder)
    with pytest.raises(DataError, match=r"a.tar.gz holds no cifar-10-batches-py/data_batch_4; set data_dir to"):
        load_dataset("cifar10", archived(folder, tmp_path / "a.tar.gz"))


FOREIGN = [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>\n<p>Not found", gzip.compress(b"x")]


@pytest.mark.parametrize("content", FOREIGN)
def test_foreign_files_in_the_place_of_cifar10_are_named(batches, tmp_path, content):
    folder, _, _ = batches
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz (is no tar|holds no).*; set data_dir to"):
        load_dataset("cifar10", archive)
    (folder / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3 in .*batches-py is damaged or another file: MD5 .*; set"):
        load_dataset("cifar10", folder)


@REUSED
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans(), st.booleans())
def test_a_damaged_archive_of_cifar10_is_refused_or_reads_the_same(batches, where, flips, zipped, truncated):
    folder, data, _ = batches
    whole = archived(folder, folder.parent / "whole.tar", "w:gz" if zipped else "w").read_bytes()
    where %= len(whole)
    damaged = whole[:where] if truncated else whole[:where] + bytes([whole[where] ^ flips]) + whole[where + 1 :]
    (folder.parent / "damaged.tar").write_bytes(damaged)
    found = loaded("cifar10", folder.parent / "damaged.tar")
    if isinstance(found, str):
        assert "damaged.tar" in found
        assert "set data_dir to" in found
    else:
        np.testing.assert_array_equal(found[0].transpose(0, 3, 1, 2).reshape(20, -1), data[:5].reshape(20, -1))


def write_idx(folder: Path, monkeypatch, *, n: int = 6, zipped: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Small files in the format of Fashion-MNIST's, zipped or as torchvision leaves them: images, labels of train."""
    place = folder if zipped else folder / "FashionMNIST" / "raw"
    place.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for split, files in fashion_mnist.FILES.items():
        pair = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8), np.arange(n, dtype=np.uint8) % 10
        table = []
        for (name, _, _), array in zip(files, pair, strict=True):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()
            table.append((name, hashlib.sha256(content).hexdigest(), array.shape))
            (place / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(content) if zipped else content)
        monkeypatch.setitem(fashion_mnist.FILES, split, tuple(table))
        arrays[split] = pair
    return arrays["train"]


@pytest.mark.parametrize("zipped", [True, False])
def test_fashion_mnist_files_are_read_zipped_or_not(tmp_path, monkeypatch, zipped):
    images, labels = write_idx(tmp_path, monkeypatch, zipped=zipped)
    found, found_labels = load_dataset("fashion_mnist", tmp_path)
    np.testing.assert_array_equal(found[..., 0], images)
    np.testing.assert_array_equal(found_labels, labels)
    (path,) = tmp_path.rglob("train-labels-idx1-ubyte*")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.* is damaged.*set data_dir"):
        load_dataset("fashion_mnist", tmp_path)
    path.unlink()
    with pytest.raises(ConfigError, match=r"train-labels-idx1-ubyte\[.gz\] of fashion_mnist is in none of .*data_dir"):
        open_experiment(dataset="fashion_mnist", data_dir=str(tmp_path), n_retrain=1, run_dir=tmp_path / "run")


@REUSED
@given(st.integers(0, 10**6), st.integers(0, 255), st.booleans())
def test_a_damaged_file_of_fashion_mnist_is_refused_or_reads_the_same(tmp_path, where, flips, truncated):
    with pytest.MonkeyPatch.context() as monkeypatch:
        images, _ = write_idx(tmp_path, monkeypatch)
        path = tmp_path / "train-images-idx3-ubyte.gz"
        whole = path.read_bytes()
        where %= len(whole)
        rest = b"" if truncated else bytes([whole[where] ^ flips]) + whole[where + 1 :]
        path.write_bytes(whole[:where] + rest)
        found = loaded("fashion_mnist", tmp_path)
    if isinstance(found, str):
        assert str(path) in found
        assert "set data_dir" in found
    else:
        np.testing.assert_array_equal(found[0][..., 0], images)


def test_no_more_of_a_file_is_read_than_it_should_hold(tmp_path, monkeypatch):
    """A zipped file of some kB may claim to hold gigabytes."""
    write_idx(tmp_path, monkeypatch)
    stream, read = io.BytesIO(gzip.compress(b"\0" * 10_000_000)), []

    class Counting(gzip.GzipFile):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

    monkeypatch.setattr(fashion_mnist.gzip, "open", lambda path, mode: Counting(fileobj=stream))
    with pytest.raises(DataError, match="damaged or another file"):
        load_dataset("fashion_mnist", tmp_path)
    assert read == [16 + 6 * 28 * 28 + 1]


def test_a_run_on_fashion_mnist_measures_against_held_out_images(tmp_path, monkeypatch):
    write_idx(tmp_path, monkeypatch, n=24)
    changes = {"dataset": "fashion_mnist", "n_retrain": 1, "n_images_initial": 64, "n_images_per_retraining": 32}
    experiment = open_experiment(**{**TINY_RUN, **changes}, data_dir=str(tmp_path), run_dir=tmp_path / "run")
    records = list(experiment.records())
    assert all(np.isfinite(record.metrics["fld"]) for record in records)
    assert records[1].metrics["rank"] <= 23
    floor = read_floor(tmp_path / "run")
    assert floor["features"] == "fashion-mnist-classifier-64"
    assert len(floor["fld"]) == 20


def test_a_run_on_digits_measures_against_held_out_images(tmp_path):
    experiment = open_experiment(model="gaussian", n_retrain=0, run_dir=tmp_path / "run")
    assert len(experiment.real) == 1500
    (record,) = experiment.records()
    assert np.isfinite(record.metrics["fld"])
