from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from iterative_retraining.distributed import Team
from iterative_retraining.errors import NonFiniteLossError
from iterative_retraining.models.ddpm import DDPM
from iterative_retraining.models.edm import EDM
from iterative_retraining.models.fitting import TrainingConfig, flatten_parameters, shuffled_batches
from iterative_retraining.models.flow_matching import FlowMatching
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.spline_flow import MaximumLikelihood, SplineFlowConfig
from iterative_retraining.models.training import NetworkModel
from iterative_retraining.training_set import TrainingSet, to_unit

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


def numbers_of_a_batch(process, x):
    """What `_loss` draws for x from a generator of seed 0."""
    rng = torch.Generator().manual_seed(0)
    level_noise = torch.randn(len(x), generator=rng)
    return level_noise, process.couple_noise(x[None], torch.empty_like(x).normal_(generator=rng)[None])[0]


@pytest.mark.parametrize("process", [*PROCESSES[:4], MaximumLikelihood()])
def test_the_gradient_is_the_weighted_sum_of_those_of_the_images(digits, process):
    network = SplineFlowConfig(resolution=8, n_transforms=1, width=8) if process == MaximumLikelihood() else NETWORK
    model = NetworkModel(process, replace(CONFIG, network=network))
    model._new_network(0)
    model.net.eval()
    images, weights = torch.from_numpy(digits[:6]), torch.tensor([0.5, 2.0, 0.0, 1.0, 1.5, 1.0])
    with torch.no_grad():  # the last layer starts as nothing, and so would the gradients of all others
        model._flat.add_(torch.randn(model._flat.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    model._loss(images, torch.Generator().manual_seed(0), weights).backward()
    found = model._flat.grad.clone()
    x = to_unit(images).permute(0, 3, 1, 2)
    level_noise, noise = numbers_of_a_batch(process, x)
    by_hand = torch.zeros_like(found)
    for i, weight in enumerate(weights):
        model._flat.grad.zero_()
        process.loss_terms(model.net, x[i : i + 1], level_noise[i : i + 1], noise[i : i + 1]).mean().backward()
        by_hand += weight / len(images) * model._flat.grad
    assert by_hand.norm() > 0
    torch.testing.assert_close(found, by_hand, rtol=1e-3, atol=1e-5 * by_hand.abs().max().item())


class Recording(NetworkModel):
    """Remembers the images and weights of its batches."""

    def _losses(self, images, rng, weights=None, dropout=None):
        self.seen = [*getattr(self, "seen", []), (images, weights)]
        return super()._losses(images, rng, weights, dropout)


def test_images_carry_the_weights_of_their_parts(digits):
    black, white = np.zeros((30, 8, 8, 1), np.uint8), np.full((20, 8, 8, 1), 255, np.uint8)
    parts, rows = (black, white), (np.arange(30), np.arange(10))
    model = Recording(EDM(n_steps=2), CONFIG).fit(TrainingSet(parts, rows, (1.0, 5.0)), seed=0)
    images, weights = (torch.cat(batches) for batches in zip(*model.seen, strict=True))
    torch.testing.assert_close(weights, torch.where(images[:, 0, 0, 0] == 255, 2.5, 0.5))
    assert weights.mean() == pytest.approx(1, rel=1e-6)  # the 320 images are eight whole shuffles
    plain = Recording(EDM(n_steps=2), CONFIG).fit(TrainingSet(parts, rows), seed=0)
    assert all(weights is None for _, weights in plain.seen)
    equal = new_edm(replace(CONFIG, n_images_initial=64)).fit(TrainingSet(parts, rows, (3.0, 3.0)), seed=0)
    same = new_edm(replace(CONFIG, n_images_initial=64)).fit(TrainingSet(parts, rows), seed=0)
    for p, q in zip(equal.net.parameters(), same.net.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_with_weight_0_on_a_part_the_loss_of_a_shuffle_is_that_of_the_other(digits):
    class Brightness(EDM):  # draws nothing, so that the expectation over batches is a sum
        def loss_terms(self, net, x, level_noise, noise):
            return x.square()

    model = NetworkModel(Brightness(), CONFIG)
    model._new_network(0)
    data = TrainingSet((digits[:40], digits[40:64]), (np.arange(40), np.arange(24)), (0.0, 1.0))
    losses = [
        model._loss(torch.from_numpy(data[i]), torch.Generator(), torch.from_numpy(data.item_weights(i))).item()
        for i in shuffled_batches(64, 64, 16, seed=0)
    ]
    assert np.mean(losses) == pytest.approx(np.mean(to_unit(digits[40:64]).astype(float) ** 2), rel=1e-6)
    assert np.std(losses) > 0


@pytest.mark.parametrize("n", [2, 7])
def test_the_shares_of_a_team_add_up_to_the_weighted_loss(digits, n):
    model = new_edm(replace(CONFIG, network=replace(NETWORK, dropout=0.0)))
    model._new_network(0)
    images, weights = torch.from_numpy(digits[:n]), torch.arange(n) * 1.0

    def loss(team):
        model.team = team
        return model._loss(images, torch.Generator().manual_seed(0), weights).item()

    assert sum(loss(Team(rank, 3)) for rank in range(3)) == pytest.approx(loss(Team()), rel=1e-5)
