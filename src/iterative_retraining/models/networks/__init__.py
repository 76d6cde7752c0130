"""The networks that a model with levels of noise can have, by name: ours, and those of published weights."""

from iterative_retraining.models.networks.ddpmpp import NetworkConfig, UNetConfig
from iterative_retraining.models.networks.foreign import ADMConfig, DiffusersUNetConfig

__all__ = ["NETWORKS", "NetworkConfig"]

NETWORKS: dict[str, type[NetworkConfig]] = {
    "ddpmpp": UNetConfig,
    "adm": ADMConfig,
    "diffusers": DiffusersUNetConfig,
}
