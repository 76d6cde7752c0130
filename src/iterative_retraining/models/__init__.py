"""The generative models behind one protocol, and the one place that builds them by name."""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from iterative_retraining.distributed import Team
from iterative_retraining.interfaces import Model

if TYPE_CHECKING:
    from iterative_retraining.models.networks.ddpmpp import NetworkConfig

MODELS = ("edm", "flow_matching", "ddpm", "spline_flow", "gaussian")
NETWORKS = ("ddpmpp", "adm", "diffusers")  # that a model with levels of noise can have

# Our choices for 8 x 8 digits, where a model has such an option; the budgets are parameters of a run, not part of this.
DIGITS = {
    "channels": 16,
    "multipliers": (1, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (4,),
    "dropout": 0.0,
    "augment_labels": 0,
    "norm_groups": 16,
    "ema_halflife_images": 5_000,
}
# And for 28 x 28 Fashion-MNIST.
FASHION = DIGITS | {
    "channels": 32,
    "multipliers": (1, 2, 2),
    "attention_resolutions": (7,),
    "ema_halflife_images": 50_000,
}
# The published CIFAR-10 network and half-life (Karras et al. 2022) are the defaults of the options.
FFHQ = {"multipliers": (1, 2, 2, 2), "dropout": 0.05, "learning_rate": 2e-4}  # else as published for CIFAR-10
TRAINING_BY_DATASET: dict[str, dict[str, Any]] = {
    "digits": DIGITS,
    "fashion_mnist": FASHION,
    "cifar10": {},
    "ffhq64": FFHQ,
}
# What holds for one model alone (Karras et al. 2022): 40 steps for FFHQ, where `n_steps` means other steps elsewhere.
OF_ONE_MODEL: dict[tuple[str, str], dict[str, Any]] = {
    ("edm", "cifar10"): {"augment_probability": 0.12},
    ("edm", "ffhq64"): {"augment_probability": 0.15, "n_steps": 40},
}
# What another network than ours changes in that: nobody tells it of an augmentation; torchcfm's sees the time of a flow
# as it is, and its norms have 32 groups.
OF_OTHER_NETWORKS = {"augment_probability": 0.0}
ADM = {"time_scale": 1.0}
ADM_DIGITS = ADM | {"channels": 32}
# Options that came after results were published, and the value with which a run is as it was before them.
ADDED_LATER: dict[str, Any] = {
    "network": "ddpmpp",
    "restart_ramp": True,
    "next_start": "ema",
    "keep_optimizer": False,
    "clip_gradient_norm": 0.0,
    "augment_probability": 0.0,
    "precision": "float32",
    "compile": False,
}


def resolve_options(model: str, dataset: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of ``model`` with its value for ``dataset``: the defaults, overridden by ``options``.

    Raises ValueError for an unknown model or option; values are checked by `build_model`.
    """
    if model not in MODELS:
        raise ValueError(f"unknown model {model!r}; allowed: {', '.join(MODELS)}")
    network = options.get("network", NETWORKS[0])
    if network not in NETWORKS:
        raise ValueError(f"network = {network!r} is not allowed; allowed: {', '.join(NETWORKS)}")
    allowed = {} if model == "gaussian" else _defaults(model, network, dataset)
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        of = f"model {model!r}" + (f" with network {network!r}" if "network" in allowed.keys() & options.keys() else "")
        raise ValueError(f"unknown option {unknown[0]!r} of {of}; allowed: {', '.join(sorted(allowed)) or 'none'}")
    return {name: options.get(name, default) for name, default in allowed.items()}


def _defaults(model: str, network: str, dataset: str) -> dict[str, Any]:
    by_run = {"network", "resolution", "colours", "n_images_initial", "n_images_per_retraining"}
    allowed = {f.name: f.default for config in _configs(model, network) for f in fields(config) if f.name not in by_run}
    choices = TRAINING_BY_DATASET[dataset] | OF_ONE_MODEL.get((model, dataset), {})
    if network != NETWORKS[0]:
        choices = choices | OF_OTHER_NETWORKS
    if network == "adm":
        choices = choices | (ADM_DIGITS if dataset == "digits" else ADM)
    allowed |= {name: value for name, value in choices.items() if name in allowed}
    return allowed if model == "spline_flow" else allowed | {"network": network}


def without_added_later(options: Mapping[str, Any], added_later: Mapping[str, Any] = ADDED_LATER) -> dict[str, Any]:
    """``options`` without those of ``added_later`` that have the value that means as before."""
    return {k: v for k, v in options.items() if k not in added_later or v != added_later[k]}


def build_model(
    name: str,
    item_shape: tuple[int, ...],
    options: Mapping[str, Any],
    *,
    n_images_initial: int,
    n_images_per_retraining: int,
    device: str = "cpu",
    team: Team | None = None,
) -> Model:
    """The model called ``name`` for items of ``item_shape``, (H, W, C) for images, with resolved ``options``.

    ``team``: the processes that work on this run, see `iterative_retraining.distributed`.
    """
    if name == "gaussian":
        from iterative_retraining.models.gaussian import Gaussian

        return Gaussian()
    from iterative_retraining.models.training import NetworkModel

    network = network_config(name, item_shape, options)
    _, training_config, process = _configs(name, options.get("network", NETWORKS[0]))
    given = tuples(options)
    budgets = {"n_images_initial": n_images_initial, "n_images_per_retraining": n_images_per_retraining}
    training = training_config(**_of(training_config, given) | {"network": network} | budgets)
    return NetworkModel(process(**_of(process, given)), training, device, team)


def network_config(model: str, item_shape: tuple[int, ...], options: Mapping[str, Any]) -> "NetworkConfig":
    """The network of ``model`` for square images of ``item_shape``, (H, W, C), with resolved ``options``."""
    height, width, colours = item_shape
    if height != width:
        raise ValueError(f"{model} takes square images, got {height} x {width}")
    config, _, _ = _configs(model, options.get("network", NETWORKS[0]))
    return config(resolution=height, colours=colours, **_of(config, tuples(options)))


def network_configs() -> dict[str, type]:
    """The classes behind `NETWORKS`, by name."""
    from iterative_retraining.models.networks.ddpmpp import UNetConfig
    from iterative_retraining.models.networks.foreign import ADMConfig, DiffusersUNetConfig

    return dict(zip(NETWORKS, (UNetConfig, ADMConfig, DiffusersUNetConfig), strict=True))


def _configs(model: str, network: str) -> tuple[type, type, type]:
    """The three dataclasses that share out the options of a network model: network, training, process."""
    from iterative_retraining.models.ddpm import DDPM
    from iterative_retraining.models.edm import EDM
    from iterative_retraining.models.fitting import TrainingConfig
    from iterative_retraining.models.flow_matching import FlowMatching
    from iterative_retraining.models.spline_flow import MaximumLikelihood, SplineFlowConfig

    if model == "spline_flow":
        return SplineFlowConfig, TrainingConfig, MaximumLikelihood
    return network_configs()[network], TrainingConfig, {"edm": EDM, "flow_matching": FlowMatching, "ddpm": DDPM}[model]


def tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _of(config: type, options: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: options[f.name] for f in fields(config) if f.name in options}
