"""Selectors: each against its definition by brute force; equal numbers kept; what is not allowed is refused by name."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from iterative_retraining import Selection, build_selector, open_experiment, retrain
from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS
from iterative_retraining.errors import ConfigError, RunError
from iterative_retraining.metrics.likelihood import sample_memorisation, sample_quality
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.remeasure import Asked, remeasure
from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.runs.source import of_run
from iterative_retraining.schemes import build_scheme
from iterative_retraining.selectors import SELECTORS, check_keep_rate, n_candidates, selector_defaults
from iterative_retraining.selectors.base import draw_by_weight, highest, inclusion_probabilities
from iterative_retraining.selectors.choice import REWARDS
from iterative_retraining.selectors.discriminator import log_odds
from iterative_retraining.selectors.kmeans import shared_out

from conftest import QUICK, untimed

SMALL = {"dataset": "digits", "n_real": 40, "n_images_initial": 64, "n_images_per_retraining": 64, "n_retrain": 2}
RNG = np.random.default_rng(0)
REAL, DRAWN = RNG.normal(size=(60, 4)), 1.5 * RNG.normal(size=(40, 4)) + 0.3
CHANCES = RNG.dirichlet(np.ones(3), size=40)
LOG_P, LOG_TARGET = (
    stats.multivariate_normal.logpdf(DRAWN, mean, cov) for mean, cov in (([0.3] * 4, 2.25), ([0] * 4, 1))
)
CANDIDATES = SimpleNamespace(
    items=DRAWN,
    features=DRAWN,
    real_features=REAL,
    probabilities=lambda: CHANCES,
    log_prob=lambda: LOG_P,
    target_log_prob=lambda: LOG_TARGET,
)


def best(score: np.ndarray, n: int) -> list[int]:
    """The rows of the n highest scores, by sorting pairs."""
    return sorted(row for _, row in sorted((-s, row) for row, s in enumerate(score.tolist()))[:n])


def halves_of_real() -> list[np.ndarray]:
    return np.array_split(REAL[np.random.Generator(np.random.Philox(0)).permutation(60)], 2)


SCORES = {
    "density": lambda: -np.sort(cdist(DRAWN, REAL), axis=1)[:, 4],
    "confidence": lambda: np.array([max(row) for row in CHANCES]),
    "likelihood": lambda: LOG_P,
    "fld_quality": lambda: sample_quality(DRAWN, real=halves_of_real()[1], test=halves_of_real()[0]),
    "fld_memorisation": lambda: -sample_memorisation(DRAWN, real=REAL, test=REAL),
}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("end", ["top", "bottom"])
def test_a_selector_by_score_keeps_the_ends_of_the_order(name, end):
    rows = build_selector(name, {"end": end}).rows(CANDIDATES, 11, seed=0)
    assert rows.tolist() == best(SCORES[name]() * (1 if end == "top" else -1), 11)


def test_options_of_scores_count():
    k = build_selector("density", {"k": 2}).rows(CANDIDATES, 7, seed=0)
    assert k.tolist() == best(-np.sort(cdist(DRAWN, REAL), axis=1)[:, 1], 7)
    of_class = build_selector("confidence", {"of_class": 1}).rows(CANDIDATES, 7, seed=0)
    assert of_class.tolist() == best(CHANCES[:, 1], 7)


def test_of_equal_scores_the_first_are_kept_and_nan_is_refused():
    assert highest(np.array([1.0, 3, 1, 1, -np.inf]), 3).tolist() == [0, 1, 2]
    with pytest.raises(FloatingPointError, match="candidate 1 is not a number"):
        highest(np.array([1.0, np.nan]), 1)


def test_random_keeps_every_candidate_equally_often():
    counts = np.zeros(40)
    for seed in range(2000):
        counts[build_selector("random").rows(CANDIDATES, 10, seed=seed)] += 1
    assert stats.chisquare(counts).pvalue > 1e-3
    assert counts.sum() == 20_000


def test_inclusion_probabilities_are_the_clipped_multiples_that_add_up():
    for seed, n in itertools.product(range(20), (1, 7, 39, 40)):
        log_weights = np.random.default_rng(seed).normal(size=40, scale=1 + seed)
        found, w = inclusion_probabilities(log_weights, n), np.exp(log_weights)
        assert found.sum() == pytest.approx(n)
        low, high = 0.0, 1e300
        for _ in range(3000):  # the multiple by bisection, on a scale of logarithms once it is large
            c = np.sqrt(max(low, 1e-300) * high)
            low, high = (c, high) if np.minimum(1, c * w).sum() < n - 1e-12 else (low, c)
        np.testing.assert_allclose(found, np.minimum(1, high * w), rtol=1e-6, atol=1e-9)


def test_a_draw_by_weight_keeps_exactly_n_each_with_its_probability():
    log_weights, n, draws = np.random.default_rng(5).normal(size=12, scale=1.5), 5, 4000
    expected, counts = inclusion_probabilities(log_weights, n), np.zeros(12)
    assert 0 < (expected == 1).sum() < n
    for seed in range(draws):
        rows = draw_by_weight(log_weights, n, seed=seed)
        assert len(set(rows.tolist())) == n
        assert (np.diff(rows) > 0).all()
        counts[rows] += 1
    error = np.sqrt(draws * expected * (1 - expected))
    assert (np.abs(counts - draws * expected) <= 4.5 * error).all()


def test_weights_of_zero_are_kept_only_where_there_are_no_others():
    log_weights = np.array([-np.inf, 0.0, -np.inf, 0.0])
    assert all(draw_by_weight(log_weights, 2, seed=seed).tolist() == [1, 3] for seed in range(20))
    assert {len(draw_by_weight(log_weights, 3, seed=seed)) for seed in range(20)} == {3}
    with pytest.raises(FloatingPointError, match="weight of candidate 0"):
        draw_by_weight(np.array([np.nan, 1.0]), 1, seed=0)


def test_the_verifier_keeps_by_the_exact_odds():
    counts, draws = np.zeros(40), 2000
    for seed in range(draws):
        counts[build_selector("verifier").rows(CANDIDATES, 8, seed=seed)] += 1
    expected = inclusion_probabilities(LOG_TARGET - LOG_P, 8)
    error = np.sqrt(draws * expected * (1 - expected))
    assert (np.abs(counts - draws * expected) <= 4.5 * error + 1e-9).all()


def test_odds_of_the_discriminator_are_those_of_the_densities_and_of_a_regression_that_has_not_seen_them():
    """Two Gaussians of one covariance have odds that are linear in x, so a regression can find them."""
    rng = np.random.default_rng(1)
    real, drawn = rng.normal(size=(20_000, 2)), rng.normal(loc=(0.7, 0), size=(20_000, 2))
    exact = stats.multivariate_normal.logpdf(drawn, [0, 0]) - stats.multivariate_normal.logpdf(drawn, [0.7, 0])
    found = log_odds(real, drawn, seed=0)
    assert np.polyfit(exact, found, 1)[0] == pytest.approx(1, abs=0.06)
    assert np.corrcoef(exact, found)[0, 1] > 0.999
    one = log_odds(real, drawn[:4], seed=0)  # another judged point changes nothing of those judged beside it
    moved = drawn[:4].copy()
    seen, judged = np.array_split(np.random.Generator(np.random.Philox(0)).permutation(4), 2)
    moved[judged[0]] += 100
    again = log_odds(real, moved, seed=0)
    assert again[judged[1]] == one[judged[1]]
    assert again[seen[0]] != one[seen[0]]


def test_herding_is_the_greedy_choice_by_definition():
    scale = REAL.var(axis=0).sum()
    to_real = np.exp(-(cdist(DRAWN, REAL) ** 2) / (2 * scale)).mean(axis=1)
    among = np.exp(-(cdist(DRAWN, DRAWN) ** 2) / (2 * scale))
    taken: list[int] = []
    for t in range(12):
        value = [to_real[i] - sum(among[i, j] for j in taken) / (t + 1) for i in range(40)]
        taken.append(max((v, -i) for i, v in enumerate(value) if i not in taken)[1] * -1)
    assert build_selector("herding").rows(CANDIDATES, 12, seed=0).tolist() == sorted(taken)


def test_kmeans_gives_every_cluster_its_real_share():
    centres = np.array([[0.0, 0], [20, 0], [0, 20]])
    of_real, of_drawn = np.repeat([0, 1, 2], [50, 30, 20]), np.resize([0, 1, 0, 2, 0, 0], 60)
    real, drawn = (centres[of] + RNG.normal(size=(len(of), 2)) for of in (of_real, of_drawn))
    given = SimpleNamespace(items=drawn, features=drawn, real_features=real)
    rows = build_selector("kmeans", {"n_clusters": 3}).rows(given, 20, seed=0)
    assert np.bincount(of_drawn[rows]).tolist() == [10, 6, 4]
    wanted = [np.flatnonzero(of_drawn == c)[:n] for c, n in ((0, 10), (1, 6), (2, 4))]
    assert rows.tolist() == sorted(np.concatenate(wanted).tolist())
    few = build_selector("kmeans", {"n_clusters": 3}).rows(given, 50, seed=0)  # 10 of the second and third are there
    assert np.bincount(of_drawn[few]).tolist() == [30, 10, 10]


@pytest.mark.parametrize(
    ("n", "shares", "there", "wanted"),
    [
        (10, [5, 3, 2], [9, 9, 9], [5, 3, 2]),
        (7, [1, 1, 1], [9, 9, 9], [3, 2, 2]),
        (9, [5, 3, 1], [2, 9, 9], [2, 5, 2]),
        (4, [1, 0, 0], [1, 1, 5], [1, 1, 2]),
    ],
)
def test_places_are_shared_out_by_largest_remainders_up_to_what_is_there(n, shares, there, wanted):
    assert shared_out(n, np.array(shares), np.array(there)).tolist() == wanted


def test_a_choice_is_among_its_own_candidates_by_the_softmax_of_the_reward():
    chosen, draws = np.zeros(40), 3000
    selector = build_selector("choice", {"reward": "likelihood", "strength": 0.3})
    for seed in range(draws):
        rows = selector.rows(CANDIDATES, 10, seed=seed)
        assert (rows // 4).tolist() == list(range(10))
        chosen[rows] += 1
    weights = np.exp(0.3 * LOG_P).reshape(10, 4)
    expected = (weights / weights.sum(axis=1, keepdims=True)).ravel()
    error = np.sqrt(draws * expected * (1 - expected))
    assert (np.abs(chosen - draws * expected) <= 4.5 * error).all()


def test_the_probabilities_of_the_classifier_are_the_softmax_of_its_scores(digits):
    from iterative_retraining.metrics.features import build_features

    space = build_features("auto", "digits")
    features = space(digits[:50])
    found = space.probabilities(features)
    scores = features.astype(np.float64) @ space.net.scores.weight.detach().numpy().T.astype(np.float64)
    scores += space.net.scores.bias.detach().numpy()
    wanted = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert (found.argmax(axis=1) == space.classes(features)).all()


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "keep_rate", "wanted"),
    [(1500, 0.5, 3000), (1500, 0.3, 5000), (7, 1.0, 7), (10, 1 / 3, 30), (10, 0.7, 15), (0, 0.5, 0)],
)
def test_candidates_are_counted_exactly(n, keep_rate, wanted):
    assert n_candidates(n, keep_rate) == wanted


@pytest.mark.parametrize("name", SELECTORS)
def test_every_selector_keeps_as_many_of_as_many(name):
    options = {"reward": "likelihood"} if name == "choice" else {}
    for n in (1, 10, 20):
        rows = build_selector(name, options).rows(CANDIDATES, n, seed=3)
        assert len(set(rows.tolist())) == len(rows) == n
        assert (np.diff(rows) > 0).all()
        assert (build_selector(name, options).rows(CANDIDATES, n, seed=3) == rows).all()


@pytest.mark.parametrize("scheme", ["fully_synthetic", "mix", "accumulate", "weighted"])
def test_what_is_measured_is_the_model_and_what_is_trained_on_is_kept(scheme):
    """The first n samples are measured whatever is kept; the scheme gets as many rows of candidates as it asks for."""
    real, seen = np.random.default_rng(3).normal(size=(30, 2)), []
    n_kept = build_scheme(scheme, 0.5).n_samples(30)

    def metric(generated: np.ndarray, *, real: np.ndarray) -> dict[str, float]:
        seen.append(generated)
        return {}

    model, run = Gaussian(), MemoryRun()
    selection = Selection(build_selector("likelihood"), 0.25)
    for record in retrain(
        model, real, build_scheme(scheme, 0.5), [metric], n_retrain=2, seed=0, selection=selection, run=run
    ):
        assert record.n_synthetic in (0, n_kept, 2 * n_kept)
    assert [len(samples) for samples in run.history] == [n_kept] * 3
    assert [len(samples) for samples in seen] == [30] * 3
    candidates = model.sample(4 * n_kept, seed=_sample_seed(2))
    np.testing.assert_array_equal(seen[-1], model.sample(30, seed=_sample_seed(2)))
    np.testing.assert_array_equal(run.history[-1], candidates[best(model.log_prob(candidates), n_kept)])


def _sample_seed(generation: int) -> int:
    from iterative_retraining.seeding import stage_seed

    return stage_seed(0, generation, "sample")


def test_all_kept_is_as_without_a_selector_and_none_needed_too():
    real = np.random.default_rng(3).normal(size=(30, 2))
    for scheme, keep_rate in ((build_scheme("fully_synthetic"), 1.0), (build_scheme("mix", 0.0), 0.5)):
        runs = []
        for selection in (None, Selection(build_selector("herding"), keep_rate)):
            run = MemoryRun()
            list(retrain(Gaussian(), real, scheme, [], n_retrain=2, seed=0, run=run, selection=selection))
            runs.append(run)
        np.testing.assert_array_equal(runs[0].history[-1], runs[1].history[-1])


def test_a_perfect_verifier_stops_the_drift_of_a_wrong_start():
    """Samples of N(0, 4) of which a quarter is kept by the odds of N(0, 1) have the variance 1: no odds above 1."""
    target, n = stats.norm(0, 1), 4000
    model = Gaussian(np.zeros(1), np.array([[4.0]]))
    selection = Selection(build_selector("verifier"), 0.25, target=lambda x: target.logpdf(x[:, 0]))
    samples = model.sample(4 * n, seed=1)
    kept = selection.keep(samples, n, real=np.zeros((2, 1)), model=model, seed=2)
    assert stats.kstest(kept[:, 0], target.cdf).pvalue > 1e-3


# ---- runs ------------------------------------------------------------------------------------------------------------

OF_IMAGES = [name for name in SELECTORS if name not in ("verifier", "likelihood")]
CASES = [("gaussian", name, "fully_synthetic") for name in (*OF_IMAGES, "likelihood")]
CASES += [
    ("gaussian", "density", "mix"),
    ("edm", "confidence", "mix"),
    ("spline_flow", "likelihood", "fully_synthetic"),
]


@pytest.mark.parametrize(("model", "selector", "scheme"), CASES)
def test_a_run_with_a_selector_is_the_same_bits_when_it_is_interrupted(tmp_path, model, selector, scheme):
    given = {
        **SMALL,
        "model": model,
        "model_options": QUICK.get(model, {}),
        "scheme": scheme,
        "lam": 1.5,
        "selector": selector,
    }
    whole = open_experiment(**given, run_dir=tmp_path / "whole")
    assert {record.n_synthetic for record in whole.records()} == {0, 40 if scheme == "fully_synthetic" else 60}
    whole.run.close()
    assert f"-{selector}-keep0.5-seed0-" in whole.run.config.run_id
    broken = open_experiment(**given, run_dir=tmp_path / "broken")
    records = broken.records()
    next(records), next(records)
    records.close()
    broken.run.close()
    again = open_experiment(**given, run_dir=tmp_path / "broken")
    assert len(list(again.records())) == 3
    again.run.close()
    assert untimed(tmp_path / "broken" / "ledger.jsonl") == untimed(tmp_path / "whole" / "ledger.jsonl")


def test_a_data_set_with_a_density_can_be_verified(tmp_path, monkeypatch):
    class Known(type(DATASETS["digits"])):
        def log_prob(self, images):
            return -(images.reshape(len(images), -1) / 255.0).sum(axis=1)

    monkeypatch.setitem(DATASETS, "digits", Known())
    given = SMALL | {"model": "gaussian", "scheme": "fully_synthetic", "n_retrain": 1}
    one = open_experiment(**given, selector="verifier", run_dir=tmp_path / "run")
    assert [record.n_synthetic for record in one.records()] == [0, 40]
    one.run.close()
    with pytest.raises(RunError, match="keeps the samples that its selector 'verifier' chose"):
        next(remeasure(tmp_path / "run", Asked()))


def test_selectors_differ_and_their_theta_0_does_not(tmp_path):
    rows = {}
    for selector, rate in (("", 0.5), ("random", 0.5), ("density", 0.5), ("density", 0.25)):
        folder = tmp_path / f"{selector}{rate}"
        given = SMALL | {"model": "gaussian", "scheme": "fully_synthetic", "n_retrain": 1}
        one = open_experiment(**given, selector=selector, keep_rate=rate, run_dir=folder)
        assert len(list(one.records())) == 2
        one.run.close()
        rows[selector, rate] = untimed(folder / "ledger.jsonl")
    first, second = ([own[t]["checkpoint_sha256"] for own in rows.values()] for t in (0, 1))
    assert len(set(first)) == 1
    assert len(set(second)) == 4
    assert len({own[0]["fid"] for own in rows.values()}) == 1


def test_samples_of_a_selected_theta_0_are_not_taken_for_those_of_the_model(tmp_path):
    given = SMALL | {"model": "gaussian", "scheme": "fully_synthetic"}
    start = open_experiment(**given | {"n_retrain": 0}, selector="density", run_dir=tmp_path / "start")
    assert len(list(start.records())) == 1
    start.run.close()
    after = open_experiment(**given, init=str(tmp_path / "start"), run_dir=tmp_path / "after")
    assert after.initial_samples is None
    after.run.close()


# ---- names and refusals ----------------------------------------------------------------------------------------------


def test_without_a_selector_the_id_is_what_it_was_and_with_one_it_says_so():
    plain = RunConfig(model="gaussian")
    assert plain.run_id == RunConfig(model="gaussian", keep_rate=0.25).run_id
    assert not {"selector", "keep_rate", "selector_options"} & plain.identity().keys()
    one = RunConfig(
        model="gaussian", lam=1.0, selector="likelihood", keep_rate=0.25, selector_options={"end": "bottom"}
    )
    assert one.run_id.startswith("digits-gaussian-mix-lam1-likelihood-endbottom-keep0.25-seed0-")
    given = {key: value for key, value in one.identity().items() if value is not None}
    assert RunConfig(**given).run_id == one.run_id
    full = RunConfig(model="gaussian", selector="density", selector_options={"k": 5.0 and 5})
    assert full.run_id == RunConfig(model="gaussian", selector="density").run_id
    ids = {RunConfig(model="gaussian", selector=name).run_id for name in SELECTORS}
    assert len(ids) == len(SELECTORS)


@pytest.mark.parametrize("name", SELECTORS)
def test_a_selector_says_what_it_is_and_refuses_an_unknown_option(name):
    built = build_selector(name)
    assert built == build_selector(name, selector_defaults(name))
    assert built.name == name
    assert built.label
    assert built.id_part == name
    assert set(built.style) == {"color", "marker"}
    assert built.needs <= {"classes", "density", "target"}
    assert len(type(built).__doc__.splitlines()[0]) > 20
    with pytest.raises(ConfigError, match="unknown option 'zzz' of selector"):
        RunConfig(selector=name, selector_options={"zzz": 1})


def test_no_two_selectors_look_the_same():
    looks = [tuple(sorted(build_selector(name).style.items())) for name in SELECTORS]
    assert len({look[0] for look in looks}) == len({look[1] for look in looks}) == len(SELECTORS)


@pytest.mark.parametrize("rate", [0, -0.5, 1.0001, 2, float("nan"), "half", True, None, 1e-9])
def test_a_keep_rate_that_is_no_share_is_refused_by_name(rate, tmp_path):
    with pytest.raises(ValueError, match=r"keep_rate = .* is not allowed"):
        check_keep_rate(rate)
    with pytest.raises(ConfigError, match="keep_rate"):
        open_experiment(**SMALL, model="gaussian", selector="random", keep_rate=rate, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


REFUSED = [
    ({"selector": "best"}, "unknown selector 'best'; allowed: random, "),
    ({"selector": "", "selector_options": {"k": 3}}, "unknown option 'k' of no selector"),
    ({"selector": "density", "selector_options": {"k": 0}}, "k = 0 is not allowed"),
    ({"selector": "density", "selector_options": {"k": 41}}, "k = 41 is not allowed with 40 real data"),
    ({"selector": "density", "selector_options": {"end": "middle"}}, "end = 'middle' is not allowed; allowed: top, "),
    ({"selector": "confidence", "selector_options": {"of_class": 10}}, "of_class = 10 is not allowed: .* 0 to 9"),
    ({"selector": "confidence", "selector_options": {"of_class": -2}}, "of_class = -2 is not allowed"),
    ({"selector": "kmeans", "selector_options": {"n_clusters": 0}}, "n_clusters = 0 is not allowed"),
    ({"selector": "choice", "keep_rate": 0.3}, "keep_rate = 0.3 is not allowed with selector 'choice'"),
    ({"selector": "choice", "selector_options": {"reward": "joy"}}, "unknown reward 'joy'; allowed: confidence"),
    ({"selector": "choice", "selector_options": {"strength": float("inf")}}, "strength = inf is not allowed"),
    ({"selector": "likelihood", "model": "edm"}, "selector = 'likelihood' .* needs a model with an exact density"),
    (
        {"selector": "choice", "model": "edm", "selector_options": {"reward": "likelihood"}},
        "'choice' .* needs a model with",
    ),
    ({"selector": "verifier"}, "selector = 'verifier' is not allowed here: it needs a data set whose density is known"),
    ({"selector": "density", "features": "dinov2"}, "features"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_is_not_allowed_is_refused_by_name_before_anything_is_made(given, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        open_experiment(**{**SMALL, "model": "gaussian", **given}, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_several_seeds_at_once_are_refused():
    selection = Selection(build_selector("random"))
    with pytest.raises(ValueError, match="give one seed"):
        next(retrain(Gaussian(), REAL, build_scheme("mix"), [], n_retrain=1, seed=(0, 1), selection=selection))


@pytest.mark.parametrize("name", ["", *SELECTORS])
def test_the_code_of_a_run_is_that_of_its_selector_and_of_no_other(name):
    names = {n.partition(".")[0] for n, _ in of_run(RunConfig(model="gaussian", selector=name).identity())}
    reached = {other for other, built in SELECTORS.items() if built.__name__ in names}
    assert reached == ({name} | ({"confidence"} if name == "choice" else set())) - {""}


def test_rewards_are_selectors_by_score():
    assert all(SELECTORS[name] is REWARDS[name] for name in REWARDS)
