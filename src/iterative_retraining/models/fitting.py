"""A fit under way: flat weights, their EMA and Adam's moments, and all that it takes to go on from its middle."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from iterative_retraining.errors import NonFiniteLossError
from iterative_retraining.models.augment import N_LABELS
from iterative_retraining.models.networks.ddpmpp import NetworkConfig
from iterative_retraining.models.process import check_choice, check_numbers
from iterative_retraining.models.transfer import HostCopies
from iterative_retraining.seeding import generator

NEXT_STARTS = ("ema", "raw")
PRECISIONS = ("float32", "bfloat16")
Arrays = Mapping[str, np.ndarray]
Number = TypeVar("Number", float, np.ndarray)


def kept_share(n_images: Number, halflife_images: float) -> Number:
    """What an EMA still gives, after ``n_images``, to the weights from before them: 0.5^(n_images / half-life)."""
    return 0.5 ** (n_images / max(halflife_images, 1e-8))


def ramp_share(n_seen: Number, ramp_images: int) -> Number:
    """The share of the nominal learning rate after ``n_seen`` images, rising linearly over ``ramp_images``."""
    return np.minimum(1.0, n_seen / max(ramp_images, 1))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training of a `NetworkModel`. Budgets, half-lives and ramps are counted in images shown to the network.

    augment_probability: of each transformation of `augment`; 0.0 for none
    clip_gradient_norm: gradients are scaled down to this norm; 0.0 for any norm
    restart_ramp: whether the ramp of the learning rate begins anew in every retraining, or belongs to the fit of
        theta_0 alone
    keep_optimizer: whether Adam's moments go on through retrainings, or every fit starts Adam anew
    next_start: what the next fit starts from, "ema" (which then is all there is), or "raw", the weights themselves,
        beside which the EMA goes on
    precision: "bfloat16" runs the network under autocast; weights, gradients, Adam and EMA stay float32
    compile: the network goes through torch.compile, for batches of one size

    What a fit hands to the next is by default what it is in the published EDM route.
    """

    network: NetworkConfig
    n_images_initial: int
    n_images_per_retraining: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    lr_rampup_images: int = 0
    restart_ramp: bool = True
    ema_halflife_images: int = 500_000
    next_start: str = "ema"
    keep_optimizer: bool = False
    clip_gradient_norm: float = 0.0
    augment_probability: float = 0.0
    warm_start: bool = True
    precision: str = "float32"
    compile: bool = False
    sampling_batch_size: int = 512

    def __post_init__(self) -> None:
        check_numbers(self, counts=("batch_size", "sampling_batch_size"), positive=("learning_rate",))
        for name in ("n_images_initial", "n_images_per_retraining", "lr_rampup_images", "ema_halflife_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it counts images, 0 or more")
        for name in ("restart_ramp", "keep_optimizer", "warm_start", "compile"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} = {getattr(self, name)!r} is not allowed: it is true or false")
        check_choice("next_start", self.next_start, NEXT_STARTS)
        check_choice("precision", self.precision, PRECISIONS)
        if not self.clip_gradient_norm >= 0:
            raise ValueError(f"clip_gradient_norm = {self.clip_gradient_norm} is not allowed: a norm, or 0.0 for none")
        if not 0 <= self.augment_probability <= 1:
            raise ValueError(f"augment_probability = {self.augment_probability} is not allowed: it lies in [0, 1]")
        if self.augment_probability and getattr(self.network, "augment_labels", 0) != N_LABELS:
            raise ValueError(
                f"augment_probability = {self.augment_probability} needs a network that is told of it, or the "
                "augmentation leaks into the samples: set augment_labels = 9 (network 'ddpmpp')"
            )
        if getattr(self.network, "eager", False) and (self.compile or self.precision != "float32"):
            raise ValueError("compile and precision 'bfloat16' are for U-Nets, not for a spline flow")
        if not self.warm_start and (self.keep_optimizer or self.next_start == "raw"):
            raise ValueError(
                "keep_optimizer and next_start 'raw' need warm_start: a fit from scratch goes on from nothing"
            )

    @property
    def persistent_state(self) -> tuple[str, ...]:
        """See `persistent_kinds`."""
        return persistent_kinds(self.next_start, self.keep_optimizer)

    def ema_decay(self, batch: int, n_seen: int, from_scratch: bool) -> float:
        """0.5^(batch / half-life); from random weights the half-life is 5 % of the images seen, at most its value."""
        halflife = min(self.ema_halflife_images, 0.05 * n_seen) if from_scratch else self.ema_halflife_images
        return kept_share(batch, halflife)

    def rate(self, n_seen: int, from_scratch: bool) -> float:
        """The learning rate of the step that brings a fit to ``n_seen`` images."""
        ramp = self.lr_rampup_images if from_scratch or self.restart_ramp else 0
        return self.learning_rate * float(ramp_share(n_seen, ramp))


