"""Folders of diffusers' models, written here by diffusers."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from iterative_retraining.errors import ConfigError, PretrainedError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import resolve_options
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.networks.foreign import DiffusersUNetConfig
from iterative_retraining.models.pretrained import load_ddpm, state_that_fits
from iterative_retraining.models.pretrained.ddpm import RENAMED
from iterative_retraining.runs.origin import init_identity

from conftest import Calls

# config.json and scheduler_config.json of https://huggingface.co/google/ddpm-cifar10-32
PUBLISHED = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": None,
    "block_out_channels": [128, 256, 256, 256], "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "downsample_padding": 0,
    "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 32,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}  # fmt: skip
SCHEDULER = {
    "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
    "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None,
    "variance_type": "fixed_large",
}  # fmt: skip
NETWORK = DiffusersUNetConfig(
    resolution=8, colours=1, channels=8, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
    dropout=0.0, norm_groups=4,
)  # fmt: skip
OPTIONS = {"network": "diffusers", "channels": 8, "norm_groups": 4, "n_steps": 2, "sampling_batch_size": 700}


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet2DModel(**NETWORK.arguments()).eval()


@pytest.fixture
def folder(tmp_path, unet):
    """The network's folder, its schedule beside it, as google/ddpm-cifar10-32 is laid out."""
    unet.save_pretrained(tmp_path / "model")
    DDPMScheduler().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(file: Path, **changes) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def same_noise(found, unet):
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    with torch.no_grad():
        torch.testing.assert_close(found(x, t), unet(x, t).sample)


def test_the_noise_is_that_of_diffusers(folder, unet):
    found = load_ddpm(folder)
    assert (found.network, found.process) == (NETWORK, DDPM())
    same_noise(found, unet)
    assert not found.net.training


def test_a_pipeline_and_a_pickled_file_are_read_too(tmp_path, unet):
    scheduler = DDPMScheduler(num_train_timesteps=50, beta_start=0.001, beta_end=0.3)
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline", safe_serialization=False)
    assert not list(tmp_path.rglob("*.safetensors"))
    for path in (tmp_path / "pipeline", tmp_path / "pipeline" / "unet"):
        found = load_ddpm(path)
        same_noise(found, unet)
        assert found.process == DDPM(n_levels=50, beta_first=0.001, beta_last=0.3, n_steps=50)
        expected = scheduler.alphas_cumprod.double()
        torch.testing.assert_close(found.process.levels(), expected, rtol=1e-5, atol=1e-7)


def test_old_names_of_the_layers_of_attention_are_understood(folder, unet):
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    for old, new in RENAMED.items():
        tensors = {name.replace(f".{new}.", f".{old}."): t for name, t in tensors.items()}
    assert sum(".query." in name for name in tensors) == 2 * 4  # weights and biases; down, middle, and twice up
    save_file(tensors, file)
    same_noise(load_ddpm(folder), unet)
    same_noise(load_ddpm(folder), UNet2DModel.from_pretrained(folder, local_files_only=True).eval())


def test_the_published_files_are_the_default_network_and_the_default_process(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    with torch.device("meta"):
        state = UNet2DModel.from_config(PUBLISHED).state_dict()
    one = torch.ones(1)  # all that the file holds of each tensor beside its shape
    torch.save({name: one.expand(t.shape) for name, t in state.items()}, tmp_path / "diffusion_pytorch_model.bin")
    found = load_ddpm(tmp_path)
    assert (replace(found.network, dropout=0.1), found.process) == (DiffusersUNetConfig(), DDPM())
    assert DDPM().n_steps == 100
    theirs = DDIMScheduler.from_config(SCHEDULER).alphas_cumprod.double()
    torch.testing.assert_close(DDPM().levels(), theirs, rtol=1e-4, atol=1e-7)  # theirs is a product in float32
    cifar10 = {"dataset": "cifar10", "item_shape": (32, 32, 3)}
    options = resolve_options("ddpm", "cifar10", {"network": "diffusers"})
    state = state_that_fits(tmp_path, model="ddpm", options=options, **cifar10)
    assert sum(array.size for array in state.values()) == 35_746_307
    with pytest.raises(PretrainedError, match=r"needs model = 'ddpm' and, in model_options, {'network': 'diffusers'}$"):
        state_that_fits(tmp_path, model="ddpm", options=resolve_options("ddpm", "cifar10", {}), **cifar10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "it holds a UNet2DConditionModel; only UNet2DModel can be read"),
        ({"num_class_embeds": 10}, r"a class-conditional network \(num_class_embeds = 10\); wanted is one without"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type = 'fourier' is not"),
        ({"up_block_types": ["UpBlock2D", "UpBlock2D"]}, r"up_block_types = \['UpBlock2D', 'UpBlock2D'\] is not"),
        ({"out_channels": 2}, "out_channels = 2 is not a network of this package, which has 1"),
        ({"sample_size": None}, "sample_size = None says not how large"),
        ({"block_out_channels": [8, 12]}, r"block_out_channels = \[8, 12\] is not"),
        ({"block_out_channels": []}, "model: "),
        ({"layers_per_block": 2}, r"its weights are not those of its configuration: inner\.down_blocks\.0\.resnets\.1"),
        ({"something_new": "on"}, "something_new = 'on' is not a network of this package, which has None"),
    ],
)  # fmt: skip
def test_other_networks_are_refused_with_the_reason(folder, changes, message):
    change(folder / "config.json", **changes)
    with pytest.raises(PretrainedError, match=message):
        load_ddpm(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_type": "v_prediction"}, "prediction_type = 'v_prediction' is not the DDPM of this package"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule = 'squaredcos_cap_v2' is not .*, which has 'linear'"),
        ({"beta_end": 2.0}, "beta_last = 2.0 is not allowed"),
    ],
)  # fmt: skip
def test_other_processes_are_refused_with_the_reason(folder, changes, message):
    change(folder / "scheduler_config.json", **changes)
    with pytest.raises(PretrainedError, match=message):
        load_ddpm(folder)


