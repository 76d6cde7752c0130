"""What flags imply: against the percentages worked out by hand, and against steps taken one by one."""

from dataclasses import replace

import numpy as np
import pytest

from iterative_retraining.models import resolve_options
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.models.pretrained import where_from
from iterative_retraining.studies import plots
from iterative_retraining.studies.report.protocol import (
    CODE_BUDGET,
    FLAGS,
    PUBLISHED,
    PublishedFlags,
    Retraining,
    family_label,
    halflife_images,
    implied_table,
    percent,
    sources_list,
)

EDM, FFHQ, OTCFM = (PUBLISHED[name].retraining for name in ("edm-cifar10", "edm-ffhq64", "otcfm-cifar10"))
INTENDED = replace(EDM, restart_ramp=False, ema_halflife_images=100_000)
BEYOND_THE_RAMP = replace(EDM, n_images=25_000_000)


@pytest.mark.parametrize(
    ("retraining", "peak", "mean", "old"),
    [
        (EDM, 0.10, 0.05, 0.25),
        (FFHQ, 0.14, 0.07, 0.5**2.8),
        (replace(EDM, n_images=CODE_BUDGET), 0.005, 0.0025, 0.5**0.1),
        (OTCFM, 1.0, 1.0, 0.9999 ** (1_000_000 / 128)),
        (INTENDED, 1.0, 1.0, 0.5**10),
        (BEYOND_THE_RAMP, 1.0, 1 - 0.2, 0.5**50),  # the ramp is 40 % of it, at half the rate
        (replace(EDM, n_images=0), 0.0, 0.0, 1.0),
        (replace(OTCFM, n_images=0), 1.0, 1.0, 1.0),
        (replace(EDM, ema_halflife_images=0), 0.1, 0.05, 0.0),
    ],
)
def test_rates_and_memory_by_hand(retraining, peak, mean, old):
    assert retraining.peak_rate == pytest.approx(peak, rel=1e-12)
    assert retraining.mean_rate == pytest.approx(mean, rel=1e-12)
    assert retraining.old_share == pytest.approx(old, rel=2e-6)  # the half-life of OT-CFM is a whole number


def test_the_percentages_of_the_published_code():
    """At 1 Mimg of CIFAR-10, at the default of 0.05 Mimg, and at 1.4 Mimg of FFHQ."""
    of = [EDM, replace(EDM, n_images=CODE_BUDGET), FFHQ]
    assert [percent(r.peak_rate) for r in of] == ["10 %", "0.5 %", "14 %"]
    assert [percent(r.old_share) for r in of] == ["25 %", "93.3 %", "14.4 %"]


def stepped(r: Retraining, retrainings: int = 1) -> tuple[float, float, np.ndarray]:
    """Retrainings step by step, as a training loop takes them: mean rate, share of the EMA on the old weights, and
    where the EMA is after each, in units of what raw weights go at the nominal rate; every step goes the same way."""
    raw = ema = 0.0
    places, rates, old = [], [], 1.0
    batch = 250
    for _ in range(retrainings):
        if r.next_start == "ema":
            raw = ema
        for n_seen in range(batch, r.n_images + 1, batch):
            rate = min(1.0, n_seen / r.lr_rampup_images) if r.lr_rampup_images and r.restart_ramp else 1.0
            decay = 0.5 ** (batch / r.ema_halflife_images)
            raw += rate * batch / r.n_images
            ema = decay * ema + (1 - decay) * raw
            old *= decay
            rates.append(rate)
        places.append(ema)
    return float(np.mean(rates)), old ** (1 / retrainings), np.array(places)


@pytest.mark.parametrize(
    "retraining",
    [EDM, FFHQ, INTENDED, OTCFM, replace(EDM, n_images=CODE_BUDGET), replace(EDM, lr_rampup_images=400_000)],
)
def test_rates_memory_and_reach_are_those_of_a_training_loop(retraining):
    mean, old, places = stepped(replace(retraining, next_start="ema"))
    assert retraining.mean_rate == pytest.approx(mean, rel=0.006)
    assert retraining.old_share == pytest.approx(old, rel=1e-9)
    assert replace(retraining, next_start="ema").reach() == pytest.approx(places[0], rel=0.02)


