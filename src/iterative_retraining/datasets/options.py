"""What the choice of a network changes in the options of a model, on every data set alike."""

from collections.abc import Mapping
from typing import Any


def of_network(network: str) -> Mapping[str, Any]:
    """torchcfm's ADM network sees the time of a flow as it is, not times 1000 (Tong et al. 2024, their code)."""
    return {"time_scale": 1.0} if network == "adm" else {}


def of_augmentation(network: str, probability: float) -> Mapping[str, Any]:
    """Augmentation for our own network alone, "ddpmpp": nobody tells another one of it."""
    return {"augment_probability": probability} if network == "ddpmpp" else {}
