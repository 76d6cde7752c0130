from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from iterative_retraining.data import TrainingSet
from iterative_retraining.models.edm import (
    EDM,
    EDMConfig,
    NonFiniteLossError,
    denoising_loss,
    flatten_parameters,
    noise_levels,
    precondition,
    sample_heun,
    shuffled_batches,
)
from iterative_retraining.models.networks import UNetConfig

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
CONFIG = EDMConfig(network=NETWORK, n_images_initial=320, n_images_per_retraining=160, batch_size=32, n_steps=4)


def gaussian_denoiser(std):
    """The exact denoiser of N(0, std^2): the posterior mean."""
    return lambda x, sigma: x * (std**2 / (std**2 + sigma.view(-1, 1) ** 2)).to(x.dtype)


def test_noise_levels_are_equation_5():
    levels = noise_levels(18, 0.002, 80, 7)
    i = np.arange(18)
    exact = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(levels[:-1], exact, rtol=1e-12)
    assert levels[-1] == 0


def test_preconditioning_has_unit_variance_in_and_out():
    # Table 1 is derived from this: with data of variance sigma_data^2, the network's input and target have variance 1.
    torch.manual_seed(0)
    sigma = torch.tensor([0.01, 0.5, 20.0]).repeat_interleave(200_000).double()
    y, noise = 0.5 * torch.randn(len(sigma), 1).double(), torch.randn(len(sigma), 1).double()
    seen = {}

    def net(x, level):
        seen["input"], seen["level"] = x, level
        return torch.zeros_like(x)

    skip = precondition(net, y + sigma[:, None] * noise, sigma, 0.5)
    c_out = sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    target = (y - skip)[:, 0] / c_out
    for part in range(3):
        rows = slice(part * 200_000, (part + 1) * 200_000)
        np.testing.assert_allclose(seen["input"][rows].var(), 1, rtol=0.02)
        np.testing.assert_allclose(target[rows].var(), 1, rtol=0.02)
    torch.testing.assert_close(seen["level"], sigma.log() / 4)


def test_loss_of_the_exact_denoiser_is_the_posterior_variance():
    # E |D - y|^2 = s^2 sigma^2 / (s^2 + sigma^2); under the weight of table 1 with s = sigma_data the loss is 1.
    torch.manual_seed(0)
    x, noise = 0.5 * torch.randn(400_000, 1), torch.randn(400_000, 1)
    sigma = torch.full((400_000,), 1.7)
    loss = denoising_loss(gaussian_denoiser(0.5), x, sigma, noise, 0.5)
    assert abs(loss.item() - 1) < 4 * np.sqrt(2 / 400_000)


def test_heun_with_the_exact_denoiser_transports_the_noise_to_the_data_law():
    # For N(0, s^2) the ODE is solved by x(0) = x(T) s / sqrt(s^2 + T^2): compare pointwise, and the order of the error.
    noise, s = torch.randn(500, 1, generator=torch.Generator().manual_seed(0)).double(), 0.5
    exact = 80 * noise * s / np.sqrt(s**2 + 80**2)
    errors = []
    for n_steps in (32, 64, 128):
        x = sample_heun(lambda x, sigma: gaussian_denoiser(s)(x.double(), sigma.double()), noise, n_steps=n_steps)
        errors.append(((x - exact).abs() / exact.abs()).max().item())
    assert errors[0] < 2e-2
    assert errors[2] < 2e-3
    assert errors[0] / errors[1] > 3  # second order: halving the step quarters the error


def test_heun_recovers_a_mixture_law():
    means, s = torch.tensor([-1.0, 1.0]).double(), 0.2

    def denoise(x, sigma):
        x, variance = x.double(), s**2 + sigma[0].double() ** 2
        weights = torch.softmax(-((x - means) ** 2) / (2 * variance), dim=1)
        posterior = (means * variance + (x - means) * s**2) / variance
        return (weights * posterior).sum(dim=1, keepdim=True)

    noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(1))
    x = sample_heun(denoise, noise, n_steps=40)[:, 0].numpy()
    exact = np.concatenate([stats.norm(m, s).ppf((np.arange(20_000) + 0.5) / 20_000) for m in (-1, 1)])
    assert stats.ks_2samp(x, exact).pvalue > 1e-3


