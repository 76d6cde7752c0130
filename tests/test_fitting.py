"""What one fit hands to the next, and how one that was killed goes on from its middle."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from iterative_retraining.config import RunConfig
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import Fit, TrainingConfig, flatten_parameters
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.runs.directory import FIT, Run
from iterative_retraining.training_set import TrainingSet

NETWORK = UNetConfig(
    resolution=8, colours=1, channels=4, multipliers=(1, 2), blocks_per_level=1, attention_resolutions=(),
    dropout=0.1, augment_labels=9,
)  # fmt: skip
CONFIG = TrainingConfig(network=NETWORK, n_images_initial=320, n_images_per_retraining=160, batch_size=32)
CARRYING = replace(CONFIG, keep_optimizer=True, next_start="raw", ema_halflife_images=100)


def new_net() -> torch.nn.Module:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Flatten(), torch.nn.Linear(12, 2)).double()
    return net.to(memory_format=torch.channels_last)


def gradients(net: torch.nn.Module, n: int) -> list[list[torch.Tensor]]:
    rng = torch.Generator().manual_seed(1)
    return [[torch.randn(p.shape, generator=rng) for p in net.parameters()] for _ in range(n)]


def fitted(net, flat, config, steps, carried):
    fit = Fit(net, flat, config, from_scratch=False, carried=carried)
    for step in steps:
        for p, gradient in zip(net.parameters(), step, strict=True):
            p.grad.copy_(gradient)
        fit.step(32)
    return fit.finish()


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_two_fits_that_carry_everything_are_one_long_fit(clip):
    """Against torch's own Adam and a textbook EMA, parameter by parameter."""
    config = replace(CARRYING, clip_gradient_norm=clip)
    net = new_net().float()
    expected = deepcopy(net)
    adam = torch.optim.Adam(expected.parameters(), lr=config.learning_rate)
    ema, steps = deepcopy(expected), gradients(net, 10)
    for step in steps:
        for p, gradient in zip(expected.parameters(), step, strict=True):
            p.grad = gradient.clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(expected.parameters(), clip)
        adam.step()
        for kept, p in zip(ema.parameters(), expected.parameters(), strict=True):
            kept.data.lerp_(p.data, 1 - 0.5 ** (32 / config.ema_halflife_images))
    flat = flatten_parameters(net)
    carried = fitted(net, flat, config, steps[:4], {})
    assert any(not torch.equal(p, q) for p, q in zip(net.parameters(), expected.parameters(), strict=True))
    carried = fitted(net, flat, config, steps[4:], carried)
    for (name, p), q, raw in zip(net.named_parameters(), ema.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(torch.from_numpy(carried[f"raw/{name}"]), raw.detach(), rtol=1e-5, atol=1e-7)


def test_by_default_a_fit_is_handed_nothing_but_the_ema():
    net = new_net().float()
    flat = flatten_parameters(net)
    assert fitted(net, flat, CONFIG, gradients(net, 2), {}) == {}
    before = flat.detach().clone()
    foreign = {"raw/0.weight": np.zeros((3, 1, 3, 3), np.float32)}  # of a run that hands on more
    assert fitted(net, flat, CONFIG, [], foreign) == {}
    assert torch.equal(flat, before)


def test_the_ramp_begins_anew_in_every_retraining_or_belongs_to_theta_0():
    config = replace(CONFIG, learning_rate=0.5, lr_rampup_images=1000)
    assert [config.rate(n, from_scratch=False) for n in (100, 1000, 5000)] == [0.05, 0.5, 0.5]
    intended = replace(config, restart_ramp=False)
    assert [intended.rate(n, from_scratch=False) for n in (100, 5000)] == [0.5, 0.5]
    assert intended.rate(100, from_scratch=True) == 0.05


class Killed(Exception):
    pass


class Memory:
    """A store in memory that counts."""

    def __init__(self):
        self.kept, self.n_saved, self.n_loaded = None, 0, 0
        self.in_fit, self.stop = False, None

    def load_fit(self, seed):
        found = self.kept is not None and self.kept[0] == seed
        self.n_loaded += found
        return self.kept[1] if found else None

    def save_fit(self, seed, state):
        self.kept, self.n_saved = (seed, {k: v.copy() for k, v in state.items()}), self.n_saved + 1


@pytest.mark.parametrize(
    ("process", "config"),
    [
        (EDM(), replace(CONFIG, augment_probability=0.5)),
        (EDM(), CARRYING),
        (FlowMatching(), replace(CONFIG, precision="bfloat16")),
    ],
)
def test_a_fit_killed_in_its_middle_goes_on_to_the_same_bits(digits, process, config):
    """Dropout, augmentation and noise included; theta_0 and a retraining."""
    data, store = TrainingSet.of(digits[:100]), Memory()
    whole = NetworkModel(process, config).fit(data, seed=1).fit(data, seed=2)

    def killed_at(n_killed):
        def progress(n_seen, n_images):
            if n_seen == n_killed:
                raise Killed

        return progress

    state = {}
    for seed, budget in ((1, config.n_images_initial), (2, config.n_images_per_retraining)):
        for n_killed in (96, 128, budget + 1):
            model = NetworkModel(process, config)
            model.keep_fits(store, 64)
            if state:
                model.load_state_dict(state)
            try:
                model.fit(data, seed=seed, progress=killed_at(n_killed))
            except Killed:
                continue
            state = model.state_dict()
    assert store.n_loaded == 4
    expected = whole.state_dict()
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array)


