"""The parts of the study in the plane: each is one arm with all its seeds, made by itself and resumed by itself."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from iterative_retraining.schemes import build_scheme
from iterative_retraining.seeding import stage_seed
from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS
from iterative_retraining.studies.toy2d.ensembles import Ensemble, EnsembleConfig, first_models, retrain_together
from iterative_retraining.studies.toy2d.fitted import around_modes, run_fitted
from iterative_retraining.studies.toy2d.folder import FolderRun, read_arrays, write_arrays
from iterative_retraining.studies.toy2d.members import ProcessMembers, SplineMembers
from iterative_retraining.studies.toy2d.metrics import PlaneMetrics
from iterative_retraining.studies.toy2d.samplers import EXACT, SAMPLERS, gain_by_std, network_process
from iterative_retraining.studies.toy2d.study import exact_kl

COLUMNS = ["dataset", "model", "sampler", "scheme", "lam", "seed", "generation", "n_retrain", "n", "run_id", "started"]
VALUES = ["spread", "modes", "log_kl"]
FITTED, LARGE, LONG = "fitted_gaussians", "fitted_gaussians_large_n", "edm_long"
LAMS = (None, 0.0, 0.5, 1.0, 2.0, 5.0)  # None: fully synthetic
FITTED_GENERATIONS = (0, 1, 2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Scale:
    """How large the study is. Budgets count points shown to a member; ``width`` and ``n_layers`` are EDM's.

    An EDM learns levels around 0.14, where the modes are decided, and its first fit, of ``rate_initial``, ends at a
    learning rate of 0: in a trial with two seeds twice as many points lowered its loss on fresh draws by 0.3 % at most.
    ``rate`` keeps the spread where the same real data are learnt again. The model "edm_long" is an EDM with ``longer``
    times the points a retraining. ``large``: the size of a sample that is as good as infinite.
    """

    n_seeds: int = 10
    n_data: int = 1000
    large: int = 1_000_000
    n_retrain: int = 100
    n_retrain_spline: int = 20
    n_retrain_long: int = 30
    longer: int = 10
    every: int = 5
    n_points_initial: int = 1_000_000
    n_points_initial_spline: int = 200_000
    n_points_per_retraining: int = 12_800
    rate_initial: float = 1e-2
    rate: float = 1e-3
    width: int = 64
    n_layers: int = 3
    n_together: int = 5

    def config(self, model: str, sampler: str, *, first: bool) -> EnsembleConfig:
        """How members of a model train, for theta_0 or for retrainings."""
        n_points = self.n_points_per_retraining * (self.longer if model == LONG else 1)
        shared = {"n_points_per_retraining": n_points, "rate_decay": "cosine"}
        if model == "spline":
            return EnsembleConfig(
                SplineMembers(), learning_rate=self.rate, n_points_initial=self.n_points_initial_spline, **shared
            )
        process = replace(network_process(sampler), p_mean=-2.0)
        members = ProcessMembers(process, self.width, self.n_layers)
        rate = self.rate_initial if first else self.rate
        return EnsembleConfig(members, learning_rate=rate, n_points_initial=self.n_points_initial, **shared)


@dataclass(frozen=True)
class Part:
    """One arm on one distribution, with all seeds. ``lam`` None is fully synthetic, else the mix."""

    dataset: str
    model: str
    sampler: str
    lam: float | None
    n_retrain: int

    @property
    def name(self) -> str:
        """The name of its folder, and the run ids of its seeds up to those."""
        return f"plane-{self.dataset}-{self.model}-{self.sampler}-{self.scheme.id_part}"

    @property
    def scheme(self):
        """The scheme object."""
        return build_scheme("fully_synthetic") if self.lam is None else build_scheme("mix", self.lam)

    def columns(self, n: int, started: str) -> dict[str, object]:
        """What all its rows have in common."""
        lam = np.nan if self.lam is None else self.lam
        arm = {"dataset": self.dataset, "model": self.model, "sampler": self.sampler, "scheme": self.scheme.name}
        return arm | {"lam": lam, "n_retrain": self.n_retrain, "n": n, "started": started}


def network_parts(scale: Scale) -> list[Part]:
    """The arms with a network, in the order in which they are worth having."""
    t, short = scale.n_retrain, scale.n_retrain_spline
    eight = [("accurate", None), ("ancestral_posterior_100", None), ("accurate", 1.0)]
    return [
        *(Part("eight_gaussians", "edm", sampler, lam, t) for sampler, lam in eight),
        *(Part("eight_gaussians", "spline", EXACT, lam, short) for lam in (0.0, 1.0, None)),
        *(Part("two_moons", "edm", "accurate", lam, t) for lam in (None, 1.0)),
        Part("eight_gaussians", "edm", "accurate", 0.0, t),
        *(Part("eight_gaussians", LONG, sampler, None, scale.n_retrain_long) for sampler, _ in eight[:2]),
    ]


def fitted_parts(scale: Scale) -> list[Part]:
    """Every sampler with every scheme, for samples of ``n_data`` and for such that are as good as infinite."""
    pairs = [(model, sampler, lam) for model in (FITTED, LARGE) for sampler in SAMPLERS for lam in LAMS]
    return [Part("eight_gaussians", model, sampler, lam, scale.n_retrain) for model, sampler, lam in pairs]


def fitted_rows(part: Part, scale: Scale, started: str) -> pd.DataFrame:
    """The rows of a part without a network; one seed alone where chance is as good as none."""
    n, n_seeds = (scale.n_data, scale.n_seeds) if part.model == FITTED else (scale.large, 1)
    target = DISTRIBUTIONS[part.dataset]
    run = run_fitted(target, gain_by_std(part.sampler), part.lam, n=n, n_retrain=part.n_retrain, seeds=range(n_seeds))
    rows = [
        {"seed": seed, "generation": t, "run_id": f"{part.name}-seed{seed}", **values}
        for t in sorted({*FITTED_GENERATIONS, part.n_retrain})
        if t <= part.n_retrain
        for seed, values in enumerate(run.measure(t, seed=0))
    ]
    return pd.DataFrame(rows).assign(**part.columns(n, started))[[*COLUMNS, *VALUES]]


class MemberValues:
    """The metric of a network part: spread, modes and log_kl of every member, by "name/member".

    log_kl: the logarithm of KL(target || model) in nats, exact for a flow, whose ``ensemble`` it has to be given; else
    by a kernel estimate from the samples. NaN where the estimate is not above 0, or the member has stopped.
    """

    def __init__(self, part: Part, scale: Scale, run: FolderRun) -> None:
        self.measure = PlaneMetrics(DISTRIBUTIONS[part.dataset], scale.n_data, seed=stage_seed(0, 0, "reference"))
        self.wanted, self.run, self.ensemble = partial(is_measured, part, scale), run, None

    def __call__(self, samples: np.ndarray, *, real: np.ndarray) -> dict[str, float]:
        """Of samples (n, M, 2); nothing in generations that are not wanted."""
        found: dict[str, float] = {}
        for i, kl in enumerate(self._kls(samples) if self.wanted(len(self.run.rows)) else []):
            x = samples[:, i]
            finite = bool(np.isfinite(x).all())
            spread, modes = around_modes(x, self.measure.means) if finite else (np.nan, np.nan)
            log_kl = float(np.log(kl)) if kl > 0 else np.nan
            found |= {f"spread/{i}": spread, f"modes/{i}": modes, f"log_kl/{i}": log_kl}
        return found

    def _kls(self, samples: np.ndarray) -> list[float]:
        if self.ensemble is not None and isinstance(self.ensemble.config.members, SplineMembers):
            return exact_kl(self.ensemble, self.measure.target, self.measure.reference)
        return [self.measure.kernel_kl(samples[:, i]) for i in range(samples.shape[1])]


def real_data(dataset: str, scale: Scale) -> np.ndarray:
    """The real data of every seed, (n, M, 2)."""
    draws = [DISTRIBUTIONS[dataset].sample(scale.n_data, seed=stage_seed(s, 0, "real")) for s in range(scale.n_seeds)]
    return np.stack(draws, axis=1)


def first_of(dataset: str, model: str, scale: Scale, folder: Path) -> Ensemble:
    """theta_0 of every seed, kept in ``folder`` and trained ``n_together`` at a time; shared by arms and samplers."""
    real, states = real_data(dataset, scale), []
    config = scale.config(model, EXACT if model == "spline" else "accurate", first=True)
    for start in range(0, scale.n_seeds, scale.n_together):
        file, seeds = folder / f"seed{start}.npz", tuple(range(start, min(start + scale.n_together, scale.n_seeds)))
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            write_arrays(file, first_models(config, seeds, real[:, list(seeds)]).state_dict())
        states.append(_loaded(config, len(seeds), read_arrays(file)))
    return joined(states)


def _loaded(config: EnsembleConfig, n: int, state: Mapping[str, np.ndarray]) -> Ensemble:
    ensemble = Ensemble(config, n)
    ensemble.load_state_dict(state)
    return ensemble


def joined(parts: list[Ensemble]) -> Ensemble:
    """One ensemble of the members of several, which are of one configuration and as many fits."""
    import torch

    whole = Ensemble(parts[0].config, sum(map(len, parts)))
    whole.weights = {name: torch.cat([one.weights[name] for one in parts]) for name in parts[0].weights}
    whole.stopped, whole.n_fits = [why for one in parts for why in one.stopped], parts[0].n_fits
    return whole


def network_run(part: Part, scale: Scale, folder: Path, first: Ensemble) -> FolderRun:
    """Makes what is missing of a part with a network, a generation at a time."""
    run = FolderRun(folder, partial(is_measured, part, scale))
    values = MemberValues(part, scale, run)
    arms = [(part.scheme, seed) for seed in range(scale.n_seeds)]
    config = scale.config(part.model, part.sampler, first=False)
    values.ensemble, records = retrain_together(
        config, arms, real_data(part.dataset, scale), [values], n_retrain=part.n_retrain, run=run, first=first
    )
    for record in records:
        print(f"{part.name}: generation {record.generation} of {part.n_retrain}", flush=True)
    return run


def is_measured(part: Part, scale: Scale, generation: int) -> bool:
    """Every ``every``-th generation, and the last."""
    return generation % scale.every == 0 or generation == part.n_retrain


def network_rows(part: Part, scale: Scale, ledger: list[dict], started: str) -> pd.DataFrame:
    """The rows of a part with a network from its ledger: every ``every``-th generation and the last."""
    rows = [
        {"seed": seed, "generation": row["generation"], "run_id": f"{part.name}-seed{seed}"}
        | {name: row[f"{name}/{seed}"] for name in VALUES}
        for row in ledger
        if is_measured(part, scale, row["generation"])
        for seed in range(scale.n_seeds)
    ]
    return pd.DataFrame(rows).assign(**part.columns(scale.n_data, started))[[*COLUMNS, *VALUES]]