def test_heun_evaluates_twice_a_step_less_one():
    calls = []
    sample_heun(lambda x, sigma: calls.append(sigma[0].item()) or x, torch.randn(2, 1), n_steps=5)
    assert len(calls) == 9
    assert (calls[0], calls[-1]) == (80, pytest.approx(0.002))


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
    model = EDM(replace(CONFIG, network=network, ema_halflife_images=200)).fit(data, seed=0)
    expected = plain_training(model, data, seed=1, n_images=CONFIG.n_images_per_retraining)
    model.fit(data, seed=1)
    for p, q in zip(model.net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=2e-6)


def test_fit_lowers_the_loss_and_refits_go_on_from_there(digits):
    data = TrainingSet.of(digits)
    model = EDM(replace(CONFIG, n_images_initial=6400, ema_halflife_images=500, network=replace(NETWORK, dropout=0.0)))

    def loss():
        torch.manual_seed(0)
        with torch.no_grad():
            return model._loss((digits[:512] / 127.5 - 1).astype(np.float32)).item()

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
    first = EDM(CONFIG).fit(data, seed=5)
    torch.manual_seed(2)
    second = EDM(CONFIG).fit(data, seed=5)
    other = EDM(CONFIG).fit(data, seed=6)
    a, b, c = (m.state_dict() for m in (first, second, other))
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not all(np.array_equal(a[k], c[k]) for k in a)
    np.testing.assert_array_equal(first.sample(5, seed=0), second.sample(5, seed=0))


def test_samples_do_not_depend_on_the_batch_size(digits):
    model = EDM(CONFIG).fit(TrainingSet.of(digits), seed=0)
    whole = model.sample(20, seed=3)
    model.config = replace(CONFIG, sampling_batch_size=7)
    batched = model.sample(20, seed=3)
    assert (whole.shape, whole.dtype) == ((20, 8, 8, 1), np.uint8)
    assert np.abs(whole.astype(int) - batched).max() <= 1  # floating-point sums may round to the neighbouring level


def test_state_round_trips_and_foreign_weights_are_refused(digits):
    model = EDM(CONFIG).fit(TrainingSet.of(digits), seed=0)
    other = EDM(CONFIG)
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.sample(4, seed=0), model.sample(4, seed=0))
    wider = EDM(replace(CONFIG, network=replace(NETWORK, channels=8)))
    with pytest.raises(ValueError, match="weights are of another network"):
        wider.load_state_dict(model.state_dict())


def test_warm_start_off_trains_afresh(digits):
    data, config = TrainingSet.of(digits), replace(CONFIG, warm_start=False)
    once = EDM(config).fit(data, seed=2)
    twice = EDM(config).fit(data, seed=1).fit(data, seed=2)
    assert all(np.array_equal(v, twice.state_dict()[k]) for k, v in once.state_dict().items())


def test_budget_zero_changes_nothing(digits):
    model = EDM(replace(CONFIG, n_images_per_retraining=0)).fit(TrainingSet.of(digits), seed=0)
    before = model.state_dict()
    after = model.fit(TrainingSet.of(digits), seed=1).state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)


def test_non_finite_loss_names_step_and_last_finite_value(digits):
    model = EDM(replace(CONFIG, learning_rate=1e30))
    with pytest.raises(NonFiniteLossError, match=r"the loss is (nan|inf) at step \d+ .* last finite loss was \d"):
        model.fit(TrainingSet.of(digits), seed=0)


def test_ema_decay_is_one_half_after_a_half_life():
    model = EDM(replace(CONFIG, ema_halflife_images=1000))
    assert model._ema_decay(1000, 5000, afresh=False) == pytest.approx(0.5)
    assert model._ema_decay(50, 1000, afresh=True) == pytest.approx(0.5)  # 5 % of 1000 images


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images_initial": -1}, "n_images_initial = -1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"learning_rate": float("nan")}, "learning_rate = nan"),
        ({"sigma_max": 0.001}, "sigma_max = 0.001"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)