def test_a_checkpoint_of_another_fit_or_a_damaged_one_is_not_used(tmp_path):
    run = Run(tmp_path / "run", RunConfig())
    state = {"a/b": np.arange(3.0, dtype=np.float32), "n_seen": np.array(7)}
    run.save_fit(5, state)
    assert run.load_fit(6) is None
    for name, array in run.load_fit(5).items():
        np.testing.assert_array_equal(array, state[name])
    content = bytearray((tmp_path / "run" / FIT).read_bytes())
    content[-1] ^= 1
    (tmp_path / "run" / FIT).write_bytes(content)
    assert run.load_fit(5) is None
    (tmp_path / "run" / FIT).write_bytes(content[:-3])
    assert run.load_fit(5) is None


def test_autocast_changes_little_and_keeps_weights_in_float32(digits):
    exact = NetworkModel(EDM(n_steps=3), CONFIG).fit(TrainingSet.of(digits), seed=0)
    low = NetworkModel(EDM(n_steps=3), replace(CONFIG, precision="bfloat16"))
    low.load_state_dict(exact.state_dict())
    images = torch.from_numpy(digits[:256])
    losses = [m._loss(images, torch.Generator().manual_seed(0)).item() for m in (exact, low)]
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert {p.dtype for p in low.net.parameters()} == {torch.float32}
    difference = exact.sample(50, seed=0).astype(int) - low.sample(50, seed=0)
    assert np.abs(difference).mean() < 3


def test_a_compiled_network_computes_what_the_plain_one_does(digits, monkeypatch):
    """Traced, but not turned into machine code, which takes minutes: benchmarks/edm_reference.py runs that."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    network = replace(NETWORK, dropout=0.0)
    plain = NetworkModel(EDM(n_steps=3), replace(CONFIG, network=network, sampling_batch_size=32))
    compiled = NetworkModel(EDM(n_steps=3), replace(plain.config, compile=True))
    data = TrainingSet.of(digits)
    states = [model.fit(data, seed=0).state_dict() for model in (plain, compiled)]
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, rtol=1e-3, atol=1e-5)
    samples = [model.sample(40, seed=0).astype(int) for model in (plain, compiled)]  # a whole batch, and a rest
    assert np.abs(samples[0] - samples[1]).max() <= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"next_start": "mean"}, r"next_start = 'mean' is not allowed; allowed: ema, raw"),
        ({"precision": "fp8"}, r"precision = 'fp8' is not allowed; allowed: float32, bfloat16"),
        ({"compile": "yes"}, r"compile = 'yes' is not allowed"),
        ({"clip_gradient_norm": -1.0}, r"clip_gradient_norm = -1.0"),
        ({"augment_probability": 1.5}, r"augment_probability = 1.5"),
        ({"augment_probability": 0.1, "network": replace(NETWORK, augment_labels=0)}, r"set augment_labels = 9"),
        ({"warm_start": False, "keep_optimizer": True}, r"need warm_start"),
    ],
)
def test_impossible_choices_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
