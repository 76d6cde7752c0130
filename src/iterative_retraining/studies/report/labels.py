"""The names of values on axes and in tables: those of the metrics, and of what studies in the plane measure."""

from iterative_retraining.metrics import label_of as metric_label

IN_THE_PLANE = {
    "energy_distance": "energy distance",
    "sliced_w2": "sliced W₂",
    "w2": "W₂",
    "kernel_nll": "kernel NLL",
    "nll": "exact NLL",
    "kl": "KL",
    "spread": "spread around a mode",
    "radius": "distance from the centre",
    "modes": "modes found",
}


def label_of(name: str) -> str:
    """The label of a value."""
    return IN_THE_PLANE.get(name) or metric_label(name)
