"""A study in the plane: all arms and seeds of one family at once, measured against a target that is known exactly."""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pandas as pd
import torch

from iterative_retraining.runs.memory import MemoryRun
from iterative_retraining.schemes import build_scheme
from iterative_retraining.seeding import stage_seed
from iterative_retraining.studies.toy2d.distributions import GaussianMixture
from iterative_retraining.studies.toy2d.ensembles import Ensemble, EnsembleConfig, retrain_together
from iterative_retraining.studies.toy2d.members import ProcessMembers, SplineMembers
from iterative_retraining.studies.toy2d.metrics import PlaneMetrics

Arm = tuple[str, float]  # scheme and lambda, NaN where the scheme has none


@dataclass(frozen=True)
class Found:
    """What one family's runs left: a row a member and measured generation, samples (n, M, 2) by generation, why
    members stopped by name, and the ensembles of theta_0 and of the last generation."""

    runs: pd.DataFrame
    samples: dict[int, np.ndarray]
    stopped: dict[str, str]
    ends: tuple[Ensemble, Ensemble]


@dataclass(frozen=True)
class PlaneStudy:
    """Every arm with every seed; a seed's real data, ``n_data`` draws of the target, are the same in all its arms."""

    target: GaussianMixture
    arms: tuple[Arm, ...]
    n_seeds: int
    n_data: int = 1000
    seed: int = 0

    @cached_property
    def plan(self) -> list[tuple[str, float, int]]:
        """(scheme, lam, seed) of every member, arm by arm."""
        return [(scheme, lam, self.seed + i) for scheme, lam in self.arms for i in range(self.n_seeds)]

    @cached_property
    def real(self) -> np.ndarray:
        """The real data of every member, (n, M, 2)."""
        draws = [self.target.sample(self.n_data, seed=stage_seed(seed, 0, "real")) for *_, seed in self.plan]
        return np.stack(draws, axis=1)

    @cached_property
    def measure(self) -> PlaneMetrics:
        """Against fresh draws, as many as a member has real data."""
        return PlaneMetrics(self.target, self.n_data, seed=stage_seed(self.seed, 0, "reference"))

    @cached_property
    def floor(self) -> dict[str, list[float]]:
        """Real against real, forty draws."""
        return self.measure.floor(self.n_data, seed=stage_seed(self.seed, 0, "floor"))

    def members(self, arm: Arm) -> slice:
        """The members of an arm."""
        start = self.arms.index(arm) * self.n_seeds
        return slice(start, start + self.n_seeds)

    @property
    def target_nll(self) -> float:
        """The negative log-likelihood in nats of the fresh draws under the target itself: about its entropy."""
        return -self.target.log_density(torch.from_numpy(self.measure.reference)).mean().item()

    def cloud(self, found: Found, arm: Arm, generation: int) -> np.ndarray:
        """The samples of all seeds of an arm together, without stopped members, (n, 2)."""
        points = found.samples[generation][:, self.members(arm)].reshape(-1, 2)
        return points[np.isfinite(points).all(axis=1)]

    def run(self, family: str, config: EnsembleConfig, *, n_retrain: int, every: int = 1) -> Found:
        """Algorithm 1 for all members; generations 0, every, 2 every, ... and the last are measured and kept."""
        plan = [(build_scheme(scheme, lam), seed) for scheme, lam, seed in self.plan]
        run, rows, samples = MemoryRun(), [], {}
        ensemble, records = retrain_together(config, plan, self.real, [], n_retrain=n_retrain, run=run)
        for record in records:
            t = record.generation
            if t % every == 0 or t == n_retrain:
                samples[t] = run.history[t]
                rows += self._rows(family, ensemble, t, samples[t])
            if t == 0:
                first = ensemble.take(range(len(ensemble)))
        stopped = {_name(family, *m): why for m, why in zip(self.plan, ensemble.stopped, strict=True) if why}
        return Found(pd.DataFrame(rows), samples, stopped, (first, ensemble))

    def _rows(self, family: str, ensemble: Ensemble, t: int, samples: np.ndarray) -> list[dict[str, object]]:
        exact = self._exact_likelihoods(ensemble)
        return [
            {"run_id": _name(family, *member), "family": family}
            | dict(zip(("scheme", "lam", "seed"), member, strict=True))
            | {"generation": t, **self.measure(samples[:, i]), **exact[i]}
            for i, member in enumerate(self.plan)
        ]

    def _exact_likelihoods(self, ensemble: Ensemble) -> list[dict[str, float]]:
        """By member, where densities are exact: the negative log-likelihood of the fresh draws, and KL(target || model)
        estimated by them, in nats."""
        if not isinstance(ensemble.config.members, SplineMembers):
            return [{}] * len(ensemble)
        kls = exact_kl(ensemble, self.target, self.measure.reference)
        return [{"nll": kl + self.target_nll, "kl": kl} for kl in kls]


@torch.no_grad()
def exact_kl(ensemble: Ensemble, target: GaussianMixture, fresh: np.ndarray) -> list[float]:
    """KL(target || model) in nats of the flows of an ensemble, by ``fresh`` draws of the target (n, 2); NaN where a
    member has stopped."""
    x = torch.from_numpy(fresh)
    own = ensemble.config.members.log_prob(ensemble.weights, x.float().expand(len(ensemble), *x.shape)).double()
    kls = (target.log_density(x) - own).mean(dim=1).tolist()
    return [float("nan") if why else kl for kl, why in zip(kls, ensemble.stopped, strict=True)]


def _name(family: str, scheme: str, lam: float, seed: int) -> str:
    return f"{family}, {scheme}{'' if np.isnan(lam) else f' λ = {lam:g}'}, seed {seed}"


@torch.no_grad()
def score_errors(ensemble: Ensemble, target: GaussianMixture, sigmas: np.ndarray, *, n: int, seed: int) -> np.ndarray:
    """How far an EDM ensemble's scores are from the target's at noise levels ``sigmas`` (S,), times sigma: (S, M).

    Root mean square over ``n`` noisy draws of the target and both coordinates of sigma (s_theta - s), which is
    (D_theta - D) / sigma; the exact score's own is about 1. Raises ValueError for members that are no denoisers.
    """
    members = ensemble.config.members
    if not isinstance(members, ProcessMembers) or not hasattr(members.process, "denoiser"):
        raise ValueError(f"score errors need an EDM, got {members}")
    denoise = members.process.denoiser(partial(members.network, ensemble.weights))
    clean = torch.from_numpy(target.sample(n, seed=seed))
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, 2)))
    errors = []
    for sigma in sigmas.tolist():
        x = clean + sigma * noise
        each = x.float().expand(len(ensemble), n, 2).flatten(0, 1)
        found = denoise(each, torch.full((len(each),), sigma)).view(len(ensemble), n, 2).double()
        gaps = (found - x) / sigma - sigma * target.score(x, sigma)
        errors.append(gaps.square().mean(dim=(1, 2)).sqrt())
    return torch.stack(errors).numpy()
