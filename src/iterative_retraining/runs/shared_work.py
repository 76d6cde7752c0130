"""What runs of one sweep have in common and compute once: the floor, and the samples of the weights they start from.

Both are kept in the user's cache under a hash of all that decides their bits: the data, the settings, the seed, the
code of the package, PyTorch and the machine. So a run has the same numbers with the cache and without.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from iterative_retraining.cache import cached_array, cached_numbers
from iterative_retraining.config import RunConfig
from iterative_retraining.files import state_sha256
from iterative_retraining.interfaces import Model, Progress
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.runs.provenance import this_machine
from iterative_retraining.seeding import stage_seed
from iterative_retraining.training_set import TrainingSet


def shared_floor(metrics: ImageMetrics, real: np.ndarray, *, seed: int, **settings: int) -> Mapping[str, Any]:
    """`ImageMetrics.floor`, kept in the cache. Raises what that raises."""
    name = _name("floor", metrics.device, metrics.key(real), seed, settings)
    return cached_numbers(name, partial(metrics.floor, real, seed=seed, **settings))


class SharedStart:
    """``model`` with the weights ``state`` of a published file, whose samples of generation 0 are kept in the cache.

    The first fit ends that: from then on it is the model alone. The features of those samples are kept too.
    """

    def __init__(self, model: Model, metrics: ImageMetrics, config: RunConfig, state: Mapping[str, np.ndarray]) -> None:
        self.model, self.metrics, self.at_start = model, metrics, True
        self.seed = stage_seed(config.seed, 0, "sample")
        about = (config.model, sorted((name, repr(value)) for name, value in config.options.items()))
        self.name = _name("theta-0", metrics.device, state_sha256(state), about, self.seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def fit(self, data: TrainingSet, *, seed: int, progress: Progress | None = None) -> Self:
        """See `iterative_retraining.interfaces.Model`."""
        self.at_start, self.metrics.shared = False, None
        self.model.fit(data, seed=seed, progress=progress)
        return self

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """See `iterative_retraining.interfaces.Model`."""
        draw = partial(self.model.sample, n, seed=seed)
        if not self.at_start or seed != self.seed:
            return draw()
        self.metrics.shared = np.array(cached_array(f"{self.name}-{n}", draw, n=n, dtype=np.uint8))
        return self.metrics.shared


def _name(kind: str, device: str, *parts: Any) -> str:
    machine = this_machine(device)
    made_by = {key: machine[key] for key in ("python", "packages", "hardware")}
    text = json.dumps([kind, _code(), made_by, parts], sort_keys=True)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


@cache
def _code() -> str:
    """SHA-256 of the sources of the package."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package)}\n".encode() + file.read_bytes())
    return digest.hexdigest()
