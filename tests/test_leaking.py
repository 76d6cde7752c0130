import matplotlib.pyplot as plt
import numpy as np
import pytest

from iterative_retraining.studies import plots
from iterative_retraining.studies.theory.leaking import TV_COLLAPSED, simulate_leaks


@pytest.mark.parametrize("scheme", ["accumulate", "mix"])
def test_a_third_collapses_at_the_first_retraining_whatever_n_and_none_comes_back(scheme):
    for n in (200, 800):
        path = simulate_leaks(scheme, n, 8, 4000, seed=5)
        lost = path == TV_COLLAPSED
        assert not lost[0].any()
        assert abs(lost[1].mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / 4000)
        assert (lost[1:] >= lost[:-1]).all()
        assert lost[-1].mean() > 0.7
        np.testing.assert_allclose(n * path[0].mean(), 0.5, rtol=0.1)  # half an exponential of mean 1
    figure = plots.shares_collapsed({scheme: lost}, 1 / 3)
    assert figure.axes[0].get_ylabel() == "share collapsed"
    plt.close(figure)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ValueError, match="unknown scheme 'replace'; allowed: accumulate, mix"):
        simulate_leaks("replace", 10, 1, 2, seed=0)
