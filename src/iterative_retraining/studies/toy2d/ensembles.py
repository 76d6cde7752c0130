"""Many small models at once: all seeds and arms of a study in the plane train and sample as one batched computation.

One network in the plane is too small to keep a processor busy. An `Ensemble` is M of them behind the Model protocol:
items are (M, 2), seeds are tuples with one seed for each member, and each member draws exactly the numbers that its own
seed gives, whatever the others. Algorithm 1 itself is `iterative_retraining.retrain.retrain`, as for one model.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.interfaces import Metric, Run, Scheme
from iterative_retraining.models.process import check_choice, check_numbers
from iterative_retraining.models.training import shuffled_batches
from iterative_retraining.retrain import GenerationRecord, retrain
from iterative_retraining.seeding import generator, noise_by_index, stage_seed
from iterative_retraining.studies.toy2d.member_sets import MemberSchemes, MemberSets, Seeds, item_weights_of, points_of
from iterative_retraining.studies.toy2d.members import Members, Weights
from iterative_retraining.training_set import TrainingSet

STEPS_DRAWN_AT_ONCE = 64
RATE_DECAYS = ("none", "cosine")


@dataclass(frozen=True)
class EnsembleConfig:
    """What the members are and how they train. Budgets count points shown to a member.

    The moving average of the weights becomes the next fit's start. Where the members couple noise and data, they do so
    within groups of ``coupled`` points of a batch: an exact assignment of 256 takes as long as all else in a step.
    rate_decay: "cosine" lets the learning rate of every fit fall to 0 along half a cosine, so that it ends converged.
    """

    members: Members
    batch_size: int = 256
    learning_rate: float = 1e-3
    ema_halflife_points: int = 5_000
    n_points_initial: int = 1_000_000
    n_points_per_retraining: int = 12_800
    warm_start: bool = True
    coupled: int = 64
    rate_decay: str = "none"

    def __post_init__(self) -> None:
        counts = ("batch_size", "n_points_initial", "n_points_per_retraining", "coupled")
        check_numbers(self, counts=counts, positive=("learning_rate", "ema_halflife_points"))
        check_choice("rate_decay", self.rate_decay, RATE_DECAYS)


class Ensemble:
    """M models behind the Model protocol. ``stopped[i]`` says why member i no longer trains, "" while it does."""

    def __init__(self, config: EnsembleConfig, n_members: int) -> None:
        self.config, self.stopped = config, [""] * n_members
        self.weights: Weights = {}
        self.n_fits = 0

    def __len__(self) -> int:
        return len(self.stopped)

    def take(self, rows: Sequence[int]) -> "Ensemble":
        """An ensemble of copies of the members ``rows``, which may repeat."""
        other = Ensemble(self.config, len(rows))
        other.weights = {name: w[list(rows)].clone() for name, w in self.weights.items()}
        other.stopped, other.n_fits = [self.stopped[i] for i in rows], self.n_fits
        return other

    def fit(
        self, data: MemberSets | TrainingSet, *, seed: Seeds, progress: Callable[[int, int], None] | None = None
    ) -> Self:
        """Trains member i on its own set with the numbers of ``seed[i]``; of a TrainingSet of items (M, 2), on item i.

        The first fit, and every fit unless ``warm_start``, starts from random weights and shows ``n_points_initial``
        points; any other goes on for ``n_points_per_retraining``. A member whose loss is not finite stops where it was;
        `stopped` names the fit, the step and the last finite loss; the others go on.
        """
        config, from_scratch = self.config, not self.weights or not self.config.warm_start
        if from_scratch:
            self._new_weights(seed)
        n_points = config.n_points_initial if from_scratch else config.n_points_per_retraining
        weights = [w.requires_grad_() for w in self.weights.values()]
        adam = torch.optim.Adam(weights, lr=config.learning_rate, fused=True)
        ema, last = [w.detach().clone() for w in weights], [math.nan] * len(self)
        n_seen = 0
        batches = self._batches(points_of(data, len(self)), item_weights_of(data, len(self)), seed, n_points)
        for step, (x, *batch) in enumerate(batches):
            losses = self._losses(x, *batch)
            adam.zero_grad()
            losses.sum().backward()  # the weights of a member enter its own loss alone
            self._stop_where_not_finite(losses.tolist(), last, step)
            if config.rate_decay == "cosine":
                adam.param_groups[0]["lr"] = config.learning_rate * (1 + math.cos(math.pi * n_seen / n_points)) / 2
            self._step(adam, weights)
            n_seen += x.shape[1]
            halflife = min(config.ema_halflife_points, 0.05 * n_seen) if from_scratch else config.ema_halflife_points
            torch._foreach_lerp_(ema, [w.detach() for w in weights], 1 - 0.5 ** (config.batch_size / halflife))
            if progress is not None:
                progress(n_seen, n_points)
        self.weights, self.n_fits = dict(zip(self.weights, ema, strict=True)), self.n_fits + 1
        return self

    def _losses(self, x: Tensor, item_weights: Tensor | None, level_noise: Tensor, noise: Tensor) -> Tensor:
        """The loss of each member (M,): the mean of its terms, each times the weight of its point (M, B), if any."""
        terms = self.config.members.loss_terms(self.weights, x, level_noise, noise)
        if item_weights is not None:
            terms = terms * item_weights.view(*item_weights.shape, *[1] * (terms.ndim - 2))
        return terms.flatten(1).mean(dim=1)

    def _new_weights(self, seeds: Seeds) -> None:
        own = [self.config.members.new_weights(stage_seed(seed, 0, "weights")) for seed in seeds]
        new = {name: torch.stack([weights[name] for weights in own]) for name in own[0]}
        stopped = [i for i, reason in enumerate(self.stopped) if reason]
        for name, old in self.weights.items():
            new[name][stopped] = old[stopped]
        self.weights = new

    def _batches(
        self, points: Sequence[Tensor], item_weights: Sequence[Tensor] | None, seeds: Seeds, n_points: int
    ) -> Iterator[tuple[Tensor, Tensor | None, Tensor, Tensor]]:
        """x (M, B, 2), weight (M, B) if there are any, number (M, B) and noise (M, B, 2) of every step; a member's are
        of its seed and data alone."""
        config = self.config
        orders = [
            shuffled_batches(len(own), n_points, config.batch_size, stage_seed(seed, 0, "order"))
            for own, seed in zip(points, seeds, strict=True)
        ]
        rngs = [generator(stage_seed(seed, 0, "noise")) for seed in seeds]
        for start in range(0, n_points, config.batch_size * STEPS_DRAWN_AT_ONCE):
            shape = (STEPS_DRAWN_AT_ONCE, config.batch_size, 3)
            drawn = torch.from_numpy(np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs], axis=1))
            for numbers in drawn[: -(-(n_points - start) // config.batch_size)]:
                rows = [torch.from_numpy(next(order)) for order in orders]
                x, weight = _at(rows, points), None if item_weights is None else _at(rows, item_weights)
                numbers = numbers[:, : x.shape[1]]
                yield x, weight, numbers[..., 0], config.members.couple_noise(x, numbers[..., 1:], config.coupled)

    def _stop_where_not_finite(self, losses: list[float], last: list[float], step: int) -> None:
        for i, loss in enumerate(losses):
            if math.isfinite(loss):
                last[i] = loss
            elif not self.stopped[i]:
                self.stopped[i] = (
                    f"fit {self.n_fits}: the loss is {loss} at step {step}; the last finite loss was {last[i]:.6g}"
                )

    def _step(self, adam: torch.optim.Optimizer, weights: list[Tensor]) -> None:
        rows = [i for i, reason in enumerate(self.stopped) if reason]
        kept = [w.detach()[rows].clone() for w in weights] if rows else []
        adam.step()
        for w, old in zip(weights, kept, strict=False):
            w.data[rows] = old

    @torch.no_grad()
    def sample(self, n: int, *, seed: Seeds) -> np.ndarray:
        """``n`` points of each member, (n, M, 2), NaN where it has stopped; point j of member i depends on
        ``(seed[i], j)`` and its weights."""

        def draw(k: int) -> Tensor:
            return torch.from_numpy(
                np.stack([_step_noise(stage_seed(s, k, "step"), n) if k else _latents(s, n) for s in seed])
            )

        points = self.config.members.sample(self.weights, draw).double()
        points[[bool(reason) for reason in self.stopped]] = math.nan
        return points.transpose(0, 1).contiguous().numpy()

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights, (M, ...) each; the number of fits; why members have stopped, as the bytes of a JSON list."""
        stopped = np.frombuffer(json.dumps(self.stopped).encode(), dtype=np.uint8)
        weights = {name: w.detach().numpy().copy() for name, w in self.weights.items()}
        return weights | {"n_fits": np.array([self.n_fits]), "stopped": stopped}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state_dict`."""
        state = {name: np.array(array) for name, array in state.items()}
        self.n_fits, self.stopped = int(state.pop("n_fits")[0]), json.loads(state.pop("stopped").tobytes())
        self.weights = {name: torch.from_numpy(array) for name, array in state.items()}


def _latents(seed: int, n: int) -> np.ndarray:
    return noise_by_index(seed, range(n), (2,))


def _step_noise(seed: int, n: int) -> np.ndarray:
    """Drawn row by row from one generator, so that a row is the same whatever ``n``, at a hundredth of the time."""
    return generator(seed).standard_normal((n, 2), dtype=np.float32)


def _at(rows: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """The values (N, ...) of each member at its rows (B,), (M, B, ...)."""
    return torch.stack([own[r] for own, r in zip(values, rows, strict=True)])


def first_models(config: EnsembleConfig, seeds: Seeds, real: np.ndarray) -> Ensemble:
    """theta_0 of each of ``seeds``, trained on its real data, of (n, M, 2)."""
    return Ensemble(config, len(seeds)).fit(TrainingSet.of(real), seed=stage_seed(seeds, 0, "fit"))


def retrain_together(
    config: EnsembleConfig,
    arms: Sequence[tuple[Scheme, int]],
    real: np.ndarray,
    metrics: Sequence[Metric],
    *,
    n_retrain: int,
    run: Run | None = None,
    first: Ensemble | None = None,
) -> tuple[Ensemble, Iterator[GenerationRecord]]:
    """Algorithm 1 for all ``arms``, pairs of scheme and seed, with real data (n, M, 2): the ensemble and its records.

    theta_0 is trained once a seed, on all real data of the first arm that has it, and shared by all its arms; or it is
    ``first``, one member for each seed in the order of their first arms.
    Raises ValueError if ``real`` is not of M arms, for no arms, or for another number of first models than of seeds.
    """
    if not arms or real.shape[1:] != (len(arms), 2):
        raise ValueError(f"{len(arms)} arms need real data of shape (n, {len(arms)}, 2), got {real.shape}")
    seeds = tuple(seed for _, seed in arms)
    own = {seed: seeds.index(seed) for seed in seeds}
    start = first_models(config, tuple(own), real[:, list(own.values())]) if first is None else first
    if len(start) != len(own):
        raise ValueError(f"{len(own)} seeds need as many first models, got {len(start)}")
    initial = start.take([list(own).index(seed) for seed in seeds])
    ensemble = Ensemble(config, len(arms))
    schemes = MemberSchemes(tuple(scheme for scheme, _ in arms))
    records = retrain(
        ensemble,
        real,
        schemes,
        metrics,
        n_retrain=n_retrain,
        seed=seeds,
        run=run,
        initial_state=initial.state_dict(),
    )
    return ensemble, records
