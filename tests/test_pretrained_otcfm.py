"""Checkpoints in the layout of torchcfm's, written here as its CIFAR-10 example writes them."""

import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.optim.lr_scheduler import LambdaLR
from torchcfm.models.unet.unet import UNetModelWrapper
from torchdiffeq import odeint

from iterative_retraining.errors import ConfigError, PretrainedError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.fitting import Fit
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.foreign import ADMConfig
from iterative_retraining.models.pretrained import load_otcfm_checkpoint, state_that_fits
from iterative_retraining.runs.origin import init_identity
from iterative_retraining.training_set import to_uint8

from conftest import Calls

NETWORK = ADMConfig(
    resolution=8, colours=1, channels=32, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(4,),
    head_channels=16,
)  # fmt: skip
OPTIONS = {"network": "adm", "attention_resolutions": [4], "head_channels": 16, "solver": "rk4", "n_steps": 1,
           "sampling_batch_size": 700}  # fmt: skip


def new_network():
    net = UNetModelWrapper(
        dim=(1, 8, 8), num_res_blocks=1, num_channels=32, channel_mult=[1, 2], num_heads=4, num_head_channels=16,
        attention_resolutions="4", dropout=0.1,
    )  # fmt: skip
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.1)
    return net


@pytest.fixture
def written(tmp_path):
    """A checkpoint after one step of training: its path, and the networks under its two keys."""
    torch.manual_seed(0)
    net = new_network()
    optim = torch.optim.Adam(net.parameters(), lr=2e-4)
    sched = LambdaLR(optim, lr_lambda=lambda step: min(step, 5000) / 5000)
    net(torch.rand(2), torch.randn(2, 1, 8, 8)).square().mean().backward()
    optim.step()
    sched.step()
    nets = {"net_model": net.eval(), "ema_model": copy.deepcopy(new_network()).eval()}

    def write(wrap=lambda net: net, **more):
        content = {key: wrap(net).state_dict() for key, net in nets.items()}
        content |= {"sched": sched.state_dict(), "optim": optim.state_dict(), "step": 400_000}
        torch.save(content | more, tmp_path / "otcfm.pt")
        return tmp_path / "otcfm.pt", nets

    return write


@pytest.mark.parametrize("wrap", [lambda net: net, torch.nn.DataParallel])
@pytest.mark.parametrize("key", ["ema_model", "net_model"])
def test_the_velocity_is_that_of_torchcfms_network(written, wrap, key):
    path, nets = written(wrap)
    found = load_otcfm_checkpoint(path, key, NETWORK)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.0, 0.4, 1.0])
    with torch.no_grad():
        torch.testing.assert_close(found(x, t), nets[key](t, x))
    assert found.process == FlowMatching(time_scale=1.0, solver="dopri5", tolerance=1e-5)
    assert not found.net.training


def test_images_are_those_that_torchdiffeq_makes_of_torchcfms_network(written):
    path, nets = written()
    options = resolve_options("flow_matching", "digits", OPTIONS | {"solver": "dopri5", "spacing": "time"})
    model = build_model("flow_matching", (8, 8, 1), options, n_images_initial=0, n_images_per_retraining=0)
    model.load_state_dict(load_otcfm_checkpoint(path, network=NETWORK).state)
    noise, times = model._noise(5, range(3), 0), torch.tensor([0.0, 1.0])
    for i, image in enumerate(model.sample(3, seed=5)):
        with torch.no_grad():
            x = odeint(nets["ema_model"], noise[[i]], times, rtol=1e-5, atol=1e-5, method="dopri5")[-1]
        theirs = to_uint8(x.permute(0, 2, 3, 1).numpy())[0]
        assert np.abs(theirs.astype(int) - image).max() <= 1  # rounding


def test_the_default_network_is_that_of_the_published_file(written, tmp_path):
    with pytest.raises(PretrainedError, match=r"its weights are not those of its configuration.*channels=128"):
        load_otcfm_checkpoint(written()[0])
    with torch.device("meta"):
        state = ADMConfig().build().inner.state_dict()
    one = torch.ones(1)  # all that the file holds of each tensor beside its shape
    torch.save({"ema_model": {name: one.expand(t.shape) for name, t in state.items()}}, tmp_path / "large.pt")
    cifar10 = {"dataset": "cifar10", "item_shape": (32, 32, 3)}
    options = resolve_options("flow_matching", "cifar10", {"network": "adm"})
    found = state_that_fits(tmp_path / "large.pt", model="flow_matching", options=options, **cifar10)
    assert sum(array.size for array in found.values()) == 35_746_307
    message = r"large\.pt needs model = 'flow_matching' and, in model_options, {'network': 'adm'}$"
    with pytest.raises(PretrainedError, match=message):
        state_that_fits(tmp_path / "large.pt", model="edm", options=resolve_options("edm", "cifar10", {}), **cifar10)


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (Calls(os.system, "touch executed"), "posix.system"),
        (Calls(eval, "open('executed', 'w')"), "eval"),
        (new_network, r".*new_network"),
    ],
)
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(tmp_path, monkeypatch, hostile, named):
    monkeypatch.chdir(tmp_path)
    torch.save({"ema_model": hostile}, "bad.pt")
    with pytest.raises(
        PretrainedError, match=rf"bad\.pt is refused: it asks for {named}, .*nothing of it was executed"
    ):
        load_otcfm_checkpoint("bad.pt", network=NETWORK)
    assert not Path("executed").exists()


