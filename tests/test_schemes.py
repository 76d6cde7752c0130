"""The contract of every registered scheme, then the definition of each."""

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.retrain import retrain
from iterative_retraining.schemes import (
    SCHEMES,
    Accumulate,
    AccumulateSubsample,
    Fresh,
    FullySynthetic,
    Mix,
    Weighted,
    build_scheme,
    has_lam,
    scheme_defaults,
    set_size,
    synthetic_count,
)

from conftest import TINY_EDM

REAL = np.arange(40.0)[:, None]
SAMPLES = [100 * (t + 1) + np.arange(100.0)[:, None] for t in range(3)]
every_scheme = pytest.mark.parametrize("name", SCHEMES)


class Guarded(Sequence):
    """Samples of generations 0..t-1, of which only the last ``readable`` can be read; None: all."""

    def __init__(self, samples, readable):
        self.samples, self.readable = samples, readable

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        generation = range(len(self))[index]
        if self.readable is not None and generation < len(self) - self.readable:
            raise AssertionError(f"generation {generation} of {len(self)} is read, history_length {self.readable}")
        return self.samples[generation]


@every_scheme
def test_a_scheme_builds_from_its_defaults_and_cannot_be_changed(name):
    scheme = build_scheme(name)
    assert scheme == build_scheme(name, options=scheme_defaults(name)) == SCHEMES[name]()
    assert scheme.name == name
    assert "lam" not in scheme_defaults(name)
    assert json.loads(json.dumps(scheme_defaults(name))) == scheme_defaults(name)
    assert hasattr(scheme, "lam") == has_lam(name)
    with pytest.raises((FrozenInstanceError, AttributeError)):
        scheme.lam = 3.0


@every_scheme
def test_an_unknown_option_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"unknown option 'colour' of scheme '{name}'; allowed: "):
        build_scheme(name, 0.5, {"colour": "red"})


@every_scheme
def test_a_scheme_that_has_no_lam_ignores_it(name):
    assert (build_scheme(name, 0.25) == build_scheme(name, 0.75)) == (not has_lam(name))
    if not has_lam(name):
        assert build_scheme(name, float("nan")) == build_scheme(name)


@every_scheme
def test_a_training_set_is_of_the_seed_never_empty_and_reads_what_it_says(name):
    scheme = build_scheme(name)
    assert len(scheme.initial_set(REAL)) > 0
    for t in (1, 2, 3):
        history = Guarded(SAMPLES[:t], scheme.history_length)
        data, again = (scheme.training_set(REAL, history, seed=5) for _ in range(2))
        assert len(data) > 0
        np.testing.assert_array_equal(data.array(), again.array())
        assert data.weights == again.weights
        assert data.parts[0] is REAL  # no copies
        assert {tuple(np.unique(part)) for part in data.parts[1:]} <= {tuple(s[:, 0]) for s in SAMPLES}
        assert set_size(scheme, 40, t) == len(data)
    assert set_size(scheme, 40, 0) == len(scheme.initial_set(REAL))


@every_scheme
def test_too_few_samples_are_refused(name):
    scheme = build_scheme(name)
    few = scheme.n_samples(40) - 1
    with pytest.raises(ValueError, match=f"needs {few + 1} samples of a generation, {few} are at hand"):
        scheme.training_set(REAL, [SAMPLES[0][:few]], seed=0)


@every_scheme
def test_an_arm_has_a_name_and_looks(name):
    scheme = build_scheme(name)
    assert scheme.label
    assert re.fullmatch(r"[\w.+-]+", scheme.id_part)
    assert scheme.id_part.startswith(name)
    assert set(scheme.style) <= {"color", "linestyle", "marker"}
    assert re.fullmatch("#[0-9a-f]{6}", scheme.style["color"])
    assert isinstance(scheme.order, float)
    assert scheme.notice(40) == ""


