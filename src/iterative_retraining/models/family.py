"""A family of models as one object: its options, their defaults and allowed values, and what builds a model of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar

from iterative_retraining.distributed import Team
from iterative_retraining.errors import refuse_unknown, shown
from iterative_retraining.interfaces import Model
from iterative_retraining.models.fitting import TrainingConfig
from iterative_retraining.models.networks import NETWORKS, NetworkConfig
from iterative_retraining.models.process import Process
from iterative_retraining.models.training import NetworkModel

LARGEST = 2**63 - 1  # of whole numbers, so that they fit NumPy, torch and JSON alike
LONGEST_LIST = 64
# Fields of the configurations that are not options: they follow from the data and from the budgets of a run.
OF_THE_RUN = ("network", "resolution", "colours", "n_images_initial", "n_images_per_retraining")


@dataclass(frozen=True)
class PlainFamily:
    """Models without a network, which see every datum once in a fit: ``make(**options)`` builds one.

    options: every option with its default value; a given value must be of the default's type.
    """

    name: str
    label: str
    make: Callable[..., Model]
    options: Mapping[str, Any] = field(default_factory=dict)
    has_density: bool = False
    networks: ClassVar[tuple[str, ...]] = ()
    trains_in_batches: ClassVar[bool] = False

    def defaults(self, network: str = "") -> dict[str, Any]:
        """See `iterative_retraining.interfaces.ModelFamily`."""
        return dict(self.options)

    def checked(self, options: Mapping[str, Any], item_shape: tuple[int, ...]) -> dict[str, Any]:
        """See `iterative_retraining.interfaces.ModelFamily`."""
        found = {name: normalised(name, value, type(self.options[name])) for name, value in options.items()}
        self.make(**found)
        return found

    def build(
        self,
        item_shape: tuple[int, ...],
        options: Mapping[str, Any],
        *,
        n_images_initial: int = 0,
        n_images_per_retraining: int = 0,
        device: str = "cpu",
        team: Team | None = None,
    ) -> Model:
        """See `iterative_retraining.interfaces.ModelFamily`."""
        return self.make(**options)


@dataclass(frozen=True)
class NetworkFamily:
    """Models that learn ``process`` with one of ``networks``, the first by default, trained in batches."""

    name: str
    label: str
    process: type
    configs: Mapping[str, type] = field(default_factory=lambda: NETWORKS)
    has_density: bool = False
    trains_in_batches: ClassVar[bool] = True

    @property
    def networks(self) -> tuple[str, ...]:
        """The names that the option ``network`` may have; none if there is nothing to choose."""
        return tuple(self.configs) if len(self.configs) > 1 else ()

    def _parts(self, network: str) -> tuple[type, type, type]:
        return self.configs[network or next(iter(self.configs))], TrainingConfig, self.process

    def defaults(self, network: str = "") -> dict[str, Any]:
        """See `iterative_retraining.interfaces.ModelFamily`."""
        own = {f.name: f.default for part in self._parts(network) for f in fields(part) if f.name not in OF_THE_RUN}
        return own | ({"network": network or self.networks[0]} if self.networks else {})

    def checked(self, options: Mapping[str, Any], item_shape: tuple[int, ...]) -> dict[str, Any]:
        """See `iterative_retraining.interfaces.ModelFamily`."""
        kinds = {f.name: f.type for part in self._parts(options.get("network", "")) for f in fields(part)}
        kinds["network"] = str
        found = {name: normalised(name, value, kinds[name]) for name, value in options.items()}
        self.configured(item_shape, found)
        return found

    def network_config(self, item_shape: tuple[int, ...], options: Mapping[str, Any]) -> NetworkConfig:
        """The network for square images of ``item_shape``, (H, W, C). Raises ValueError for what it cannot be."""
        height, width, colours = item_shape
        if height != width:
            raise ValueError(f"{self.name} takes square images, got {height} x {width}")
        config, _, _ = self._parts(options.get("network", ""))
        return config(resolution=height, colours=colours, **_of(config, options))

    def configured(
        self, item_shape: tuple[int, ...], options: Mapping[str, Any], **budgets: int
    ) -> tuple[Process, TrainingConfig]:
        """Process and training with these options. Raises ValueError for values that are not allowed."""
        budgets = {"n_images_initial": 0, "n_images_per_retraining": 0} | budgets
        network = self.network_config(item_shape, options)
        training = TrainingConfig(network=network, **budgets, **_of(TrainingConfig, options))
        return self.process(**_of(self.process, options)), training

    def build(
        self,
        item_shape: tuple[int, ...],
        options: Mapping[str, Any],
        *,
        n_images_initial: int = 0,
        n_images_per_retraining: int = 0,
        device: str = "cpu",
        team: Team | None = None,
    ) -> Model:
        """See `iterative_retraining.interfaces.ModelFamily`."""
        budgets = {"n_images_initial": n_images_initial, "n_images_per_retraining": n_images_per_retraining}
        process, training = self.configured(item_shape, options, **budgets)
        return NetworkModel(process, training, device, team)


def _of(config: type, options: Mapping[str, Any]) -> dict[str, Any]:
    return {f.name: options[f.name] for f in fields(config) if f.name in options and f.name not in OF_THE_RUN}


def normalised(name: str, value: Any, kind: Any) -> Any:
    """``value`` of an option as its type ``kind`` has it, so that 0 and 0.0, a list and a tuple, are one value.

    kind: bool, int, float, str or tuple[int, ...]. Raises ValueError for what is not of it, inf and nan included.
    """
    if kind is bool and isinstance(value, bool):
        return value
    if kind is str and isinstance(value, str):
        return value
    if kind in (int, float) and isinstance(value, Real) and not isinstance(value, bool):
        try:
            number = int(value) if kind is int and isinstance(value, Integral) else float(value)
        except OverflowError:
            number = math.inf
        if number - number != 0:
            raise ValueError(f"{name} = {shown(value)} is not allowed: it must be a finite number")
        if kind is float:
            return number
        if number == int(number) and abs(number) <= LARGEST:
            return int(number)
    if kind == tuple[int, ...] and isinstance(value, list | tuple) and len(value) <= LONGEST_LIST:
        return tuple(normalised(f"{name}[{i}]", one, int) for i, one in enumerate(value))
    words = {bool: "true or false", int: "a whole number below 2^63", float: "a number", str: "text"}
    word = words.get(kind, f"a list of at most {LONGEST_LIST} whole numbers")
    raise ValueError(f"{name} = {shown(value)} is not allowed: it must be {word}")


def resolved_options(
    family: Any, changed: Mapping[str, Any], options: Mapping[str, Any], item_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Every option of ``family`` with its value: the defaults, what ``changed`` has of them, overridden by ``options``.

    Raises ValueError for an unknown option or a value that is not allowed.
    """
    network = options.get("network", "") if family.networks else ""
    defaults = family.defaults(network)
    of = f"model {family.name!r}" + (f" with network {network!r}" if network else "")
    refuse_unknown("option", options, sorted(defaults), of=of)
    defaults |= {name: value for name, value in changed.items() if name in defaults}
    return family.checked(defaults | dict(options), item_shape)
