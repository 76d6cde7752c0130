"""A family that is not smooth, on which accumulating data does not help: it collapses although real data are kept.

p_theta is uniform on [theta, theta + 1], the real distribution p_0. But the family also holds, for every c outside
[0, 1], the distribution q_c: half its mass uniform on [-1/2, 3/2], half on c -+ w(c), w = exp(-1/d^2) at the distance d
of c from [0, 1]. Real data never fall there, so the maximum of the likelihood is p_theta with theta = O(1/n): better
than any smooth family can do. A model's own samples leak outside [0, 1], and one leak is enough for q_c. The
construction is ours; that such families exist is due to Barzilai and Shamir (2025). Many chains at once, with the
maximum in closed form, and not by `retrain`.
"""

import numpy as np

from iterative_retraining.seeding import generator

TV_COLLAPSED = 0.75  # the total variation between q_c and p_0: q_c has the density 1/4 where p_0 has 1


def simulate_leaks(scheme: str, n: int, generations: int, n_chains: int, *, seed: int) -> np.ndarray:
    """Total variation |p_t - p_0| of retrained models, (generations + 1, n_chains), by maximum likelihood.

    scheme: "accumulate" keeps n samples of every generation, "mix" has n of the last one; both keep the n real data.
    Of the thetas that maximise the likelihood the middle one is taken. Raises ValueError for another scheme.
    """
    if scheme not in ("accumulate", "mix"):
        raise ValueError(f"unknown scheme {scheme!r}; allowed: accumulate, mix")
    rng = generator(seed)
    x = rng.random((n_chains, n))
    real = low, high = x.min(axis=1), x.max(axis=1)
    theta, collapsed, path = (low + high - 1) / 2, np.zeros(n_chains, bool), []
    path.append(np.abs(theta))
    for t in range(1, generations + 1):
        x = theta[:, None] + rng.random((n_chains, n))
        low, high = (low, high) if scheme == "accumulate" else real
        low, high = np.minimum(low, x.min(axis=1)), np.maximum(high, x.max(axis=1))
        n_data = n * (t + 1 if scheme == "accumulate" else 2)
        collapsed |= _spike_wins(x, n_data)
        theta = (low + high - 1) / 2
        path.append(np.where(collapsed, TV_COLLAPSED, np.abs(theta)))
    return np.stack(path)


def _spike_wins(x: np.ndarray, n_data: int) -> np.ndarray:
    """Whether one of the new samples x (C, n) makes some q_c likelier than the best p_theta, whose log-likelihood is 0.

    The spike sits on the leak that is nearest to [0, 1]; the other data have the density 1/4.
    """
    outside = np.maximum(-x, x - 1)
    nearest = np.where(outside > 0, outside, np.inf).min(axis=1)
    return 1 / nearest**2 - n_data * np.log(4) > 0  # log(1/4 + exp(1/d^2) / 4) is 1/d^2 - log 4 up to exp(-1/d^2)