def persistent_kinds(next_start: str, keep_optimizer: bool) -> tuple[str, ...]:
    """What a fit hands to the next beside the EMA, as the names in `Fit.state` begin."""
    raw = ("raw",) if next_start == "raw" else ()
    return raw + (("exp_avg", "exp_avg_sq", "adam_steps") if keep_optimizer else ())


def flatten_parameters(net: nn.Module) -> nn.Parameter:
    """Moves all parameters, and their gradients, into two flat buffers of which they become views; returns the first.

    One optimizer step or EMA update is then a single operation instead of one per parameter.
    """
    parameters = list(net.parameters())
    flat = nn.Parameter(torch.empty(sum(p.numel() for p in parameters), device=parameters[0].device))
    flat.grad = torch.zeros_like(flat)
    values, gradients = by_name(net, flat.detach()), by_name(net, flat.grad)
    for name, p in net.named_parameters():
        p.data, p.grad = values[name].copy_(p.detach()), gradients[name]
    return flat


def by_name(net: nn.Module, flat: Tensor) -> dict[str, Tensor]:
    """Views of a flat buffer, one a parameter of ``net``, in its shape and memory format."""
    named = dict(net.named_parameters())
    parts = flat.split([p.numel() for p in named.values()])
    return {
        name: part.as_strided(p.shape, p.stride(), part.storage_offset())
        for (name, p), part in zip(named.items(), parts, strict=True)
    }


