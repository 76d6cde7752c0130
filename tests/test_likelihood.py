import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp

from iterative_retraining.metrics import likelihood, pairs
from iterative_retraining.metrics.likelihood import (
    FLD,
    FeatureMixture,
    fit_mixture,
    sample_memorisation,
    sample_quality,
)
from iterative_retraining.metrics.pairs import Rows

RNG = np.random.default_rng(0)


def clusters(n, seed, spread=0.3):
    """Points around eight corners of a cube in 6 dimensions."""
    rng = np.random.default_rng(seed)
    corners = np.sign(np.random.default_rng(9).normal(size=(8, 6)))
    return (corners[rng.integers(0, 8, n)] + rng.normal(size=(n, 6)) * spread).astype(np.float32)


REAL, TEST, FRESH = clusters(600, 1), clusters(400, 2), clusters(400, 3)


def test_log_prob_of_a_mixture_is_that_of_scipy():
    centres, log_variances, x = RNG.normal(size=(3, 2)), np.array([-1.0, 0.5, 0.0]), RNG.normal(size=(5, 2))
    normals = [
        stats.multivariate_normal(c, math.exp(v) * np.eye(2)) for c, v in zip(centres, log_variances, strict=True)
    ]
    expected = logsumexp([normal.logpdf(x) for normal in normals], axis=0) - math.log(3)
    mixture = FeatureMixture(torch.from_numpy(centres), torch.from_numpy(log_variances))
    np.testing.assert_allclose(mixture.log_prob(Rows(x)).numpy() * 2, expected, rtol=1e-10)


def test_one_centre_alone_gets_the_maximum_likelihood_variance():
    """With the background far too wide to matter, the fit of one Gaussian is closed form."""
    data = RNG.normal(size=(500, 3)) * 0.5
    mixture = fit_mixture(torch.zeros((1, 3), dtype=torch.float64), Rows(data), n_iterations=0)
    nearest = (data**2).sum(axis=1).min()
    np.testing.assert_allclose(mixture.log_variances.exp().item(), (nearest + 1e-3) / 3, rtol=1e-9)


def objective(centres, log_variances, log_background, data):
    """Mean log-likelihood of the fit, background included, by SciPy."""
    dim = data.shape[1]
    squared = ((data[:, None] - centres[None]) ** 2).sum(axis=2)
    squared0 = 0.81 * ((data - data.mean(axis=0)) ** 2).sum(axis=1)

    def log_normal(s, v):
        return -0.5 * (s * np.exp(-v) + dim * (v + math.log(2 * math.pi)))

    terms = log_normal(squared, log_variances) - math.log(len(centres))
    return np.logaddexp(logsumexp(terms, axis=1), log_normal(squared0, log_background)).mean() / dim


def test_each_iteration_climbs_and_the_end_is_stationary():
    data, centres = REAL[:200].astype(np.float64), FRESH[:20].astype(np.float64)
    path = [
        fit_mixture(torch.from_numpy(centres), Rows(data), n_iterations=i, tolerance=-1.0) for i in (0, 1, 3, 10, 400)
    ]
    ends = []
    for mixture in path:
        variances = mixture.log_variances.numpy()
        best = max(objective(centres, variances, b, data) for b in np.linspace(-2, 2, 81))
        ends.append(best)
    assert all(later > earlier - 1e-6 for earlier, later in pairwise(ends))
    variances = path[-1].log_variances.numpy()
    background = max(np.linspace(-2, 2, 4001), key=lambda b: objective(centres, variances, b, data))
    at_end = objective(centres, variances, background, data)
    for j in range(20):
        for step in (-0.05, 0.05):
            moved = variances + step * np.eye(20)[j]
            assert objective(centres, moved, background, data) <= at_end + 1e-7


def test_tiles_and_recomputed_distances_do_not_change_the_result(monkeypatch):
    whole = FLD()(FRESH, real=REAL, test=TEST)
    monkeypatch.setattr(likelihood, "KEPT_PAIRS", 0)
    monkeypatch.setattr(likelihood, "TILE", 64)
    monkeypatch.setattr(pairs, "TILE", 64)
    np.testing.assert_allclose(list(FLD()(FRESH, real=REAL, test=TEST).values()), list(whole.values()), rtol=1e-8)


def test_fld_ranks_what_it_was_made_to_rank():
    """Fidelity, diversity and novelty: noise, a lost mode and copies are each worse than a fresh sample."""
    good = FLD()(FRESH, real=REAL, test=TEST)
    assert abs(good["fld"]) < 10
    noisy = FRESH + np.random.default_rng(4).normal(size=FRESH.shape).astype(np.float32)
    one_side = FRESH[FRESH[:, 0] > 0]
    copies = REAL[:400] + np.float32(1e-3)
    found = {name: FLD()(x, real=REAL, test=TEST) for name, x in (("n", noisy), ("m", one_side), ("c", copies))}
    assert all(values["fld"] > good["fld"] + 10 for values in found.values())
    assert found["c"]["fld_gap"] < good["fld_gap"] - 100
    assert found["c"]["fld"] > 1000


def test_fld_is_seeded_bounded_in_size_and_says_its_counts():
    first = FLD(max_generated=100, seed=3)(FRESH, real=REAL, test=TEST)
    assert first == FLD(max_generated=100, seed=3)(FRESH, real=REAL, test=TEST)
    assert first != FLD(max_generated=100, seed=4)(FRESH, real=REAL, test=TEST)
    counts = {"n_generated": 400, "n_centres": 100, "n_real": 600, "n_test": 400}
    assert {name: first.about[name] for name in counts} == counts


def test_exact_copies_have_the_smallest_variance_allowed_and_a_finite_value():
    found = FLD()(REAL[:400], real=REAL, test=TEST)
    assert found["fld"] > 1e6
    assert np.isfinite(list(found.values())).all()


def test_scores_of_single_points_find_the_bad_and_the_copied():
    bad = np.full((1, 6), 4.0, dtype=np.float32)
    quality = sample_quality(np.concatenate([FRESH, bad]), real=REAL, test=TEST)
    assert quality.shape == (401,)
    assert quality[-1] < quality[:-1].min()
    memorised = sample_memorisation(np.concatenate([FRESH, REAL[:1]]), real=REAL, test=TEST)
    assert memorised[-1] > memorised[:-1].max()


def test_bad_input_is_refused_by_name():
    with pytest.raises(ValueError, match="fld needs at least 4 images in generated, got 1"):
        FLD()(FRESH[:1], real=REAL, test=TEST)
    with pytest.raises(ValueError, match="test must hold at least 2 images, got 1"):
        FLD()(FRESH, real=REAL, test=TEST[:1])
    constant = TEST.copy()
    constant[:, 2] = 0
    with pytest.raises(ValueError, match="dimension 2 of the test features is constant"):
        FLD()(FRESH, real=REAL, test=constant)
    with pytest.raises(ValueError, match="test has D = 5"):
        FLD()(FRESH, real=REAL, test=TEST[:, :5])
