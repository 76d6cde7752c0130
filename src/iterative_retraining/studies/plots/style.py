"""The same look for the same arm in every chapter: its scheme has a colour, this registry the marker of each λ.

No two arms share line and marker, so that figures can be read in grey; colours of one line differ for colour-blind
eyes as well. Exact theory is black, floors are grey, fully synthetic retraining is dashed red.
"""

import math
import re
from typing import Any

import seaborn as sns

from iterative_retraining.interfaces import Scheme
from iterative_retraining.studies.report.arms import arm_of

PALETTE = sns.color_palette("colorblind")
FLOOR_COLOUR = "0.85"
EXACT_COLOUR = "black"
MARKERS = {0.0: "o", 0.01: "p", 0.1: "v", 0.5: "s", 1.0: "D", 2.0: "P", 5.0: "X", 10.0: "h"}  # by λ of the mix
LINES = {"fresh": (0, (5, 1, 1, 1))}  # dashed is the fully synthetic arm's alone
# Other names that chapters give to arms; "mix, λ = 1", "fresh, λ = 1" and "λ = 1", a mix, are read as they stand.
NAMES = {
    "replace": "fully_synthetic",
    "fully synthetic": "fully_synthetic",
    "accumulate": "accumulate",
    "accumulate, subsample": "accumulate_subsample",
}
WITH_LAM = re.compile(r"(?:(mix|fresh), )?λ = (\d+(?:\.\d+)?)(?: \(real only\))?")


def style_of(arm: Scheme) -> dict[str, Any]:
    """Colour, line, marker and label of an arm; solid lines with dots for a scheme that does not say otherwise."""
    look = {"linestyle": "-", "marker": "o", **arm.style, "label": arm.label}
    if arm.name == "mix":
        look["marker"] = _marker(float(getattr(arm, "lam", 0.0)))
    if arm.name in LINES:
        look["linestyle"] = LINES[arm.name]
    return look


def arm_style(scheme: str, lam: float | None = None, scheme_options: str = "{}") -> dict[str, Any]:
    """`style_of` an arm by the name and the parameters of its scheme."""
    return style_of(arm_of(scheme, lam, scheme_options))


def curve_look(name: str, k: int) -> dict[str, Any]:
    """Colour and line of a curve: those of the arm that its name tells, or else the ``k``-th colour, solid."""
    found = WITH_LAM.fullmatch(name)
    if found or name in NAMES:
        style = arm_style(found[1] or "mix", float(found[2])) if found else arm_style(NAMES[name])
        return {"color": style["color"], "linestyle": style["linestyle"]}
    return {"color": PALETTE[k % len(PALETTE)], "linestyle": "-"}


def _marker(lam: float) -> str:
    """That of the nearest λ of MARKERS, by ratio."""
    if lam == 0:
        return MARKERS[0.0]
    return MARKERS[min((known for known in MARKERS if known), key=lambda known: abs(math.log(known / lam)))]
