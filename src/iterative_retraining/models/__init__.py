"""The generative models: one file a family, one object each in the registry."""

from collections.abc import Mapping
from typing import Any

from iterative_retraining.datasets import find_dataset
from iterative_retraining.errors import find, refuse_unknown
from iterative_retraining.interfaces import Model, ModelFamily
from iterative_retraining.models.ddpm import DDPM_FAMILY
from iterative_retraining.models.edm import EDM_FAMILY
from iterative_retraining.models.family import resolved_options
from iterative_retraining.models.flow_matching import FLOW_MATCHING_FAMILY
from iterative_retraining.models.gaussian import GAUSSIAN_FAMILY
from iterative_retraining.models.spline_flow import SPLINE_FLOW_FAMILY

MODELS: dict[str, ModelFamily] = {
    "edm": EDM_FAMILY,
    "flow_matching": FLOW_MATCHING_FAMILY,
    "ddpm": DDPM_FAMILY,
    "spline_flow": SPLINE_FLOW_FAMILY,
    "gaussian": GAUSSIAN_FAMILY,
}


def resolve_options(model: str, dataset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of ``model`` with its value for ``dataset``: the defaults, overridden by ``options``.

    Raises ConfigError for an unknown model, data set or option, ValueError for a value that is not allowed.
    """
    family, data = find("model", model, MODELS), find_dataset(dataset)
    network = options.get("network", family.networks[0]) if family.networks else ""
    if family.networks:
        refuse_unknown("network", [network], family.networks)
    return resolved_options(family, data.options(model, network), options, data.shape)


def build_model(name: str, item_shape: tuple[int, ...], options: Mapping[str, Any], **how: Any) -> Model:
    """The model called ``name`` for items of ``item_shape``, (H, W, C) for images, with resolved ``options``.

    how: n_images_initial, n_images_per_retraining, device and team, see `ModelFamily.build`.
    """
    family = find("model", name, MODELS)
    return family.build(item_shape, family.checked(options, item_shape), **how)
