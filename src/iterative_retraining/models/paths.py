"""What EDM, flow matching and DDPM share: Gaussian paths from data to noise, and a solver that follows them back."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from iterative_retraining.models.process import Draw, Net, check_choice, check_numbers
from iterative_retraining.models.solvers import SOLVERS, Field, Velocity

MOST_STEPS = 100_000  # of a solver: all its levels are computed before the first
# Options that change how a model samples and not how it trains: runs that differ in these alone can share theta_0.
SAMPLER_OPTIONS = (
    *("solver", "n_steps", "tolerance", "start_data_std", "spacing", "clip"),
    *("rho", "sigma_min", "sigma_max", "sampling_batch_size"),
)


class KarrasLevels(Protocol):
    """The options of `karras_levels` beside the number of levels."""

    @property
    def sigma_min(self) -> float: ...

    @property
    def sigma_max(self) -> float: ...

    @property
    def rho(self) -> float: ...


def check_levels(config: KarrasLevels) -> None:
    """Raises ValueError unless sigma_max > sigma_min > 0, rho > 0, and the levels between can be told apart."""
    check_numbers(config, positive=("sigma_min", "rho"))
    if not config.sigma_min < config.sigma_max:
        raise ValueError(f"sigma_max = {config.sigma_max} is not allowed: it must exceed sigma_min")
    try:
        low, high = config.sigma_min ** (1 / config.rho), config.sigma_max ** (1 / config.rho)
    except OverflowError:
        low, high = 0.0, math.inf
    if not 0 < low < high < math.inf or not math.isclose(low**config.rho, config.sigma_min, rel_tol=1e-6):
        raise ValueError(
            f"rho = {config.rho} is not allowed with sigma_min = {config.sigma_min} and sigma_max = "
            f"{config.sigma_max}: there are no levels between their roots"
        )


@dataclass(frozen=True, kw_only=True)
class GaussianPaths:
    """A process whose noisy items are data + sigma noise, up to a scale.

    solver: one of `iterative_retraining.models.solvers.SOLVERS`. n_steps: how many levels it visits before 0.
    tolerance: of a solver that chooses its own steps.
    start_data_std: the standard deviation of data that the start counts in. x at the first level sigma has the data's
    variance beside that of the noise, so it starts with sqrt(sigma^2 + start_data_std^2).
    """

    solver: str = "heun"
    n_steps: int = 18
    tolerance: float = 1e-5
    start_data_std: float = 0.0

    def check_sampler(self, solvers: Iterable[str] = tuple(SOLVERS)) -> None:
        """Raises ValueError unless these options have a meaning and the solver is one of ``solvers``."""
        check_choice("solver", self.solver, solvers)
        check_numbers(self, counts=("n_steps",), positive=("tolerance",), at_most={"n_steps": MOST_STEPS})
        if not 0 <= self.start_data_std < math.inf:
            raise ValueError(f"start_data_std = {self.start_data_std} is not allowed: it must be at least 0 and finite")

    def noise_levels(self) -> Tensor:
        """The levels sigma that the solver visits, falling, the last 0; float64."""
        raise NotImplementedError

    def field(self, net: Net) -> Field:
        """The denoiser and the velocity made of a network, float64; the network sees float32."""
        raise NotImplementedError

    def sample(self, net: Net, draw: Draw) -> Tensor:
        """Items made from ``draw(0)``, float64; a solver that adds noise takes ``draw(1)``, ``draw(2)``, ... for it."""
        return self.integrate(self.field(net), draw)

    def integrate(self, field: Field, draw: Draw) -> Tensor:
        """What `sample` does, with any field. A solver in time goes to the last level above 0, and ends at D there."""
        levels = self.noise_levels().tolist()
        x = draw(0).double() * math.hypot(levels[0], self.start_data_std)
        if SOLVERS[self.solver].in_time:
            times = [1 / (1 + sigma) for sigma in levels[:-1]]
            return field.denoise(self._in_time(field.velocity, times[0] * x, times) / times[-1], levels[-2])
        given = {"draw": draw} if SOLVERS[self.solver].noisy else {}
        return SOLVERS[self.solver].solve(field.denoise, x, levels, **given)

    def _in_time(self, velocity: Velocity, start: Tensor, times: Sequence[float]) -> Tensor:
        given = {"tolerance": self.tolerance} if SOLVERS[self.solver].adaptive else {}
        return SOLVERS[self.solver].solve(velocity, start, times, **given)
