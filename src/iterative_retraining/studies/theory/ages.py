"""How old the training images of a mix are, and what follows for a mix from the fully synthetic loop alone.

At generation t of a mix the real data have the share 1/(1+lam); the rest are samples of generation t-1, which learnt
from such a mix in turn. Followed back, D_t is a mixture over ages k, the number of models that real data went through
since. Derived here; the hypothesis that effects of a mix are those of its ages is the book's.
"""

import numpy as np


def age_weights(lam: float, oldest: int) -> np.ndarray:
    """What generation t = ``oldest`` of the mix is made of, by age k = 0..t: (1/(1+lam)) (lam/(1+lam))^k, and all that
    is left has the age t, that of theta_0. The mean age is lam (1 - (lam/(1+lam))^t)."""
    share = lam / (1 + lam)
    weights = (1 - share) * share ** np.arange(oldest + 1)
    weights[-1] = share**oldest
    return weights


def aged(lam: float, by_age: np.ndarray) -> float:
    """sum_k w_k(lam, t) by_age[k], the mean over the second half of the generations t; by_age (T + 1,)."""
    last = len(by_age) - 1
    return float(np.mean([age_weights(lam, t) @ by_age[: t + 1] for t in range((last + 1) // 2, last + 1)]))


def mix_of_a_linear_error(lam: float, error: float, generations: int) -> np.ndarray:
    """Variances v_t / v of a mix, (generations + 1,), where one model multiplies a variance by 1 + ``error``.

    v_t = (v + lam (1 + error) v_(t-1)) / (1 + lam), v_0 = v: the data that generation t learns from, as they would be
    with infinitely many samples. Equal to sum_k w_k (1 + error)^k for every t: an error that acts linearly on what is
    read off, such as a sampler's gain on a variance, follows the ages with the constant c = 1.
    """
    values = np.ones(generations + 1)
    for t in range(1, generations + 1):
        values[t] = (1 + lam * (1 + error) * values[t - 1]) / (1 + lam)
    return values


def statistical_constant(lam: float) -> float:
    """The constant c(lam) = 1/(1 + 2 lam) of an error that is statistical alone, to first order in 1/n.

    A fully synthetic exponential family adds V/n to the covariance of its mean parameters at each of k retrainings; the
    mix settles at lam/(1+2 lam) V/n (`finite_samples`), its mean age is lam. So whatever is read off, to second order,
    has c = (lam/(1+2 lam)) / lam: independent draws average out in a larger set, and one constant cannot serve two lam.
    """
    return 1 / (1 + 2 * lam)
