import sys

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torchcfm.models.unet.unet import UNetModelWrapper

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import ConfigError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.networks.foreign import ADMConfig, DiffusersUNetConfig
from iterative_retraining.training_set import TrainingSet

SMALL = {"resolution": 8, "colours": 1, "channels": 32, "multipliers": (1, 2), "blocks_per_level": 1,
         "attention_resolutions": (4,), "head_channels": 16}  # fmt: skip
ADM = ADMConfig(**SMALL)
DIFFUSERS = DiffusersUNetConfig(**SMALL, norm_groups=8)
BUDGETS = {"n_images_initial": 32, "n_images_per_retraining": 32}


def filled(net):
    """``net`` for evaluation, with weights that leave none of its layers as nothing."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.2, generator=rng)
    return net.eval()


@pytest.mark.parametrize("config", [ADMConfig(), DiffusersUNetConfig()])
def test_published_configurations_have_the_published_number_of_parameters(config):
    with torch.device("meta"):
        net = config.build()
    assert sum(p.numel() for p in net.parameters()) == 35_746_307  # "35.7 million", Ho et al. 2020, appendix B


def test_the_published_adm_is_that_of_torchcfms_cifar10_example():
    with torch.device("meta"):
        theirs = UNetModelWrapper(
            dim=(3, 32, 32), num_res_blocks=2, num_channels=128, channel_mult=[1, 2, 2, 2], num_heads=4,
            num_head_channels=64, attention_resolutions="16", dropout=0.1,
        )  # fmt: skip
        ours = ADMConfig().build()
    assert str(ours.inner).partition("(")[2] == str(theirs).partition("(")[2]  # but for the name of the class


def test_adm_is_torchcfms_network_called_as_ours():
    theirs = UNetModelWrapper(
        dim=(1, 8, 8), num_res_blocks=1, num_channels=32, channel_mult=[1, 2], num_heads=4, num_head_channels=16,
        attention_resolutions="4", dropout=0.1,
    )  # fmt: skip
    net = filled(ADM.build())
    theirs.load_state_dict(net.inner.state_dict())
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(net(x, t), theirs.eval()(t, x))
    assert (net(x, t) - net(x, t.flip(0))).abs().max() > 1e-3


def test_the_diffusers_network_is_theirs_called_as_ours():
    theirs = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32, 64), layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=16, norm_num_groups=8, downsample_padding=0, flip_sin_to_cos=False, freq_shift=1,
        norm_eps=1e-6, dropout=0.1,
    )  # fmt: skip
    net = filled(DIFFUSERS.build())
    theirs.load_state_dict(net.inner.state_dict())
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    torch.testing.assert_close(net(x, t.float()), theirs.eval()(x, t).sample)
    assert (net(x, t) - net(x, t.flip(0))).abs().max() > 1e-3


@pytest.mark.parametrize("config", [ADM, DIFFUSERS])
def test_images_of_a_batch_do_not_mix(config):
    net, x, level = filled(config.build()), torch.randn(4, 1, 8, 8), torch.rand(4)
    torch.testing.assert_close(net(x, level)[2:3], net(x[2:3], level[2:3]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", ["adm", "diffusers"])
@pytest.mark.parametrize("model", ["edm", "flow_matching", "ddpm"])
def test_every_model_trains_and_samples_with_every_network(digits, model, network):
    given = {"network": network, "batch_size": 16, "n_steps": 2, "learning_rate": 1e-4}
    options = resolve_options(model, "digits", given)
    built = build_model(model, (8, 8, 1), options, **BUDGETS)
    before = built.state_bytes((8, 8, 1))
    state = built.fit(TrainingSet.of(digits), seed=0).state_dict()
    assert sum(array.nbytes for array in state.values()) == before
    again = build_model(model, (8, 8, 1), options, **BUDGETS)
    again.load_state_dict(state)
    np.testing.assert_array_equal(again.sample(3, seed=1), built.sample(3, seed=1))


def test_options_are_those_of_the_network():
    assert resolve_options("flow_matching", "cifar10", {})["time_scale"] == 1000.0
    adm = resolve_options("flow_matching", "cifar10", {"network": "adm"})
    assert (adm["time_scale"], adm["channels"], adm["multipliers"]) == (1.0, 128, (1, 2, 2, 2))
    assert "augment_labels" not in adm
    with pytest.raises(ValueError, match="unknown option 'augment_labels' of model 'edm' with network 'adm'; allowed:"):
        resolve_options("edm", "digits", {"network": "adm", "augment_labels": 9})
    with pytest.raises(ValueError, match="unknown network 'dit'; allowed: ddpmpp, adm, diffusers"):
        resolve_options("edm", "digits", {"network": "dit"})
    with pytest.raises(ValueError, match="unknown option 'network' of model 'spline_flow'; allowed:"):
        resolve_options("spline_flow", "digits", {"network": "adm"})


def test_the_network_is_part_of_a_runs_identity():
    assert RunConfig().identity()["options"]["network"] == "ddpmpp"
    assert RunConfig(options={"network": "ddpmpp"}).hash == RunConfig().hash
    config = RunConfig(options={"network": "adm"})
    assert config.identity()["options"]["network"] == "adm"
    assert config.hash != RunConfig().hash


@pytest.mark.parametrize(
    ("network", "package", "extra"), [("adm", "torchcfm", "otcfm"), ("diffusers", "diffusers", "ddpm")]
)
def test_a_missing_package_is_said_before_anything_is_written(tmp_path, monkeypatch, network, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"needs the package {package}, which is not installed: pip install 'iterative-retraining\[{extra}\]'"
    with pytest.raises(ConfigError, match=message):
        open_experiment(n_retrain=1, model="ddpm", model_options={"network": network}, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (ADMConfig, {"channels": 48}, "channels = 48 is not allowed: its group norms make it a multiple of 32"),
        (ADMConfig, {"head_channels": 48}, "head_channels = 48 is not allowed: it must divide the 64 channels"),
        (ADMConfig, {"head_channels": -1}, "head_channels = -1 is not allowed"),
        (ADMConfig, {"multipliers": (1, 0.5)}, "multipliers = .* is not allowed: they are whole numbers above 0"),
        (ADMConfig, {"resolution": 9}, "cannot be halved 1 times"),
        (DiffusersUNetConfig, {"norm_groups": 7}, "channels = 32 is not allowed: .* a multiple of 7"),
        (DiffusersUNetConfig, {"norm_groups": 0}, "norm_groups = 0 is not allowed"),
        (DiffusersUNetConfig, {"downsample_padding": 2}, "downsample_padding = 2 is not allowed; allowed: 0, 1"),
        (DiffusersUNetConfig, {"flip_sin_to_cos": "no"}, "flip_sin_to_cos = 'no' is not allowed"),
        (DiffusersUNetConfig, {"dropout": 1.0}, r"dropout = 1.0 is not allowed: it must lie in \[0, 1\)"),
    ],
)  # fmt: skip
def test_impossible_shapes_are_refused(config, change, message):
    with pytest.raises(ValueError, match=message):
        config(**SMALL | change)
