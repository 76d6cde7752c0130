import numpy as np
import pytest
from safetensors import safe_open
from sklearn.model_selection import train_test_split

from iterative_retraining.data import load_dataset
from iterative_retraining.metrics import features
from iterative_retraining.metrics.features import DIGITS_WEIGHTS, DigitsFeatures, accuracy, train_classifier


def test_committed_weights_are_small_and_say_how_they_were_made():
    assert DIGITS_WEIGHTS.stat().st_size < 2**20
    with safe_open(DIGITS_WEIGHTS, "np") as file:
        assert file.metadata()["seed"] == "0"
        assert float(file.metadata()["held_out_accuracy"]) > 0.95


def test_committed_weights_are_what_the_code_trains():
    images, labels = load_dataset("digits")
    committed, again = DigitsFeatures().net, train_classifier(images, labels, seed=0)
    for p, q in zip(committed.parameters(), again.parameters(), strict=True):
        # Bits may differ between processors, and training amplifies that; another seed gives a correlation near 0.
        assert np.corrcoef(p.detach().flatten(), q.detach().flatten())[0, 1] > 0.9


def test_the_classifier_generalises():
    images, labels = load_dataset("digits")
    train, test = train_test_split(np.arange(len(images)), test_size=0.2, random_state=1, stratify=labels)
    net = train_classifier(images[train], labels[train], seed=1)
    assert accuracy(net, images[test], labels[test]) > 0.95


def test_features_do_not_depend_on_the_batch_size(digits):
    whole = DigitsFeatures()(digits)
    assert (whole.shape, whole.dtype) == ((1797, 64), np.float32)
    np.testing.assert_allclose(DigitsFeatures(batch_size=100)(digits), whole, atol=1e-5)


def test_other_images_and_missing_weights_are_refused(digits, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"uint8 \(N, 8, 8, 1\), got float64"):
        DigitsFeatures()(digits.astype(float))
    monkeypatch.setattr(features, "DIGITS_WEIGHTS", tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="00_digits_features"):
        DigitsFeatures()
