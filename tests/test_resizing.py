"""clean-fid's resizing in batches, and features that a GPU is sent once: equal to what they take the place of."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from iterative_retraining import distributed
from iterative_retraining.errors import ConfigError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import features as spaces
from iterative_retraining.metrics.features import FEATURES, InceptionSpace, build_features, cached
from iterative_retraining.metrics.features.resizing import BatchedResizer, chosen_resizing
from iterative_retraining.metrics.fid import FID
from iterative_retraining.metrics.pairs import Rows
from iterative_retraining.models.networks.ddpmpp import attend

RNG = np.random.default_rng(0)


def clean_fid(mode: str):
    with warnings.catch_warnings():  # clean-fid uses what torch and torchvision deprecate
        warnings.simplefilter("ignore")
        from cleanfid.resize import build_resizer

        return build_resizer(mode)


@pytest.mark.parametrize("shape", [(32, 32), (20, 45)])
@pytest.mark.parametrize("mode", ["clean", "legacy_pytorch"])
def test_batches_are_resized_as_clean_fid_does_it_one_by_one(mode, shape):
    """To 5e-4 of a grey level, of 255; with black and white, where the bicubic filter overshoots and is clipped."""
    resize = clean_fid(mode)
    images = np.concatenate([RNG.integers(0, 256, (2, *shape, 3)), RNG.integers(0, 2, (2, *shape, 3)) * 255])
    expected = np.stack([resize(image) for image in images.astype(np.uint8)])
    found = BatchedResizer(resize, "cpu")(images.astype(np.uint8)).permute(0, 2, 3, 1).numpy()
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-4)
    assert (found.min(), found.max()) == (0.0, 255.0)


def space(resizing: str):
    """An Inception space with a small network in the place of Inception: means over a grid, 192 features."""

    def network(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x / 32, 8).flatten(1)

    weights = SimpleNamespace(find=lambda given: given, sha256="0" * 64)
    return InceptionSpace("clean", weights, lambda file, device: network).build("", "cpu", resizing)


def test_fid_does_not_tell_the_two_apart(tmp_path):
    """On random images it moves by less than 1e-4."""
    a, b = (
        RNG.integers(0, 256, (150, 32, 32, 3), dtype=np.uint8),
        RNG.integers(0, 200, (150, 32, 32, 3), dtype=np.uint8),
    )
    exact, batched = (space(name) for name in ("exact", "batched"))
    fids = [FID()(f(a), real=f(b))["fid"] for f in (exact, batched)]
    assert fids[0] > 1
    assert fids[1] == pytest.approx(fids[0], abs=1e-4)
    for f in (exact, batched):  # of one name, and yet not of one file
        cached(f, a[:10], tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_exact_on_a_cpu_and_batched_on_a_gpu_if_nobody_says_otherwise(tmp_path):
    assert [chosen_resizing("auto", device) for device in ("cpu", "cuda")] == ["exact", "batched"]
    assert [chosen_resizing(name, "cuda") for name in ("exact", "batched")] == ["exact", "batched"]
    with pytest.raises(ConfigError, match=r"features_resizing = 'fast' is not allowed; allowed: auto, exact, batched"):
        open_experiment(n_retrain=0, features_resizing="fast", run_dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"features_resizing = 'batched' is not used by features 'digits'"):
        build_features("auto", "digits", resizing="batched")
    of_inception = [name for name, entry in FEATURES.items() if isinstance(entry, InceptionSpace)]
    assert of_inception == [name for name in FEATURES if name.startswith("inception")]


def test_the_manifest_says_how_images_were_resized(tmp_path, monkeypatch):
    from iterative_retraining.runs.provenance import read_manifest

    def build(name, dataset, *, weights, device, resizing):
        return space(resizing)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("iterative_retraining.experiment.build_features", build)
    monkeypatch.setattr(spaces, "ClassifierFeatures", ())
    given = {"model": "gaussian", "n_real": 12, "n_retrain": 0, "features_resizing": "batched"}
    experiment = open_experiment(run_dir=tmp_path / "run", **given)
    attempt = read_manifest(experiment.run.path)["attempts"][-1]
    assert attempt["features_resizing"] == "batched"
    assert "tf32" not in attempt


def test_rows_on_a_device_are_those_of_the_host_to_the_bit():
    features = RNG.normal(size=(300, 7)).astype(np.float32)
    centre, scale = RNG.normal(size=7), RNG.uniform(1, 2, size=7)
    for given in ((centre, "cpu", scale), (0.0, "cpu", 1.0)):
        host, device = Rows(features, *given), Rows(features, given[0], "cpu:0", given[2])  # as if it were another one
        for rows in (slice(0, 100), slice(250, 300)):
            assert torch.equal(host[rows], device[rows])
            assert device[rows].dtype == torch.float64
        assert device._sent is device._sent


def test_attention_with_heads_is_that_without():
    query, key, value = torch.randn(3, 2, 64, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = torch.softmax(query @ key.mT / 4, dim=-1)
    for heads in (True, False):
        torch.testing.assert_close(attend(query, key, value, heads=heads), weights @ value)


def test_float32_is_float32_on_a_gpu():
    before = [module.allow_tf32 for module in (torch.backends.cuda.matmul, torch.backends.cudnn)]
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        assert distributed.set_float32("cpu") == {}
        assert torch.backends.cudnn.allow_tf32
        assert distributed.set_float32("cuda:0") == {"tf32": False}
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