def shuffled_batches(n_data: int, n_images: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Index batches (batch_size,), the last one smaller, ``n_images`` in all: one random order after another."""
    rng, pending = generator(seed), np.arange(0)
    while n_images > 0:
        size = min(batch_size, n_images)
        while len(pending) < size:
            pending = np.concatenate([pending, rng.permutation(n_data)])
        yield pending[:size]
        pending, n_images = pending[size:], n_images - size


class Fit:
    """One fit of ``net``, whose parameters are views of ``flat``: `step` after each backward pass, `finish` at the end.

    from_scratch: whether it started from random weights; carried: what the fit before handed on (`carry`), or nothing.
    """

    def __init__(
        self, net: nn.Module, flat: nn.Parameter, config: TrainingConfig, from_scratch: bool, carried: Arrays
    ) -> None:
        self.net, self.flat, self.config, self.from_scratch = net, flat, config, from_scratch
        self.adam = torch.optim.Adam([flat], lr=config.learning_rate, fused=True)
        self.ema, self.n_seen, self.n_steps = flat.detach().clone(), 0, 0
        self._losses: list[Tensor] = []
        self._sent: tuple[int, HostCopies] | None = None
        self._n_images = 0
        self._last_finite = float("nan")
        self._fill(
            {name: array for name, array in carried.items() if name.partition("/")[0] in config.persistent_state}
        )

    def step(self, batch: int) -> None:
        """Takes the gradients of ``batch`` images into weights and EMA."""
        self.n_seen, self.n_steps = self.n_seen + batch, self.n_steps + 1
        if self.config.clip_gradient_norm:
            nn.utils.clip_grad_norm_([self.flat], self.config.clip_gradient_norm)
        self.adam.param_groups[0]["lr"] = self.config.rate(self.n_seen, self.from_scratch)
        self.adam.step()
        self.ema.lerp_(self.flat.detach(), 1 - self.config.ema_decay(batch, self.n_seen, self.from_scratch))

    def watch(self, loss: Tensor, n_images: int, *, every: int) -> None:
        """Looks at the losses ``every`` steps: reading one from a GPU waits for all work before it, so that they are
        sent on their way and read when as many others have followed.

        Raises NonFiniteLossError with the first step of a loss that is not finite.
        """
        self._losses.append(loss)
        self._n_images, last = n_images, self.n_seen >= n_images
        if len(self._losses) == every or last:
            self._read()
            self._send()
        if every == 1 or last:
            self._read()

    def look(self) -> None:
        """Reads every loss so far. Raises NonFiniteLossError as `watch` does."""
        self._read()
        self._send()
        self._read()

    def _send(self) -> None:
        """Sends the losses of the steps since the last time to the host."""
        if self._losses:
            self._sent = self.n_steps - len(self._losses), HostCopies({"losses": torch.stack(self._losses)})
            self._losses = []

    def _read(self) -> None:
        """Reads the losses that were sent to the host, and remembers the last."""
        if self._sent is None:
            return
        (first, copies), self._sent = self._sent, None
        for step, value in enumerate(copies.tensors()["losses"].tolist(), start=first):
            if not np.isfinite(value):
                raise NonFiniteLossError(
                    f"the loss is {value} at step {step} ({self.n_seen} of {self._n_images} images); the last finite "
                    f"loss was {self._last_finite:.6g}. A lower learning_rate (now {self.config.learning_rate}) is the "
                    "usual way out"
                )
            self._last_finite = value

    def _buffers(self) -> dict[str, Tensor]:
        moments = self.adam.state.get(self.flat, {})
        own = {"raw": self.flat.detach(), "ema": self.ema}
        return own | {name: moments[name] for name in ("exp_avg", "exp_avg_sq") if name in moments}

    def snapshot(self) -> Callable[[], dict[str, np.ndarray]]:
        """`state` as it is now, without waiting for a GPU: what is returned waits, and may be called in any thread."""
        kinds = self._buffers()
        steps = {"adam_steps": self.adam.state[self.flat]["step"]} if self.adam.state else {}
        copies, n_seen, n_steps = HostCopies(kinds | steps), self.n_seen, self.n_steps

        def named() -> dict[str, np.ndarray]:
            there = copies.tensors()
            arrays = {
                f"{kind}/{name}": tensor.numpy().copy()
                for kind in kinds
                for name, tensor in by_name(self.net, there[kind]).items()
            }
            adam_steps = float(there["adam_steps"]) if steps else 0.0
            counts = {"n_seen": n_seen, "n_steps": n_steps, "adam_steps": adam_steps}
            return arrays | {name: np.array(count) for name, count in counts.items()}

        return named

    def state(self) -> dict[str, np.ndarray]:
        """All of the fit but its random numbers: raw weights, EMA, moments by parameter, images and steps so far."""
        return self.snapshot()()

    def restore(self, state: Arrays) -> None:
        """The inverse of `state`."""
        self.n_seen, self.n_steps = int(state["n_seen"]), int(state["n_steps"])
        self._fill(state)

    def _fill(self, arrays: Arrays) -> None:
        if any(key.startswith("exp_avg/") for key in arrays):
            steps = torch.tensor(float(arrays["adam_steps"]), device=self.flat.device)
            zeros = {name: torch.zeros_like(self.flat.detach()) for name in ("exp_avg", "exp_avg_sq")}
            self.adam.state[self.flat] = {"step": steps, **zeros}
        with torch.no_grad():
            for kind, flat in self._buffers().items():
                for name, tensor in by_name(self.net, flat).items():
                    if f"{kind}/{name}" in arrays:
                        tensor.copy_(torch.from_numpy(np.array(arrays[f"{kind}/{name}"])))

    def finish(self) -> dict[str, np.ndarray]:
        """Makes the EMA the weights; returns what the next fit is to be handed, by the configuration."""
        state = self.state() if self.config.persistent_state else {}
        carried = {
            name: array for name, array in state.items() if name.partition("/")[0] in self.config.persistent_state
        }
        with torch.no_grad():
            self.flat.copy_(self.ema)
        return carried
