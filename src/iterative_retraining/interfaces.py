"""The nouns of the package as protocols, each with its contract; whatever keeps it can stand in its place.

A registry is an explicit dict from a name to one object that carries all that the rest of the code asks of it. Nothing
else in the package knows a name. The contract tests run over the registries.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from iterative_retraining.distributed import Team
from iterative_retraining.training_set import TrainingSet

Progress = Callable[[int, int], None]  # of the images seen so far and of all of them


class Model(Protocol):
    """A generative model that can be fitted again and again; what `retrain` asks of it.

    Everything random is a function of the seed that is handed in: equal weights, data and seed give equal results.
    """

    def fit(self, data: TrainingSet, *, seed: int, progress: Progress | None = None) -> Self:
        """Fits D_t, from the weights so far or from scratch as configured, each item counted by its weight.

        Raises FloatingPointError where it diverges; its state is then not to be used.
        """

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` items (n, ...) shaped and typed like the data; item i depends on ``(seed, i)`` and the weights."""

    def state_bytes(self, item_shape: tuple[int, ...]) -> int:
        """About how many bytes `state_dict` has for items of ``item_shape``, before there are weights."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that `sample` and the next `fit` need, as arrays by name."""

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state_dict`. Raises ValueError for the state of another model."""


class ModelFamily(Protocol):
    """All that the rest of the package asks of the models of one kind; the object that the registry holds."""

    name: str
    label: str
    """In titles and legends."""
    has_density: bool
    """Whether its models have an exact ``log_prob(x)``."""
    trains_in_batches: bool
    """Whether budgets of images count; else a fit sees every datum once, and budgets are not of a run's identity."""
    networks: tuple[str, ...]
    """What the option ``network`` may be; () if there is nothing to choose."""

    def defaults(self, network: str = "") -> dict[str, Any]:
        """Every option with its default value; those of ``network`` if that can be chosen."""

    def checked(self, options: Mapping[str, Any], item_shape: tuple[int, ...]) -> dict[str, Any]:
        """``options``, known names all, with their values as they are kept. Raises ValueError for one not allowed."""

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
        """A model for items of ``item_shape`` with every option checked; ``team``: the processes that work on it."""


class Scheme(Protocol):
    """How D_t is made of real data and of earlier samples: a frozen dataclass whose fields are its parameters.

    Raises ValueError, when it is built, for a value that is not allowed.
    """

    name: ClassVar[str]
    history_length: int | None
    """How many of the latest generations' samples `training_set` reads; None: all of them."""

    @property
    def label(self) -> str:
        """The name of the arm in tables and legends, such as "λ = 0.5"."""

    @property
    def id_part(self) -> str:
        """The part of a run id that tells the arm, such as "mix-lam0.5"."""

    @property
    def style(self) -> Mapping[str, Any]:
        """How the arm is drawn, if it has looks of its own: any of color, linestyle and marker."""

    @property
    def order(self) -> float:
        """Where the arm stands among others in tables and legends, rising."""

    def check(self, n_real: int, n_retrain: int) -> None:
        """Raises ValueError, before anything is spent, if ``n_real`` real data do not suffice for ``n_retrain``."""

    def notice(self, n_real: int) -> str:
        """What a user should be told before the run, such as that lam n is less than one sample; "" for nothing."""

    def n_samples(self, n_real: int) -> int:
        """How many samples of the previous generation the next training set needs."""

    def initial_set(self, real: np.ndarray) -> TrainingSet:
        """What theta_0 is fitted to."""

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: int) -> TrainingSet:
        """D_t, t > 0, never empty, of real data (n, ...) and samples of generations 0..t-1, ``history[-1]`` last."""


class Candidates(Protocol):
    """The samples of one generation, of which a selector keeps some; a `Selector` reads what it needs."""

    items: np.ndarray
    """(N, ...), i.i.d. by index."""
    features: np.ndarray
    """Of the items, (N, D)."""
    real_features: np.ndarray
    """Of the real data, in the same space, (M, D)."""

    def probabilities(self) -> np.ndarray:
        """Of the classes of each item, by the classifier of the feature space, (N, n_classes)."""

    def log_prob(self) -> np.ndarray:
        """Log-density of each item under the model that drew it, up to a constant, (N,)."""

    def target_log_prob(self) -> np.ndarray:
        """Log-density of each item under the distribution of the real data, (N,)."""


class Selector(Protocol):
    """Which samples go into the next training set: a frozen dataclass whose fields are its options.

    Raises ValueError, when it is built, for a value that is not allowed.
    """

    name: ClassVar[str]
    style: ClassVar[Mapping[str, Any]]
    """How its arms are drawn, if it has looks of its own: color and marker."""
    needs: frozenset[str]
    """What `Candidates` has to offer beside features: any of "classes", "density", "target"."""

    @property
    def label(self) -> str:
        """Its name in tables and legends."""

    @property
    def id_part(self) -> str:
        """The part of a run id that tells it, such as "likelihood-endbottom"."""

    def check(self, *, keep_rate: float, n_real: int, n_classes: int | None) -> None:
        """Raises ValueError, before anything is spent, for a run that it cannot serve; n_classes: of the classifier."""

    def rows(self, candidates: Candidates, n_kept: int, *, seed: int) -> np.ndarray:
        """The rows of exactly ``n_kept`` different candidates, rising."""


class Dataset(Protocol):
    """A set of real images that runs can be about."""

    name: str
    shape: tuple[int, int, int]
    """(H, W, C) of an image."""
    counts: Mapping[str, int]
    """The number of images by split: "train", and "test" where images are held out."""
    has_labels: bool
    features: str
    """The feature space that ``features = "auto"`` stands for."""

    def load(self, split: str, data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
        """Images, uint8 (N, H, W, C), and labels, int64 (N,); N = 0 where files are read that hold no "test" images.

        Raises DataError for missing or damaged files.
        """

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """What it changes in the default options of a model; names that the model does not have are passed over."""


class FeatureSpace(Protocol):
    """A map from images, uint8 (N, H, W, C), to features, float32 (N, D), the same in batches of any size."""

    name: str

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class Metric(Protocol):
    """What `retrain` asks of a metric; ``real`` is always the keyword. Every value is a finite number."""

    def __call__(self, generated: np.ndarray, *, real: np.ndarray) -> Mapping[str, float]: ...


class Run(Protocol):
    """Where the generations of a run are kept: a directory, or memory.

    A generation is there as a whole or not at all, and in order; `commit` returns when it is.
    """

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The ledger: a flat mapping for each complete generation, generation 0 first."""

    @property
    def history(self) -> Sequence[np.ndarray]:
        """The samples of generations 0, 1, ...; those no longer kept raise RunError when asked for."""

    def load_state(self) -> Mapping[str, np.ndarray]:
        """The weights of the last complete generation."""

    def commit(
        self,
        row: dict[str, Any],
        state: Mapping[str, np.ndarray],
        samples: np.ndarray,
        preview: np.ndarray,
        history_length: int | None,
    ) -> None:
        """Keeps a complete generation, and drops samples beyond ``history_length``."""
