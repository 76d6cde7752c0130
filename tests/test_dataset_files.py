"""Each layout of the files of a data set, whole and damaged, in small form."""

import gzip
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from iterative_retraining import experiment
from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import cifar10, fashion_mnist, fashion_mnist14, load_dataset
from iterative_retraining.errors import ConfigError, DataError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs.directory import read_floor

from conftest import TINY_RUN

RNG = np.random.default_rng(0)
REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


def loaded(name: str, place: Path) -> tuple[np.ndarray, np.ndarray] | str:
    """What the data set gives, or what its error says."""
    try:
        return load_dataset(name, place)
    except DataError as error:
        return str(error)


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


def edm_zip(path: Path, images: np.ndarray, labels: list[int] | None) -> Path:
    """As EDM's dataset_tool.py writes one: PNGs by number, not compressed, and a dataset.json."""
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(len(images))]
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_STORED) as archive:
        for name, image in zip(names, images, strict=True):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, format="png", compress_level=0, optimize=False)
            archive.writestr(name, stream.getvalue())
        pairs = labels and [[name, label] for name, label in zip(names, labels, strict=True)]
        archive.writestr("dataset.json", json.dumps({"labels": pairs}))
    return path


def test_edms_zip_of_cifar10_is_the_batches(batches, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar10, "N_TRAIN", 20)
    folder, _, labels = batches
    images, classes = load_dataset("cifar10", folder)
    place = edm_zip(tmp_path / "cifar10-32x32.zip", images, labels[:5].ravel().tolist())
    unpacked = tmp_path / "unpacked"
    zipfile.ZipFile(place).extractall(unpacked)
    (tmp_path / "alone").mkdir()
    shutil.copy(place, tmp_path / "alone")
    for data_dir in (place, unpacked, tmp_path / "alone"):
        found, found_labels = load_dataset("cifar10", data_dir)
        assert (found.dtype, found_labels.dtype) == (np.uint8, np.int64)
        np.testing.assert_array_equal(found, images)
        np.testing.assert_array_equal(found_labels, classes)
        assert load_dataset("cifar10", data_dir, "test")[0].shape == (0, 32, 32, 3)  # such a zip holds none
    with pytest.raises(DataError, match=r"no classes of cifar10 in a dataset\.json .*; set data_dir to"):
        load_dataset("cifar10", edm_zip(tmp_path / "no.zip", images, None))
    with pytest.raises(DataError, match=r"holds 19 files \*\.png, cifar10 has 20; set data_dir to"):
        load_dataset("cifar10", edm_zip(tmp_path / "few.zip", images[1:], None))
    (tmp_path / "short.zip").write_bytes(place.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"short\.zip is no zip.* it seems to be a zip whose end is missing"):
        load_dataset("cifar10", tmp_path / "short.zip")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_run_on_a_zip_without_held_out_images_measures_nothing_against_them(batches, tmp_path, monkeypatch, split):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cifar10, "N_TRAIN", 20)
    images, labels = load_dataset("cifar10", batches[0])
    place = edm_zip(tmp_path / "a.zip", images, labels.tolist()) if split == "train" else batches[0]
    real, held_out = experiment._load_images(RunConfig(dataset="cifar10", model="edm"), place)
    np.testing.assert_array_equal(real, images)
    assert (held_out is None) == (split == "train")


@pytest.mark.parametrize(
    ("name", "what"), [("data_batch_1.bin", "the binary version of CIFAR-10"), ("cifar-100-python", "CIFAR-100")]
)
def test_what_people_have_in_the_place_of_cifar10_is_named(tmp_path, name, what):
    (tmp_path / name).touch()
    with pytest.raises(DataError, match=rf"looked for in .*, which holds {what}.*; set data_dir to"):
        load_dataset("cifar10", tmp_path)
    with pytest.raises(DataError, match=rf"holds no cifar-10-batches-py/data_batch_1, but {what}.*; set data_dir to"):
        load_dataset("cifar10", archived(tmp_path / name, tmp_path / "other.tar"))


def test_a_download_that_was_not_finished_is_pointed_out(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz.part").touch()
    with pytest.raises(DataError, match=r"tar\.gz\.part lies beside it: that download was not finished"):
        load_dataset("cifar10", tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=r"which has none of them; cifar-10-python\.tar\.gz\.part lies beside it"):
        load_dataset("cifar10", tmp_path)


FOREIGN = [
    b"",
    b"version https://git-lfs.github.com/spec/v1\n",
    b"<!DOCTYPE html>\n<p>Not found",
    gzip.compress(b"x", mtime=0),
]


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


def test_fashion_mnist14_is_the_means_of_2_by_2_pixels(tmp_path, monkeypatch):
    whole, labels = write_idx(tmp_path, monkeypatch)
    images, found = load_dataset("fashion_mnist14", tmp_path)
    np.testing.assert_array_equal(found, labels)
    means = torch.nn.functional.avg_pool2d(torch.from_numpy(whole).double(), 2).numpy()
    np.testing.assert_array_equal(images[..., 0], np.floor(means + 0.5))
    np.testing.assert_array_equal(
        fashion_mnist14.halved(np.full((1, 2, 2, 3), 255, np.uint8)), np.full((1, 1, 1, 3), 255)
    )


def test_a_run_on_fashion_mnist_measures_against_held_out_images(tmp_path, monkeypatch):
    write_idx(tmp_path, monkeypatch, n=24)
    changes = {"dataset": "fashion_mnist", "n_real": 0, "n_retrain": 1}
    changes |= {"n_images_initial": 64, "n_images_per_retraining": 32}
    experiment = open_experiment(**{**TINY_RUN, **changes}, data_dir=str(tmp_path), run_dir=tmp_path / "run")
    records = list(experiment.records())
    assert all(np.isfinite(record.metrics["fld"]) for record in records)
    assert records[1].metrics["rank"] <= 23
    floor = read_floor(tmp_path / "run")
    assert floor["features"] == "fashion-mnist-classifier-64"
    assert len(floor["fld"]) == 3  # see conftest
