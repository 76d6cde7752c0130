"""Many small diffusion models at once: all seeds and arms of a study train and sample as one batched computation.

One network in the plane is too small to keep a processor busy. Here the weights of all members are stacked, (M, in,
out), and every layer is one batched product. Each member draws exactly the numbers its own seed gives, whatever the
others.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.data import TrainingSet
from iterative_retraining.models.edm import denoising_errors, precondition, sample_heun, shuffled_batches
from iterative_retraining.models.flow_matching import flow_matching_errors, integrate_rk4
from iterative_retraining.schemes import Scheme
from iterative_retraining.seeding import generator, noise_by_index, stage_seed, torch_seed

STEPS_DRAWN_AT_ONCE = 64
N_FREQUENCIES = 8
FAMILIES = ("edm", "flow_matching")


@dataclass(frozen=True)
class EnsembleConfig:
    """A diffusion model in the plane with a plain network of ``n_layers`` layers of ``width`` units.

    family: "edm" (Karras et al. 2022, table 1; sampled by ``n_steps`` of Heun's method), or "flow_matching" (the
    independent coupling; sampled by ``n_steps`` of the classical Runge-Kutta method). Budgets count points shown to the
    network. The moving average of the weights becomes the next fit's start.
    """

    family: str = "edm"
    width: int = 128
    n_layers: int = 3
    batch_size: int = 256
    learning_rate: float = 1e-3
    ema_halflife_points: int = 5_000
    n_points_initial: int = 1_000_000
    n_points_per_retraining: int = 25_600
    sigma_data: float = 0.6
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_max: float = 20.0
    n_steps: int = 18

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family = {self.family!r} is not allowed; allowed: {', '.join(FAMILIES)}")
        for name in ("width", "n_layers", "batch_size", "n_points_initial", "n_points_per_retraining", "n_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it must be at least 1")
        for name in ("learning_rate", "ema_halflife_points", "sigma_data", "p_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it must be above 0")


class Ensemble:
    """Stacked networks, one a seed. ``stopped[i]`` says why member i no longer trains, "" while it does."""

    def __init__(self, config: EnsembleConfig, seeds: Sequence[int]) -> None:
        self.config, self.stopped = config, [""] * len(seeds)
        members = [_new_weights(config, stage_seed(seed, 0, "weights")) for seed in seeds]
        self.weights = [torch.stack(tensors) for tensors in zip(*members, strict=True)]
        self._fitted = False

    def __len__(self) -> int:
        return len(self.stopped)

    def take(self, rows: Sequence[int]) -> "Ensemble":
        """An ensemble of copies of the members ``rows``, which may repeat."""
        other = Ensemble(self.config, [])
        other.weights = [w[list(rows)].clone() for w in self.weights]
        other.stopped, other._fitted = [self.stopped[i] for i in rows], self._fitted
        return other

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x; sigma) of every member, x (M B, 2) with the members one after another, sigma (M B,)."""
        return precondition(self._network, x, sigma, self.config.sigma_data)

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """v(x, t) of every member, x (M B, 2) with the members one after another, t (M B,) in [0, 1]."""
        return self._network(x, 4 * t - 2)

    def _errors(self, x: Tensor, numbers: Tensor) -> Tensor:
        """The terms of the loss (M B, 2) at points x (M B, 2), with unit Gaussian numbers (M B, 3)."""
        config, noise = self.config, numbers[:, 1:]
        if config.family == "flow_matching":
            return flow_matching_errors(self.velocity, x, torch.special.ndtr(numbers[:, 0]), noise)
        sigma = (numbers[:, 0] * config.p_std + config.p_mean).exp()
        return denoising_errors(self.denoise, x, sigma, noise, config.sigma_data)

    def _network(self, x: Tensor, level: Tensor) -> Tensor:
        angles = level[:, None] * (2.0 ** torch.arange(N_FREQUENCIES) / 2)
        h = torch.cat([x, angles.sin(), angles.cos()], dim=1).view(len(self), -1, 2 + 2 * N_FREQUENCIES)
        *hidden, last = zip(self.weights[::2], self.weights[1::2], strict=True)
        for weight, bias in hidden:
            h = torch.nn.functional.silu(torch.baddbmm(bias, h, weight))
        weight, bias = last
        return torch.baddbmm(bias, h, weight).view(-1, 2)

    def fit(self, data: Sequence[TrainingSet], seeds: Sequence[int]) -> None:
        """Trains member i on ``data[i]``, points (N, 2), with the numbers that ``seeds[i]`` gives.

        The first fit shows ``n_points_initial`` points, every other ``n_points_per_retraining``. A member whose loss is
        not finite stops where it was; `stopped` names the step and the last finite loss; the others go on.
        """
        config = self.config
        n_points = config.n_points_per_retraining if self._fitted else config.n_points_initial
        weights = [w.requires_grad_() for w in self.weights]
        adam = torch.optim.Adam(weights, lr=config.learning_rate, fused=True)
        ema, last = [w.detach().clone() for w in weights], [math.nan] * len(self)
        n_seen = 0
        for step, (x, numbers) in enumerate(_batches(config, data, seeds, n_points)):
            losses = self._errors(x, numbers).view(len(self), -1).mean(dim=1)
            adam.zero_grad()
            losses.sum().backward()  # the weights of a member enter its own loss alone
            self._stop_where_not_finite(losses.tolist(), last, step)
            self._step(adam, weights)
            n_seen += len(x) // len(self)
            halflife = config.ema_halflife_points if self._fitted else min(config.ema_halflife_points, 0.05 * n_seen)
            torch._foreach_lerp_(ema, [w.detach() for w in weights], 1 - 0.5 ** (config.batch_size / halflife))
        self.weights, self._fitted = ema, True

    def _stop_where_not_finite(self, losses: list[float], last: list[float], step: int) -> None:
        for i, loss in enumerate(losses):
            if math.isfinite(loss):
                last[i] = loss
            elif not self.stopped[i]:
                self.stopped[i] = f"the loss is {loss} at step {step}; the last finite loss was {last[i]:.6g}"

    def _step(self, adam: torch.optim.Optimizer, weights: list[Tensor]) -> None:
        rows = [i for i, reason in enumerate(self.stopped) if reason]
        kept = [w.detach()[rows].clone() for w in weights] if rows else []
        adam.step()
        for w, old in zip(weights, kept, strict=False):
            w.data[rows] = old

    @torch.inference_mode()
    def sample(self, n: int, seeds: Sequence[int]) -> np.ndarray:
        """``n`` points of each member, (M, n, 2); point j of member i depends on ``(seeds[i], j)`` and its weights."""
        noise = torch.from_numpy(np.concatenate([noise_by_index(seed, range(n), (2,)) for seed in seeds]))
        config = self.config
        if config.family == "flow_matching":
            points = integrate_rk4(self.velocity, noise, n_steps=config.n_steps)
        else:
            points = sample_heun(self.denoise, noise, n_steps=config.n_steps, sigma_max=config.sigma_max)
        return points.view(len(self), n, 2).numpy()