def test_other_files_are_refused_with_the_reason(written, tmp_path):
    with pytest.raises(PretrainedError, match=r"nothing\.pt is not there"):
        load_otcfm_checkpoint(tmp_path / "nothing.pt")
    path, nets = written()
    for content in (path.read_bytes()[:5000], b"", b"text"):
        (tmp_path / "short.pt").write_bytes(content)
        with pytest.raises(PretrainedError, match=r"short\.pt is damaged, or no file of weights"):
            load_otcfm_checkpoint(tmp_path / "short.pt")
    with pytest.raises(PretrainedError, match="holds no network under the key 'ema', but: 'net_model', 'ema_model'"):
        load_otcfm_checkpoint(path, "ema")
    state = nets["ema_model"].state_dict()
    del state["out.0.bias"]
    with pytest.raises(PretrainedError, match=r"configuration: inner\.out\.0\.bias differs, first of 1: .* got None"):
        load_otcfm_checkpoint(written(ema_model=state)[0], network=NETWORK)
    with pytest.raises(PretrainedError, match=r"otcfm\.pt: it holds no tensors by name"):
        load_otcfm_checkpoint(written(ema_model={"weight": 3})[0], network=NETWORK)


def test_a_run_starts_from_such_a_file_and_retrains(written, tmp_path):
    path, _ = written()
    run = {"model": "flow_matching", "init": str(path), "n_images_per_retraining": 128, "lam": 0.1}
    experiment = open_experiment(**run, model_options=OPTIONS, n_retrain=1, run_dir=tmp_path / "run")
    start, end = experiment.records()
    assert (start.n_images, end.n_images) == (0, 128)
    assert experiment.run.config.init == init_identity(path)
    state = load_file(next(experiment.run.path.glob("checkpoint-*0.safetensors")))
    for name, array in load_otcfm_checkpoint(path, network=NETWORK).state.items():
        np.testing.assert_array_equal(state[name], array)
    assert any(not np.array_equal(state[name], array) for name, array in experiment.run.load_state().items())


def test_training_goes_on_with_the_raw_weights_and_moments_of_the_file_as_torchs_own_adam_does(written):
    path, nets = written()
    options = resolve_options("flow_matching", "digits", OPTIONS | {"next_start": "raw", "keep_optimizer": True})
    model = build_model("flow_matching", (8, 8, 1), options, n_images_initial=0, n_images_per_retraining=0)
    given = {"model": "flow_matching", "dataset": "digits", "item_shape": (8, 8, 1)}
    model.load_state_dict(state_that_fits(path, options=options, **given))
    fit = Fit(model.net, model._flat, model.config, from_scratch=False, carried=model._carried)
    theirs = nets["net_model"]
    adam = torch.optim.Adam(theirs.parameters())
    adam.load_state_dict(torch.load(path, weights_only=True)["optim"])
    adam.param_groups[0]["lr"] = model.config.learning_rate
    ours = dict(model.net.inner.named_parameters())
    for name, p in theirs.named_parameters():
        p.grad = torch.randn(p.shape)
        ours[name].grad.copy_(p.grad)
    adam.step()
    fit.step(128)
    for name, p in theirs.named_parameters():
        torch.testing.assert_close(ours[name], p)
    ema, after = load_otcfm_checkpoint(path, network=NETWORK).state, fit.state()
    decay = model.config.ema_decay(128, 128, from_scratch=False)
    for name, start in ema.items():
        expected = decay * start + (1 - decay) * after[f"raw/{name}"]
        np.testing.assert_allclose(after[f"ema/{name}"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({}, set()),
        ({"next_start": "raw"}, {"raw"}),
        ({"keep_optimizer": True}, {"exp_avg", "exp_avg_sq", "adam_steps"}),
    ],
)
def test_of_the_files_training_a_run_takes_what_its_fits_hand_on(written, options, kinds):
    given = {"model": "flow_matching", "dataset": "digits", "item_shape": (8, 8, 1)}
    options = resolve_options("flow_matching", "digits", OPTIONS | options)
    names = state_that_fits(written()[0], options=options, **given)
    carried = {name.removeprefix("carried/").partition("/")[0] for name in names if name.startswith("carried/")}
    assert carried == kinds


def test_moments_of_another_network_are_refused(written):
    other = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))])
    other.param_groups[0]["params"][0].sum().backward()
    other.step()
    with pytest.raises(PretrainedError, match=r"otcfm\.pt: the moments of the optimizer are not Adam's of this"):
        load_otcfm_checkpoint(written(optim=other.state_dict())[0], network=NETWORK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "ddpm"}, r"needs model = 'flow_matching' and, in model_options, {'network': 'adm', "),
        ({"model_options": OPTIONS | {"time_scale": 1000}}, r"in model_options, {'time_scale': 1.0}"),
        ({"model_options": OPTIONS | {"channels": 64}}, r"its weights are not those of its configuration"),
        ({"model": "spline_flow", "model_options": {}}, r"its weights are not those of its configuration"),
    ],
)
def test_a_run_that_the_weights_do_not_fit_is_refused_before_it_starts(written, tmp_path, change, message):
    run = {"model": "flow_matching", "init": str(written()[0]), "n_retrain": 0, "model_options": OPTIONS}
    if change.get("model") == "ddpm":
        change = change | {"model_options": {k: v for k, v in OPTIONS.items() if k != "solver"}}
    with pytest.raises(ConfigError, match=message):
        open_experiment(**run | change, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(
        ConfigError, match=r"weights\.bin is no file of weights that can be read: .pkl .* an empty file"
    ):
        open_experiment(n_retrain=0, init=str(tmp_path / "weights.bin"), run_dir=tmp_path / "run")
