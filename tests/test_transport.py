import numpy as np
import pytest
from scipy import stats

from iterative_retraining.studies.toy2d.distributions import ARC
from iterative_retraining.studies.toy2d.transport import estimate_wasserstein1, wasserstein1_of_samples


def test_on_a_line_it_is_scipys_distance():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=70), rng.normal(size=50) + 0.4
    np.testing.assert_allclose(
        wasserstein1_of_samples(x[:, None], y[:, None]), stats.wasserstein_distance(x, y), rtol=1e-10
    )


def test_a_shifted_sample_is_as_far_as_the_shift():
    x = np.random.default_rng(1).normal(size=(100, 2))
    np.testing.assert_allclose(wasserstein1_of_samples(x, x + np.array([0.3, 0.4])), 0.5, rtol=1e-10)


@pytest.mark.parametrize(
    ("shift", "scale", "truth"), [(0.0, 1.0, 0.0), (0.5, 1.0, 0.5), (0.0, 2.0, np.sqrt(np.pi / 2))]
)
def test_distributions_at_a_known_distance(shift, scale, truth):
    rng = np.random.default_rng(2)
    found = estimate_wasserstein1(rng.normal(size=(8000, 2)), scale * rng.normal(size=(8000, 2)) + np.array([shift, 0]))
    assert found.low <= truth <= found.high + 2 * found.standard_error  # both hold on average
    assert abs(found.value - truth) < 0.06
    assert 0 < found.standard_error < 0.03


def test_samples_of_a_mixture_have_its_moments():
    x = ARC.sample(40_000, seed=0)
    means = np.array(ARC.means)
    np.testing.assert_allclose(x.mean(axis=0), means.mean(axis=0), atol=4 * x.std() / 200)
    np.testing.assert_allclose(x.var(axis=0), means.var(axis=0) + ARC.std**2, rtol=0.03)


def test_bad_input_is_refused():
    x = np.zeros((32, 2))
    with pytest.raises(ValueError, match=r"32 and 16 points with n_splits = 8 are not allowed"):
        estimate_wasserstein1(x, x[:16])
    with pytest.raises(ValueError, match="first must be finite points"):
        wasserstein1_of_samples(x * np.nan, x)
    with pytest.raises(ValueError, match="points of 2 and of 1 dimensions"):
        wasserstein1_of_samples(x, x[:, :1])
