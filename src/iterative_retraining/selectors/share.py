"""The share of candidates that is kept, and how many candidates that asks for."""

import math
from fractions import Fraction
from numbers import Real

from iterative_retraining.errors import shown

LEAST_KEEP_RATE = 0.001  # a thousand candidates for each that is kept: beyond all use


def check_keep_rate(keep_rate: object) -> float:
    """``keep_rate`` as a float. Raises ValueError unless it is a number above 0 and at most 1, and not tiny."""
    if isinstance(keep_rate, bool) or not isinstance(keep_rate, Real) or not LEAST_KEEP_RATE <= keep_rate <= 1:
        raise ValueError(
            f"keep_rate = {shown(keep_rate)} is not allowed: it is the share of the candidates that a selector keeps, "
            f"above 0 and at most 1 (at least {LEAST_KEEP_RATE:g})"
        )
    return float(keep_rate)


def exact_share(keep_rate: float) -> Fraction:
    """The fraction that is meant: 0.3 is 3/10, and 1 / 3 as a float is 1/3."""
    return Fraction(keep_rate).limit_denominator(1_000_000)


def n_candidates(n_kept: int, keep_rate: float) -> int:
    """How many candidates are drawn for ``n_kept`` to be kept: n_kept / keep_rate, rounded up, exactly."""
    return math.ceil(n_kept / exact_share(keep_rate))