def _new_weights(config: EnsembleConfig, seed: int) -> list[Tensor]:
    """Weights (in, out) and biases (1, out) of one member, layer by layer; the last layer starts as nearly nothing."""
    sizes = [2 + 2 * N_FREQUENCIES, *[config.width] * config.n_layers, 2]
    with torch_seed(seed):
        weights = [torch.randn(a, b) * math.sqrt(2 / a) for a, b in pairwise(sizes)]
    weights[-1] *= 1e-2
    return [tensor for w in weights for tensor in (w, torch.zeros(1, w.shape[1]))]


def _batches(
    config: EnsembleConfig, data: Sequence[TrainingSet], seeds: Sequence[int], n_points: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Points (M B, 2) and Gaussian numbers (M B, 3) of every step; a member's depend on its seed and data alone."""
    orders = [
        shuffled_batches(len(d), n_points, config.batch_size, stage_seed(s, 0, "order"))
        for d, s in zip(data, seeds, strict=True)
    ]
    rngs = [generator(stage_seed(seed, 0, "noise")) for seed in seeds]
    points = [torch.from_numpy(d[np.arange(len(d))]).float() for d in data]
    for _ in range(-(-n_points // (config.batch_size * STEPS_DRAWN_AT_ONCE))):
        shape = (STEPS_DRAWN_AT_ONCE, config.batch_size, 3)
        drawn = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs], axis=1)
        for numbers in torch.from_numpy(drawn):
            rows = [next(order, None) for order in orders]
            if rows[0] is None:
                return
            x = torch.stack([p[torch.from_numpy(r)] for p, r in zip(points, rows, strict=True)])
            yield x.flatten(0, 1), numbers[:, : x.shape[1]].flatten(0, 1)


@dataclass(frozen=True)
class Generation:
    """Generation t of all members: samples (M, n, 2), NaN where a member has stopped; why, by member."""

    generation: int
    samples: np.ndarray
    stopped: tuple[str, ...]


def retrain_together(
    config: EnsembleConfig, arms: Sequence[tuple[Scheme, int]], real: Sequence[np.ndarray], n_retrain: int
) -> Iterator[Generation]:
    """Algorithm 1 for all ``arms``, pairs of scheme and seed, with real data ``real[i]`` (n, 2), by generation.

    theta_0 is trained once a seed, on the real data of the first arm that has it, and shared by all its arms.
    Raises ValueError if the numbers of real data differ.
    """
    if len({len(x) for x in real}) != 1 or len(real) != len(arms):
        raise ValueError(f"{len(arms)} arms need as many sets of real data, all of one size")
    seeds = [seed for _, seed in arms]
    first = {seed: seeds.index(seed) for seed in seeds}
    start = Ensemble(config, list(first))
    start.fit([TrainingSet.of(real[i]) for i in first.values()], [stage_seed(s, 0, "fit") for s in first])
    ensemble = start.take([list(first).index(seed) for seed in seeds])
    n, samples = len(real[0]), np.empty(0)
    for t in range(n_retrain + 1):
        if t:
            data = [
                scheme.training_set(x, [x, old], seed=stage_seed(seed, t, "scheme"))
                for (scheme, seed), x, old in zip(arms, real, np.nan_to_num(samples), strict=True)
            ]
            ensemble.fit(data, [stage_seed(seed, t, "fit") for seed in seeds])
        n_samples = max(n, *(scheme.n_samples(n) for scheme, _ in arms))
        samples = ensemble.sample(n_samples, [stage_seed(seed, t, "sample") for seed in seeds])
        samples[[bool(reason) for reason in ensemble.stopped]] = np.nan
        yield Generation(t, samples[:, :n], tuple(ensemble.stopped))
