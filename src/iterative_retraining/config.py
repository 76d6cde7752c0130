"""What a run is: a frozen configuration, checked before any compute, whose hash names the run."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Self

from iterative_retraining.datasets import DATASETS
from iterative_retraining.devices import why_no_gpu
from iterative_retraining.errors import ConfigError, find, refuse_unknown, shown
from iterative_retraining.interfaces import Dataset, ModelFamily, Scheme, Selector
from iterative_retraining.models import MODELS, resolve_options
from iterative_retraining.schemes import build_scheme, check_lam
from iterative_retraining.selectors import build_selector, check_keep_rate

LATENTS = ("fresh", "fixed")
OF_SELECTION = ("selector", "keep_rate", "selector_options")
OF_RARITY = ("rare_class", "rare_share")
LARGEST = 2**63 - 1  # of a count, so that it fits NumPy, torch and JSON alike


def check_count(name: str, value: object, meaning: str) -> int:
    """``value`` as an int. Raises ConfigError unless it is a whole number >= 0 below 2^63."""
    whole = isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= LARGEST and value == int(value)
    if not whole:
        raise ConfigError(f"{name} = {shown(value)} is not allowed: {meaning}, a whole number >= 0")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The parameters that decide a run's numbers. How far it goes, where it is kept and on what device it runs do not
    belong here: a run can be extended and moved.

    lam: the ratio synthetic : real, of the schemes that have one
    scheme_options: overrides of the scheme's other parameters; after construction, each with its value
    n_images_initial, n_images_per_retraining: training budgets of theta_0 and of each retraining, in images
    latents: "fresh" noise for the samples of every generation, or "fixed", the same in all, as in the paper's code
    n_real: how many of the real images there are, the first of the data set; 0 for all
    rare_class: -1, or a class of the real images of which only the share rare_share is there, the first of them
    selector: "" for none, or which of the samples go into the next training set; keep_rate: what share of them, where
    there is a selector; selector_options: overrides of its options; after construction, each with its value
    options: overrides of the model's options; after construction, every option with its value
    init: "" to train theta_0, or the identity of the starting weights (`init_identity`)
    rehearsal: whether it only shows that a run will work, see `iterative_retraining.rehearsal`; never published

    Values that mean the same are kept as the same: 0 and 0.0, a list and a tuple. Raises ConfigError for any value that
    is not allowed.
    """

    dataset: str = "digits"
    model: str = "edm"
    scheme: str = "mix"
    lam: float = 0.5
    scheme_options: Mapping[str, Any] = field(default_factory=dict)
    n_images_initial: int = 180_000
    n_images_per_retraining: int = 36_000
    seed: int = 0
    latents: str = "fresh"
    n_real: int = 0
    rare_class: int = -1
    rare_share: float = 0.1
    selector: str = ""
    keep_rate: float = 0.5
    selector_options: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    init: str = ""
    rehearsal: bool = False

    def __post_init__(self) -> None:
        data = find("dataset", self.dataset, DATASETS)
        find("model", self.model, MODELS)
        refuse_unknown("latents", [self.latents], LATENTS)
        for name in ("scheme_options", "selector_options", "options"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise ConfigError(f"{name} = {shown(value)} is not allowed: it maps names of options to values")
        if not isinstance(self.rehearsal, bool):
            raise ConfigError(f"rehearsal = {shown(self.rehearsal)} is not allowed: it is true or false")
        if not isinstance(self.init, str):
            raise ConfigError(f"init = {shown(self.init)} is not allowed: it is a path, as text")
        counts = {
            "n_images_initial": "it is a training budget in images",
            "n_images_per_retraining": "it is a training budget in images",
            "seed": "it names the run's random numbers",
            "n_real": "it counts real images, 0 for all of them",
        }
        for name, meaning in counts.items():
            object.__setattr__(self, name, check_count(name, getattr(self, name), meaning))
        if self.n_real > data.counts["train"]:
            n = data.counts["train"]
            raise ConfigError(f"n_real = {self.n_real} is not allowed: {self.dataset} has {n} images; 0 is all")
        try:
            check_lam(self.lam)
            built = build_scheme(self.scheme, self.lam, self.scheme_options)
            resolved = resolve_options(self.model, self.dataset, self.options)
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error)) from error
        self._check_rarity()
        self._check_selector()
        own = {name: value for name, value in scheme_parameters(built).items() if name != "lam"}
        object.__setattr__(self, "scheme_options", own)
        object.__setattr__(self, "lam", float(self.lam))
        object.__setattr__(self, "options", resolved)

    def _check_rarity(self) -> None:
        """Raises ConfigError for a class or a share that cannot be."""
        c, share = self.rare_class, self.rare_share
        if isinstance(c, bool) or not isinstance(c, Integral) or not -1 <= c <= LARGEST:
            raise ConfigError(f"rare_class = {shown(c)} is not allowed: it is a class of the data, or -1 for none")
        if isinstance(share, bool) or not isinstance(share, Real) or not 0 < share <= 1:
            raise ConfigError(
                f"rare_share = {shown(share)} is not allowed: the share of the images of rare_class that is there, "
                "above 0 and at most 1"
            )
        if c >= 0 and not self.data.has_labels:
            raise ConfigError(f"rare_class = {c} is not allowed: {self.dataset} has no classes; set it to -1")
        object.__setattr__(self, "rare_class", int(c))
        object.__setattr__(self, "rare_share", float(share))

    def _check_selector(self) -> None:
        """Raises ConfigError for a selector that is not known or that the model cannot serve."""
        if not isinstance(self.selector, str):
            raise ConfigError(f"selector = {shown(self.selector)} is not allowed: it is a name, or empty for none")
        try:
            object.__setattr__(self, "keep_rate", check_keep_rate(self.keep_rate))
            if self.selector == "":
                refuse_unknown("option", self.selector_options, (), of="no selector")
                return
            built = build_selector(self.selector, self.selector_options)
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error)) from error
        object.__setattr__(self, "selector_options", scheme_parameters(built))

    @cached_property
    def built_selector(self) -> Selector | None:
        """The selector with its options, or None."""
        return build_selector(self.selector, self.selector_options) if self.selector else None

    @cached_property
    def built_scheme(self) -> Scheme:
        """The scheme with its parameters."""
        return build_scheme(self.scheme, self.lam, self.scheme_options)

    @property
    def data(self) -> Dataset:
        """The data set."""
        return DATASETS[self.dataset]

    @property
    def family(self) -> ModelFamily:
        """The family of the model."""
        return MODELS[self.model]

    @classmethod
    def of_identity(cls, identity: Mapping[str, Any]) -> Self:
        """The inverse of `identity`: what is None there does not matter. Raises ConfigError."""
        return cls(**{key: value for key, value in identity.items() if value is not None})

    def identity(self) -> dict[str, Any]:
        """The configuration as plain JSON values, with None for what cannot matter: lam if the scheme has none, the
        budget of theta_0 if no fit uses it (one from scratch does), both budgets where no fit has one; and without what
        only a run with a selector, with a rare class, or a rehearsal has."""
        absent = (() if self.selector else OF_SELECTION) + (() if self.rare_class >= 0 else OF_RARITY)
        names = [name for name in self.__dataclass_fields__ if name not in absent]
        plain: dict[str, Any] = json.loads(json.dumps({name: getattr(self, name) for name in names}))
        if not self.rehearsal:
            del plain["rehearsal"]
        if "lam" not in scheme_parameters(self.built_scheme):
            plain["lam"] = None
        if not self.family.trains_in_batches or (self.init and self.options["warm_start"]):
            plain["n_images_initial"] = None
        if not self.family.trains_in_batches:
            plain["n_images_per_retraining"] = None
        return plain

    @property
    def hash(self) -> str:
        """Ten hexadecimal digits of the SHA-256 of the identity."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def run_id(self) -> str:
        """A readable name that ends in the hash, e.g. ``digits-edm-mix-lam0.5-seed3-0123456789``."""
        kind = "rehearsal-" if self.rehearsal else ""
        selector = self.built_selector
        rare = f"-rare{self.rare_class}x{self.rare_share:g}" if self.rare_class >= 0 else ""
        kept = rare if selector is None else f"{rare}-{selector.id_part}-keep{self.keep_rate:g}"
        return f"{kind}{self.dataset}-{self.model}-{self.built_scheme.id_part}{kept}-seed{self.seed}-{self.hash}"


def scheme_parameters(scheme: Scheme | Selector) -> dict[str, Any]:
    """The parameters of a scheme or a selector, a dataclass, by name."""
    return {f.name: getattr(scheme, f.name) for f in fields(scheme)}


def check_path(name: str, value: object) -> None:
    """Raises ConfigError unless ``value`` is a path, as text or as a Path, that a file system can have, or None."""
    if value is not None and not isinstance(value, str | Path):
        raise ConfigError(f"{name} = {shown(value)} is not allowed: it is a path, as text")
    try:
        os.lstat(value or ".")
    except ValueError as error:  # as of a null byte
        raise ConfigError(f"{name} = {shown(str(value))} is not allowed: no path is like it ({error})") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # all else is for those who know what should be there
            raise ConfigError(f"{name} = {shown(str(value))} is not allowed: the name is too long") from error


def check_device(device: str) -> str:
    """The device to use: "cpu", "cuda" or "cuda:N"; "auto" is cuda where there is one. Raises ConfigError."""
    import torch

    if not isinstance(device, str) or not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", device):
        raise ConfigError(f"unknown device {shown(device)}; allowed: auto, cpu, cuda, cuda:N")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() and not why_no_gpu() else "cpu"
    kind, _, index = device.partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices; "
            "take device 'cpu' or 'auto'"
        )
    return device
