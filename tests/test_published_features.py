"""Inception and DINOv2: equal to the networks that they are made of, and clear about weights that cannot be used."""

import dataclasses
import hashlib
import warnings
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch

from iterative_retraining.errors import WeightsError
from iterative_retraining.metrics.features import FEATURES, build_features
from iterative_retraining.metrics.features.dino import DinoFeatures
from iterative_retraining.metrics.features.inception import InceptionFeatures, InceptionSpace, WeightsFile

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


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
