import hashlib
import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from iterative_retraining.datasets import load_dataset
from iterative_retraining.errors import DataError


def test_digits_are_the_images_of_scikit_learn():
    images, labels = load_dataset("digits")
    original = load_digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(images[..., 0] / 255 * 16, original.images, atol=16 / 255 / 2)
    np.testing.assert_array_equal(labels, original.target)


def test_unknown_dataset_is_refused():
    with pytest.raises(ValueError, match=r"unknown dataset 'cifar'; allowed: digits"):
        load_dataset("cifar")


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
    meta = pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", written[:5])
    monkeypatch.setattr(CIFAR10, "test_list", written[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": hashlib.md5(meta).hexdigest()})
    return tmp_path, data, labels


def test_cifar10_is_read_from_its_batches(batches):
    folder, data, labels = batches
    images, classes = load_dataset("cifar10", folder)
    assert (images.shape, images.dtype) == ((20, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(images[5].transpose(2, 0, 1).ravel(), data[1, 1])
    np.testing.assert_array_equal(classes, labels[:5].ravel())
    images, classes = load_dataset("cifar10", folder, "test")
    np.testing.assert_array_equal(images.transpose(0, 3, 1, 2).reshape(4, -1), data[5])
    np.testing.assert_array_equal(classes, labels[5])


def test_cifar10_that_is_not_there_or_damaged_says_how_to_get_it(batches, tmp_path):
    folder, _, _ = batches
    with pytest.raises(DataError, match=r"looked for in data_dir, which is empty; .*cifar-10-python\.tar\.gz"):
        load_dataset("cifar10")
    with pytest.raises(DataError, match=r"elsewhere/cifar-10-batches-py is missing, incomplete or damaged; set"):
        load_dataset("cifar10", tmp_path / "elsewhere")
    file = folder / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="is missing, incomplete or damaged"):
        load_dataset("cifar10", folder)
