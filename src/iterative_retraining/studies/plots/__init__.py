"""Figures: drawn here and nowhere else, from what was computed before. Nothing is computed here.

Imported in a notebook, figures are shown at twice their size, with their numbers beside them as CSV (`showing`).
"""

from iterative_retraining.studies.plots.gaussian import (
    decay_by_dimension,
    shares_collapsed,
    std_bands,
    std_over_time,
    two_distributions,
    variance_by_lam,
    variance_by_weight,
    variances_over_time,
)
from iterative_retraining.studies.plots.metrics import bias_in_n, metrics_against, verdict_map
from iterative_retraining.studies.plots.plane import density_maps, density_panels, lines_by_arm, spread_curves
from iterative_retraining.studies.plots.protocol import protocol_panels, reach_by_budget
from iterative_retraining.studies.plots.runs import (
    ages_panels,
    family_curves,
    image_rows,
    mosaic,
    preview_rows,
    quality_curves,
    sample_grid,
    sampler_curves,
    social_card,
)
from iterative_retraining.studies.plots.selected import curation_panels, filtered_variances
from iterative_retraining.studies.plots.showing import show_with_numbers
from iterative_retraining.studies.plots.slider import frames_slider
from iterative_retraining.studies.plots.status import attempts_by_run, seconds_by_stage, verdict_counts
from iterative_retraining.studies.plots.style import FLOOR_COLOUR, arm_style
from iterative_retraining.studies.plots.theory import (
    distances_over_time,
    output_distances,
    rate_panels,
    stacked_errors,
    tail_panels,
)

show_with_numbers()

__all__ = [
    "FLOOR_COLOUR",
    "ages_panels",
    "arm_style",
    "attempts_by_run",
    "bias_in_n",
    "curation_panels",
    "decay_by_dimension",
    "density_maps",
    "density_panels",
    "distances_over_time",
    "family_curves",
    "filtered_variances",
    "frames_slider",
    "image_rows",
    "lines_by_arm",
    "metrics_against",
    "mosaic",
    "output_distances",
    "preview_rows",
    "protocol_panels",
    "quality_curves",
    "rate_panels",
    "reach_by_budget",
    "sample_grid",
    "sampler_curves",
    "seconds_by_stage",
    "shares_collapsed",
    "show_with_numbers",
    "social_card",
    "spread_curves",
    "stacked_errors",
    "std_bands",
    "std_over_time",
    "tail_panels",
    "two_distributions",
    "variance_by_lam",
    "variance_by_weight",
    "variances_over_time",
    "verdict_counts",
    "verdict_map",
]
