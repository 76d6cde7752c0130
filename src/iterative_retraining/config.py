"""What a run is: a frozen configuration, checked before any compute, whose hash names the run."""

import difflib
import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from iterative_retraining.datasets import DATASETS
from iterative_retraining.errors import ConfigError
from iterative_retraining.models import MODELS, resolve_options, without_added_later
from iterative_retraining.schemes import SCHEMES

LATENTS = ("fresh", "fixed")
# Parameters that came after results were published, and the value with which a run is as it was before them.
RUN_ADDED_LATER = {"latents": "fresh", "n_real": 0}


def refuse_unknown(name: str, given: Iterable[object], allowed: Collection[str]) -> None:
    """Raises ConfigError at the first of ``given`` that is not among ``allowed``; ``name`` says what they are."""
    for value in given:
        if value not in allowed:
            close = difflib.get_close_matches(str(value), allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown {name} {value!r}; allowed: {', '.join(allowed)}{hint}")


def check_count(name: str, value: object, meaning: str) -> int:
    """``value`` as an int. Raises ConfigError unless it is a whole number >= 0."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        raise ConfigError(f"{name} = {value!r} is not allowed: {meaning}, a whole number >= 0")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The parameters that decide a run's numbers. How far it goes, where it is kept and on what device it runs do not
    belong here: a run can be extended and moved.

    lam: the ratio synthetic : real, used by the scheme "mix" alone
    n_images_initial, n_images_per_retraining: training budgets of theta_0 and of each retraining, in images
    latents: "fresh" noise for the samples of every generation, or "fixed", the same in all, as in the paper's code
    n_real: how many of the real images there are, the first of the data set; 0 for all
    options: overrides of the model's options; after construction, every option with its value
    init: "" to train theta_0, or the identity of the starting weights (`init_identity`)

    Raises ConfigError for any value that is not allowed; the values of options are checked where the model is built.
    """

    dataset: str = "digits"
    model: str = "edm"
    scheme: str = "mix"
    lam: float = 0.5
    n_images_initial: int = 180_000
    n_images_per_retraining: int = 36_000
    seed: int = 0
    latents: str = "fresh"
    n_real: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    init: str = ""

    def __post_init__(self) -> None:
        refuse_unknown("dataset", [self.dataset], DATASETS)
        refuse_unknown("model", [self.model], MODELS)
        refuse_unknown("scheme", [self.scheme], SCHEMES)
        if isinstance(self.lam, bool) or not isinstance(self.lam, Real) or not (0 <= self.lam < math.inf):
            raise ConfigError(
                f"lam = {self.lam!r} is not allowed: it is the ratio synthetic : real, a finite number >= 0 "
                "(for synthetic data alone, take scheme 'fully_synthetic')"
            )
        for name in ("n_images_initial", "n_images_per_retraining"):
            check_count(name, getattr(self, name), "it is a training budget in images")
        check_count("seed", self.seed, "it names the run's random numbers")
        check_count("n_real", self.n_real, "it counts real images, 0 for all of them")
        refuse_unknown("latents", [self.latents], LATENTS)
        try:
            resolved = resolve_options(self.model, self.dataset, self.options)
        except (ValueError, TypeError) as error:
            raise ConfigError(str(error)) from error
        object.__setattr__(self, "options", resolved)
        object.__setattr__(self, "lam", float(self.lam))

    def identity(self) -> dict[str, Any]:
        """The configuration as plain JSON values, without what cannot matter: lam if the scheme has none, the budget of
        theta_0 if no fit uses it (one that starts afresh does), both budgets of a model that has no iterations, and
        without what came later (`ADDED_LATER`) and is as it was."""
        own = without_added_later(vars(self), RUN_ADDED_LATER)
        plain: dict[str, Any] = json.loads(json.dumps({**own, "options": without_added_later(self.options)}))
        if self.scheme != "mix":
            plain["lam"] = None
        if self.model == "gaussian" or (self.init and self.options["warm_start"]):
            plain["n_images_initial"] = None
        if self.model == "gaussian":
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
        arm = f"mix-lam{self.lam:g}" if self.scheme == "mix" else self.scheme
        return f"{self.dataset}-{self.model}-{arm}-seed{self.seed}-{self.hash}"


def check_device(device: str) -> str:
    """The device to use: "cpu", "cuda" or "cuda:N"; "auto" is cuda where there is one. Raises ConfigError."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = str(device).partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()) or (kind == "cpu" and index):
        raise ConfigError(f"unknown device {device!r}; allowed: auto, cpu, cuda, cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} is not there: this machine has {torch.cuda.device_count()} CUDA devices; "
            "take device 'cpu' or 'auto'"
        )
    return str(device)
