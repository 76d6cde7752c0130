"""The same colour for the same arm in every chapter, colour-blind safe."""

from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns

PALETTE = sns.color_palette("colorblind")
LAM_COLOURS = {
    0.0: PALETTE[7],
    0.01: PALETTE[9],
    0.1: PALETTE[4],
    0.5: PALETTE[0],
    1.0: PALETTE[2],
    2.0: PALETTE[1],
}
FLOOR_COLOUR = "0.85"


def arm_style(scheme: str, lam: float | None = None) -> dict[str, Any]:
    """Colour, line, marker and label of an arm. Fully synthetic is dashed red with triangles, as in the paper."""
    if scheme == "fully_synthetic":
        return {"color": PALETTE[3], "linestyle": "--", "marker": "^", "label": "fully synthetic"}
    colour = LAM_COLOURS.get(lam, plt.get_cmap("viridis")(min(lam, 5) / 5))
    label = "λ = 0 (real only)" if lam == 0 else f"λ = {lam:g}"
    return {"color": colour, "linestyle": "-", "marker": "o", "label": label}