@pytest.mark.parametrize("retraining", [EDM, INTENDED, replace(EDM, lr_rampup_images=400_000)])
def test_rates_and_memory_are_those_of_our_training(retraining):
    from iterative_retraining.models.fitting import TrainingConfig

    flags = ("batch_size", "learning_rate", "lr_rampup_images", "restart_ramp", "ema_halflife_images")
    config = TrainingConfig(
        network=UNetConfig(),
        n_images_initial=0,
        n_images_per_retraining=retraining.n_images,
        **{name: getattr(retraining, name) for name in flags},
    )
    batch, n_seen = 250, np.arange(250, 1_000_001, 250)
    rates = [config.rate(int(n), from_scratch=False) / config.learning_rate for n in n_seen]
    np.testing.assert_allclose(retraining.rate(n_seen), rates, rtol=1e-12)
    decays = [config.ema_decay(batch, int(n), from_scratch=False) for n in n_seen]
    np.testing.assert_allclose(retraining.memory(n_seen), np.cumprod(decays), rtol=1e-9)


def test_an_ema_beside_raw_weights_follows_at_their_pace():
    r = replace(OTCFM, n_images=100_000, lr_rampup_images=400_000, ema_halflife_images=100_000)
    _, _, places = stepped(r, retrainings=20)
    assert np.diff(places)[-1] == pytest.approx(r.reach(), rel=0.01)
    assert r.reach() == pytest.approx(0.125)


def test_the_half_life_of_a_decay():
    assert halflife_images(0.9999, 128) == pytest.approx(887_184, abs=1)
    assert 0.9999 ** (halflife_images(0.9999, 128) / 128) == pytest.approx(0.5, rel=1e-12)
    assert halflife_images(0.5, 7) == 7


def test_flags_are_read_from_runs_and_from_parameters():
    options = {"learning_rate": 2e-4, "batch_size": 128, "ema_halflife_images": 9, "next_start": "raw", "n_steps": 3}
    wanted = Retraining(
        n_images=5, learning_rate=2e-4, batch_size=128, ema_halflife_images=9, next_start="raw", latents="fixed"
    )
    beside = {"n_images_per_retraining": 5, "latents": "fixed", "seed": 3}
    assert Retraining.of({**beside, "options": options}) == wanted
    assert Retraining.of({**beside, "model_options": options}) == wanted


def test_a_run_from_before_these_options_is_read_as_what_it_was():
    identity = {"n_images_per_retraining": 36_000, "options": resolve_options("edm", "digits", {})}
    r = Retraining.of(identity)
    assert (r.peak_rate, r.next_start, r.keep_optimizer, r.latents) == (1.0, "ema", False, "fresh")


def test_every_flag_of_every_route_names_its_source():
    fields = {*FLAGS, *PublishedFlags.__dataclass_fields__} - {"title", "retraining", "sources"}
    for flags in PUBLISHED.values():
        assert set(flags.sources) == fields
        assert all(flags.sources.values())
        assert flags.weights_url.startswith("https://")
        assert flags.weights_url.endswith(f"/{flags.weights}")
        assert flags.title in sources_list(PUBLISHED)


def test_where_weights_come_from_is_known_by_the_name_of_the_file():
    assert "nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-ffhq" in where_from("somewhere/edm-ffhq-64x64-uncond-vp.pkl")
    assert where_from("somewhere/mine.pkl") == ""


def test_a_table_has_a_row_for_each_and_as_many_cells_as_its_head():
    lines = implied_table({"a": EDM, "b": OTCFM}).splitlines()
    assert {line.count("|") for line in lines} == {11}
    assert lines[2] == "| a | 1 | 0.001 | 10 | 5 | 25 | 1.69 | ema | afresh | fixed |"
    assert "| raw | kept | fresh |" in lines[3]


def test_labels_tell_how_a_run_retrains():
    options = resolve_options("edm", "cifar10", {"lr_rampup_images": 10_000_000})
    identity = {"model": "edm", "n_images_per_retraining": 1_000_000, "options": options, "latents": "fixed"}
    assert family_label(identity) == "edm\npeak rate 10 %\nold EMA 25 %\nfixed latents"
    from_scratch = identity | {"options": options | {"warm_start": False}}
    assert family_label(from_scratch) == "edm\nfrom scratch"
    assert family_label({"model": "gaussian", "n_images_per_retraining": None, "options": {}}) == "gaussian"


def test_figures_draw_what_they_are_given():
    images = np.array([10.0, 1000.0])
    figure = plots.protocol_panels({"a": (images, np.array([0.01, 0.5]), np.array([1.0, 0.25]))})
    left, right = figure.axes
    np.testing.assert_array_equal(left.lines[0].get_ydata(), [1.0, 50.0])
    np.testing.assert_array_equal(right.lines[0].get_ydata(), [100.0, 25.0])
    assert right.lines[1].get_xydata().tolist() == [[1000.0, 25.0]]  # the dot at the end
    axis = plots.reach_by_budget({"a": (images, np.array([0.1, 0.2]))}, {"default": 50}).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [10.0, 20.0])
    assert axis.lines[1].get_xdata()[0] == 50
    assert axis.texts[0].get_text() == "default"
