from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from iterative_retraining.errors import NonFiniteLossError
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig, flatten_parameters, shuffled_batches
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.training_set import TrainingSet

from edm_training import plain_training

NETWORK = UNetConfig(
    resolution=8,
    colours=1,
    channels=4,
    multipliers=(1, 2),
    blocks_per_level=1,
    attention_resolutions=(),
    dropout=0.1,
    augment_labels=0,
)
CONFIG = TrainingConfig(network=NETWORK, n_images_initial=320, n_images_per_retraining=160, batch_size=32)
new_edm = partial(NetworkModel, EDM(n_steps=4))
FLOWS = [FlowMatching(n_steps=2), FlowMatching(solver="dopri5", tolerance=1e-2)]
PROCESSES = [EDM(n_steps=4), *FLOWS, DDPM(n_steps=5), DDPM(n_steps=5, solver="ancestral_posterior")]


def test_flat_parameters_are_views_with_views_of_gradients():
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.Flatten(), torch.nn.Linear(3, 1)).to(
        memory_format=torch.channels_last
    )
    before = [p.detach().clone() for p in net.parameters()]
    x = torch.randn(5, 2, 3, 3)
    net(x).sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    flat = flatten_parameters(net)
    for p, old in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(p.detach(), old)
    net(x).sum().backward()
    for p, grad in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.grad, grad)
    with torch.no_grad():
        flat.zero_()
    assert all((p == 0).all() for p in net.parameters())
    assert flat.grad.norm() > 0


def test_batches_are_whole_shuffles_of_exactly_the_budget():
    batches = list(shuffled_batches(10, 25, 4, seed=0))
    assert [len(b) for b in batches] == [4] * 6 + [1]
    seen = np.concatenate(batches)
    np.testing.assert_array_equal(np.sort(seen[:10]), np.arange(10))
    np.testing.assert_array_equal(np.sort(seen[10:20]), np.arange(10))
    assert list(shuffled_batches(10, 0, 4, seed=0)) == []


def test_the_fast_loop_equals_the_textbook_loop(digits):
    data = TrainingSet.of(digits)
    network = replace(NETWORK, dropout=0.0)  # dropout draws in memory order, and the loops differ in memory format
    model = new_edm(replace(CONFIG, network=network, ema_halflife_images=200)).fit(data, seed=0)
    expected = plain_training(model, data, seed=1, n_images=CONFIG.n_images_per_retraining)
    model.fit(data, seed=1)
    for p, q in zip(model.net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=2e-6)


def test_fit_lowers_the_loss_and_refits_go_on_from_there(digits):
    data = TrainingSet.of(digits)
    model = new_edm(
        replace(CONFIG, n_images_initial=6400, ema_halflife_images=500, network=replace(NETWORK, dropout=0.0))
    )

    def loss():
        with torch.no_grad():
            return model._loss(torch.from_numpy(digits[:512]), torch.Generator().manual_seed(0)).item()

    model._new_network(0)
    before = loss()
    model.net = None
    model.fit(data, seed=0)
    after = loss()
    assert after < 0.8 * before
    model.fit(data, seed=1)
    assert loss() < 1.1 * after


def test_same_seed_same_weights_and_images_whatever_the_global_state(digits):
    data = TrainingSet.of(digits)
    torch.manual_seed(1)
    first = new_edm(CONFIG).fit(data, seed=5)
    torch.manual_seed(2)
    second = new_edm(CONFIG).fit(data, seed=5)
    other = new_edm(CONFIG).fit(data, seed=6)
    a, b, c = (m.state_dict() for m in (first, second, other))
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not all(np.array_equal(a[k], c[k]) for k in a)
    np.testing.assert_array_equal(first.sample(5, seed=0), second.sample(5, seed=0))


@pytest.mark.parametrize("process", PROCESSES)
def test_samples_do_not_depend_on_the_batch_size(digits, process):
    model = NetworkModel(process, CONFIG).fit(TrainingSet.of(digits), seed=0)
    whole = model.sample(20, seed=3)
    model.config = replace(CONFIG, sampling_batch_size=7)
    batched = model.sample(20, seed=3)
    assert (whole.shape, whole.dtype) == ((20, 8, 8, 1), np.uint8)
    assert np.abs(whole.astype(int) - batched).max() <= 1  # floating-point sums may round to the neighbouring level


def test_state_round_trips_and_foreign_weights_are_refused(digits):
    model = new_edm(CONFIG).fit(TrainingSet.of(digits), seed=0)
    other = new_edm(CONFIG)
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.sample(4, seed=0), model.sample(4, seed=0))
    wider = new_edm(replace(CONFIG, network=replace(NETWORK, channels=8)))
    with pytest.raises(ValueError, match="weights are of another network"):
        wider.load_state_dict(model.state_dict())


def test_warm_start_off_trains_afresh(digits):
    data, config = TrainingSet.of(digits), replace(CONFIG, warm_start=False)
    once = new_edm(config).fit(data, seed=2)
    twice = new_edm(config).fit(data, seed=1).fit(data, seed=2)
    assert all(np.array_equal(v, twice.state_dict()[k]) for k, v in once.state_dict().items())


def test_budget_zero_changes_nothing(digits):
    model = new_edm(replace(CONFIG, n_images_per_retraining=0)).fit(TrainingSet.of(digits), seed=0)
    before = model.state_dict()
    after = model.fit(TrainingSet.of(digits), seed=1).state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_non_finite_loss_names_step_and_last_finite_value(digits):
    model = new_edm(replace(CONFIG, learning_rate=1e30))
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) at step \d+ .* last finite loss was \d"):
        model.fit(TrainingSet.of(digits), seed=0)


def test_ema_decay_is_one_half_after_a_half_life():
    config = replace(CONFIG, ema_halflife_images=1000)
    assert config.ema_decay(1000, 5000, from_scratch=False) == pytest.approx(0.5)
    assert config.ema_decay(50, 1000, from_scratch=True) == pytest.approx(0.5)  # 5 % of 1000 images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images_initial": -1}, "n_images_initial = -1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
