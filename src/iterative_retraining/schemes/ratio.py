"""The ratio lam = synthetic : real and how many samples it asks for."""

import math
from fractions import Fraction
from numbers import Real

from iterative_retraining.errors import shown

LARGEST_LAM = 1e9  # beyond all use, and what it asks for can still be counted


def check_lam(lam: object) -> None:
    """Raises ValueError unless ``lam`` is a number from 0 to `LARGEST_LAM`."""
    if isinstance(lam, bool) or not isinstance(lam, Real) or not 0 <= lam <= LARGEST_LAM:
        raise ValueError(
            f"lam = {shown(lam)} is not allowed: it is the ratio synthetic : real, a finite number >= 0, at most "
            f"{LARGEST_LAM:g} (for synthetic data alone, take scheme 'fully_synthetic')"
        )


def synthetic_count(lam: float, n: int) -> int:
    """floor(lam n), exactly, for the decimal number that ``lam`` is written as: 0.29 of 50 000 are 14 500.

    The float 0.29 is a little less, and so is its product with 50 000. Raises ValueError for a bad ``lam``.
    """
    check_lam(lam)
    return math.floor(Fraction(repr(float(lam))) * n)