def test_arms_are_told_apart():
    arms = [build_scheme(name, lam) for name in SCHEMES for lam in ((0.1, 0.5, 1.0, 2.0) if has_lam(name) else (None,))]
    arms += [Fresh(1.0, 21), Weighted(1.0, 0.618)]
    for what in ("id_part", "label", "order"):
        values = [getattr(arm, what) for arm in arms if what != "order" or arm != Fresh(1.0, 21)]
        assert len(set(values)) == len(values), what
    defaults = [build_scheme(name).style for name in SCHEMES]
    for a, b in itertools.combinations(defaults, 2):
        assert a["color"] != b["color"]
        assert a["marker"] != b["marker"]


@every_scheme
def test_a_network_takes_every_scheme(name, digits):
    options = resolve_options("edm", "digits", TINY_EDM)
    model = build_model("edm", (8, 8, 1), options, n_images_initial=64, n_images_per_retraining=64)
    records = list(retrain(model, digits[:40], build_scheme(name), [], n_retrain=2, seed=0))
    assert [record.n_images for record in records] == [64, 64, 64]


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"unknown scheme 'acumulate'; allowed: mix, .*; did you mean 'accumulate'"):
        build_scheme("acumulate", 0.5)
    with pytest.raises(ValueError, match="allowed: real_weight; did you mean 'real_weight'"):
        build_scheme("weighted", 1.0, {"real_wait": 0.5})
    with pytest.raises(ValueError, match="unknown option 'n' of scheme 'mix'; allowed: none"):
        build_scheme("mix", 1.0, {"n": 1})


@pytest.mark.parametrize("lam", [-0.1, float("nan"), float("inf"), True, "0.5", None, 1j])
@pytest.mark.parametrize("scheme", [Mix, Fresh, Weighted])
def test_bad_lam_is_refused(scheme, lam):
    with pytest.raises(ValueError, match="not allowed: it is the ratio synthetic : real, a finite number >= 0"):
        scheme(lam)


@pytest.mark.parametrize(
    ("lam", "n", "count"),
    [
        (0.29, 50_000, 14_500),  # the float product is 14 499.999…
        (2.3, 50_000, 115_000),
        (0.1, 10, 1),
        (0.7, 10, 7),
        (1.1, 10, 11),
        (1e-05, 100_000, 1),
        (0.05, 10, 0),
        (1, 10, 10),
        (np.float64(0.29), 50_000, 14_500),
        (0.0, 10, 0),
    ],
)
def test_lam_n_is_exact_in_decimals(lam, n, count):
    assert synthetic_count(lam, n) == Mix(lam).n_samples(n) == count


@given(st.integers(0, 3000), st.integers(1, 70_000))
def test_thousandths_are_whole_number_arithmetic(thousandths, n):
    assert synthetic_count(thousandths / 1000, n) == thousandths * n // 1000


def test_a_lam_without_a_sample_says_so():
    assert Mix(0.0005).notice(1000) == "no synthetic data: floor(lam n) = 0 for lam = 0.0005 and n = 1000"
    assert Mix(0.0).notice(1000) == Mix(0.001).notice(1000) == ""
    assert Fresh(0.2, 11).notice(40) == "no synthetic data: floor(lam n) = 0 for lam = 0.2 and n = 3"


@pytest.mark.parametrize(("lam", "n_synthetic"), [(0.0, 0), (0.02, 0), (0.1, 4), (0.55, 22), (1.0, 40), (2.5, 100)])
def test_mix_is_all_real_and_floor_lam_n_synthetic(lam, n_synthetic):
    data = Mix(lam).training_set(REAL, SAMPLES, seed=0)
    np.testing.assert_array_equal(data.array(), np.concatenate([REAL, SAMPLES[-1][:n_synthetic]]))
    assert (Mix(lam).label == "λ = 0 (real only)") == (lam == 0)


def test_other_lams_have_colours_between():
    assert Mix(0.75).style["color"] == "#028892"  # halfway from #0173b2 to #029e73
    assert Mix(100.0).style["color"] == Mix(10.0).style["color"] != Mix(3.0).style["color"]


