"""The same look for the same arm in every chapter: its scheme says which, and none has a colour of another."""

from typing import Any

import seaborn as sns

from iterative_retraining.interfaces import Scheme
from iterative_retraining.studies.report.arms import arm_of

PALETTE = sns.color_palette("colorblind")
FLOOR_COLOUR = "0.85"


def style_of(arm: Scheme) -> dict[str, Any]:
    """Colour, line, marker and label of an arm; solid lines with dots for a scheme that does not say otherwise."""
    return {"linestyle": "-", "marker": "o", **arm.style, "label": arm.label}


def arm_style(scheme: str, lam: float | None = None, scheme_options: str = "{}") -> dict[str, Any]:
    """`style_of` an arm by the name and the parameters of its scheme."""
    return style_of(arm_of(scheme, lam, scheme_options))