def test_an_option_that_is_off_does_not_matter(folder, unet):
    change(folder / "config.json", something_new=None, _name_or_path="somewhere")
    same_noise(load_ddpm(folder), unet)


def test_missing_and_damaged_files_are_refused(folder):
    weights = folder / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:1000])
    with pytest.raises(
        PretrainedError,
        match=r"\.safetensors is damaged .*to be a safetensors file whose end is missing",
    ):
        load_ddpm(folder)
    weights.write_bytes(content)
    for text in ("{", "[]"):
        (folder / "config.json").write_text(text)
        with pytest.raises(PretrainedError, match=r"config\.json is .*damaged"):
            load_ddpm(folder)
    (folder / "config.json").unlink()
    with pytest.raises(PretrainedError, match=r"config\.json is missing"):
        load_ddpm(folder)
    weights.unlink()
    with pytest.raises(PretrainedError, match="holds no weights of a diffusers model: neither diffusion_pytorch_model"):
        load_ddpm(folder)


def test_a_hostile_pickled_file_is_refused_and_runs_nothing(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(Calls(os.system, "touch executed"), "diffusion_pytorch_model.bin")
    with pytest.raises(PretrainedError, match=r"is refused: it asks for posix\.system, .*nothing of it was executed"):
        load_ddpm(folder)
    assert not Path("executed").exists()


def test_a_run_starts_from_such_a_folder_and_retrains(folder, tmp_path):
    run = {"model": "ddpm", "init": str(folder), "n_images_per_retraining": 128, "model_options": OPTIONS, "lam": 0.1}
    experiment = open_experiment(**run, n_retrain=1, run_dir=tmp_path / "run")
    start, end = experiment.records()
    assert (start.n_images, end.n_images) == (0, 128)
    weights = (folder / "diffusion_pytorch_model.safetensors").read_bytes()
    assert experiment.run.config.init == f"model@sha256:{hashlib.sha256(weights).hexdigest()}"
    shutil.move(folder, tmp_path / "elsewhere" / "model")
    assert init_identity(tmp_path / "elsewhere" / "model") == experiment.run.config.init
    first = {
        name: t.numpy() for name, t in load_file(next((tmp_path / "run").glob("checkpoint-*0.safetensors"))).items()
    }
    state = load_ddpm(tmp_path / "elsewhere" / "model").state
    assert all(np.array_equal(first[name], array) for name, array in state.items())
    assert not all(np.array_equal(experiment.run.load_state()[name], array) for name, array in state.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "edm"}, r"needs model = 'ddpm' and, in model_options, {'network': 'diffusers', 'channels': 8"),
        ({"model_options": OPTIONS | {"freq_shift": 0}}, r"in model_options, {'freq_shift': 1}"),
        ({"model_options": OPTIONS | {"n_levels": 500}}, r"in model_options, {'n_levels': 1000}"),
    ],
)  # fmt: skip
def test_a_run_that_the_weights_do_not_fit_is_refused_before_it_starts(folder, tmp_path, changes, message):
    run = {"model": "ddpm", "init": str(folder), "n_retrain": 0, "model_options": OPTIONS}
    with pytest.raises(ConfigError, match=message):
        open_experiment(**run | changes, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_of_another_size_are_refused(folder, tmp_path):
    change(folder / "config.json", sample_size=16)
    with pytest.raises(ConfigError, match=r"is for images of 16 x 16 x 1; the items of digits are 8 x 8 x 1"):
        open_experiment(model="ddpm", init=str(folder), n_retrain=0, model_options=OPTIONS, run_dir=tmp_path / "run")