def test_colours_are_those_of_the_palette():
    seaborn = pytest.importorskip("seaborn")
    palette = seaborn.color_palette("colorblind").as_hex()
    assert [Mix(lam).style["color"] for lam in (0.0, 0.01, 0.1, 0.5, 1.0, 2.0)] == [
        palette[i] for i in (7, 9, 4, 0, 2, 1)
    ]
    assert FullySynthetic().style == {"color": palette[3], "linestyle": "--", "marker": "^"}


def test_fully_synthetic_drops_the_real_data():
    data = FullySynthetic().training_set(REAL, SAMPLES, seed=0)
    np.testing.assert_array_equal(data.array(), SAMPLES[-1][:40])


def test_accumulate_keeps_n_of_everything():
    data = Accumulate().training_set(REAL, SAMPLES, seed=0)
    np.testing.assert_array_equal(data.array(), np.concatenate([REAL, *(s[:40] for s in SAMPLES)]))


def test_a_subsample_is_n_different_items_of_the_pool_all_equally_likely():
    pool = np.concatenate([REAL, *(s[:40] for s in SAMPLES)])[:, 0]
    drawn = [AccumulateSubsample().training_set(REAL, SAMPLES, seed=s).array()[:, 0] for s in range(1000)]
    assert all(len(np.unique(items)) == 40 and np.isin(items, pool).all() for items in drawn)
    counts = np.array([(np.stack(drawn) == item).sum() for item in pool])
    np.testing.assert_array_less(np.abs(counts - 250), 5 * np.sqrt(1000 * 0.25 * 0.75))


def test_fresh_has_a_block_of_its_own_for_every_generation():
    scheme = Fresh(0.5, n_blocks=4)
    sets = [scheme.initial_set(REAL), *(scheme.training_set(REAL, SAMPLES[:t], seed=t) for t in (1, 2, 3))]
    blocks = [data.array()[: data.n_real, 0] for data in sets]
    assert [len(block) for block in blocks] == [10, 10, 10, 10]
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), REAL[:, 0])
    assert np.ptp(blocks[1]) > 20  # not neighbours: data sets are sorted
    np.testing.assert_array_equal(sets[2].array()[10:], SAMPLES[1][:5])
    assert scheme.n_samples(40) == 5
    assert Fresh(0.0, 4).training_set(REAL, SAMPLES[:1], seed=0).n_synthetic == 0


def test_fresh_refuses_what_the_data_cannot_give_before_any_compute():
    class NeverFitted(Gaussian):
        def fit(self, data, *, seed=0, progress=None):
            raise AssertionError("compute was spent")

    message = r"n_retrain = 4 is not allowed with n_blocks = 4: .* take n_blocks = 5, or n_retrain = 3"
    with pytest.raises(ValueError, match=message):
        next(retrain(NeverFitted(), REAL, Fresh(1.0, 4), [], n_retrain=4, seed=0))
    with pytest.raises(ValueError, match="n_blocks = 41 is not allowed: there are 40 real data"):
        Fresh(1.0, 41).check(40, 2)
    for n_blocks in (0, 2.5, True, "4"):
        with pytest.raises(ValueError, match=r"n_blocks = .* is not allowed: it counts disjoint blocks"):
            Fresh(1.0, n_blocks)


def test_weights_add_up_to_the_two_shares():
    data = Weighted(0.5, real_weight=0.8).training_set(REAL, SAMPLES, seed=0)
    weights = data.item_weights(np.arange(len(data)))
    assert (data.n_real, data.n_synthetic) == (40, 20)
    np.testing.assert_allclose([weights[:40].sum() / 60, weights[40:].sum() / 60], [0.8, 0.2], rtol=1e-14)
    mix = Weighted(0.5, real_weight=1 / 1.5).training_set(REAL, SAMPLES, seed=0)
    np.testing.assert_allclose(mix.item_weights(np.arange(60)), 1, rtol=1e-14)
    assert Weighted(0.0).training_set(REAL, SAMPLES, seed=0).weights is None
    for weight in (0, 1.5, -0.1, float("nan"), "0.5", True):
        with pytest.raises(ValueError, match=r"real_weight = .* is not allowed: the share of all weight"):
            Weighted(1.0, weight)
