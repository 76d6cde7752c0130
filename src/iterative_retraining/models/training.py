"""A network and a process behind the Model protocol: trained in batches, sampled by index; images are uint8 NHWC."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from iterative_retraining.data import TrainingSet, to_uint8, to_unit
from iterative_retraining.models.networks import NetworkConfig
from iterative_retraining.models.process import Process, check_numbers
from iterative_retraining.seeding import generator, noise_by_index, stage_seed, torch_seed


class NonFiniteLossError(FloatingPointError):
    """A training loss was NaN or infinite; the message names the step and the last finite loss."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training of a `NetworkModel`. Budgets, half-lives and ramps are counted in images shown to the network.

    Each fit starts Adam afresh and the EMA becomes the next fit's start, as in the published retraining protocol.
    """

    network: NetworkConfig
    n_images_initial: int
    n_images_per_retraining: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    lr_rampup_images: int = 0
    ema_halflife_images: int = 500_000
    warm_start: bool = True
    sampling_batch_size: int = 512

    def __post_init__(self) -> None:
        check_numbers(self, counts=("batch_size", "sampling_batch_size"), positive=("learning_rate",))
        for name in ("n_images_initial", "n_images_per_retraining", "lr_rampup_images", "ema_halflife_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it counts images, 0 or more")


def flatten_parameters(net: nn.Module) -> nn.Parameter:
    """Moves all parameters, and their gradients, into two flat buffers of which they become views; returns the first.

    One optimizer step or EMA update is then a single operation instead of one per parameter.
    """
    parameters = list(net.parameters())
    sizes = [p.numel() for p in parameters]
    flat = nn.Parameter(torch.empty(sum(sizes), device=parameters[0].device))
    flat.grad = torch.zeros_like(flat)
    for p, values, grad in zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True):
        view = values.as_strided(p.shape, p.stride(), values.storage_offset())  # keeps the memory format
        p.data, p.grad = view.copy_(p.detach()), grad.as_strided(p.shape, p.stride(), grad.storage_offset())
    return flat


def shuffled_batches(n_data: int, n_images: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Index batches (batch_size,), the last one smaller, ``n_images`` in all: one random order after another."""
    rng, pending = generator(seed), np.arange(0)
    while n_images > 0:
        size = min(batch_size, n_images)
        while len(pending) < size:
            pending = np.concatenate([pending, rng.permutation(n_data)])
        yield pending[:size]
        pending, n_images = pending[size:], n_images - size


class NetworkModel:
    """A network that learns and undoes ``process``: a U-Net for EDM, flow matching or DDPM, or a spline flow."""

    def __init__(self, process: Process, config: TrainingConfig, device: str = "cpu") -> None:
        self.process, self.config, self.device = process, config, torch.device(device)
        self.net: nn.Module | None = None
        self._flat: nn.Parameter | None = None

    def _new_network(self, seed: int) -> None:
        with torch_seed(seed):
            net = self.config.network.build()
        # channels_last wins in training on two CPU cores and is what tensor cores want: benchmarks/edm_training.py
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self._flat = flatten_parameters(self.net)

    def fit(self, data: TrainingSet, *, seed: int, progress: Callable[[int, int], None] | None = None) -> Self:
        """Trains on ``data``; afterwards the weights are the EMA.

        The first fit, and every fit if ``warm_start`` is False, starts from random weights and sees
        ``n_images_initial`` images; any other goes on from the current weights for ``n_images_per_retraining``.
        ``progress(n_images_seen, n_images)`` is called after each batch.

        Raises NonFiniteLossError if the loss is NaN or infinite.
        """
        afresh = self.net is None or not self.config.warm_start
        if afresh:
            self._new_network(stage_seed(seed, 0, "weights"))
        n_images = self.config.n_images_initial if afresh else self.config.n_images_per_retraining
        with torch_seed(stage_seed(seed, 0, "noise"), self.device):
            self._train(data, n_images, afresh, stage_seed(seed, 0, "order"), progress)
        return self

    def _train(
        self, data: TrainingSet, n_images: int, afresh: bool, seed: int, progress: Callable[[int, int], None] | None
    ) -> None:
        config, flat = self.config, self._flat
        adam = torch.optim.Adam([flat], lr=config.learning_rate, fused=True)
        ema, n_seen, last_finite = flat.detach().clone(), 0, float("nan")
        self.net.train()
        for step, index in enumerate(shuffled_batches(len(data), n_images, config.batch_size, seed)):
            loss = self._loss(to_unit(data[index]))
            flat.grad.zero_()
            loss.backward()
            n_seen += len(index)
            adam.param_groups[0]["lr"] = config.learning_rate * min(1.0, n_seen / max(config.lr_rampup_images, 1))
            adam.step()
            ema.lerp_(flat.detach(), 1 - self._ema_decay(len(index), n_seen, afresh))
            value = loss.item()
            if not np.isfinite(value):
                raise NonFiniteLossError(
                    f"the loss is {value} at step {step} ({n_seen} of {n_images} images); the last finite loss was "
                    f"{last_finite:.6g}. A lower learning_rate (now {config.learning_rate}) is the usual way out"
                )
            last_finite = value
            if progress is not None:
                progress(n_seen, n_images)
        with torch.no_grad():
            flat.copy_(ema)

    def _loss(self, images: np.ndarray) -> Tensor:
        """The loss of one batch (B, H, W, C) in [-1, 1], with fresh noise levels and noise."""
        x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)  # NHWC memory: channels_last already
        number = torch.randn(len(x), device=self.device)
        noise = self.process.pair(x[None], torch.randn_like(x)[None])[0]
        return self.process.errors(self.net, x, number, noise).mean()

    def _ema_decay(self, batch: int, n_seen: int, afresh: bool) -> float:
        """0.5^(batch / half-life); from random weights the half-life is 5 % of the images seen, at most its value."""
        halflife = self.config.ema_halflife_images
        if afresh:
            halflife = min(halflife, 0.05 * n_seen)
        return 0.5 ** (batch / max(halflife, 1e-8))

    @torch.inference_mode()
    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` images, uint8 (n, H, W, C); image i is made from the noise of ``(seed, i)``, whatever the batches."""
        network = self.config.network
        self.net.eval()
        images = np.empty((n, network.resolution, network.resolution, network.colours), dtype=np.uint8)
        for start in range(0, n, self.config.sampling_batch_size):
            rows = range(start, min(n, start + self.config.sampling_batch_size))
            x = self.process.sample(self.net, partial(self._noise, seed, rows))
            images[start : rows.stop] = to_uint8(x.permute(0, 2, 3, 1).cpu().numpy())
        return images

    def _noise(self, seed: int, rows: range, k: int) -> Tensor:
        """Noise number ``k`` of the images ``rows``, (B, C, H, W)."""
        network = self.config.network
        shape = (network.resolution, network.resolution, network.colours)
        noise = noise_by_index(stage_seed(seed, k, "step") if k else seed, rows, shape)
        return torch.from_numpy(noise).to(self.device).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def log_prob(self, images: np.ndarray) -> np.ndarray:
        """Log densities in nats of pixels in [-1, 1] at uint8 images (N, H, W, C), float64 (N,).

        Raises ValueError for a process without an exact density.
        """
        if not hasattr(self.process, "log_prob"):
            raise ValueError(f"{type(self.process).__name__} has no exact density; spline_flow has one")
        self.net.eval()
        batches = np.array_split(to_unit(images), range(0, len(images), self.config.sampling_batch_size)[1:])
        x = (torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2) for batch in batches)
        return torch.cat([self.process.log_prob(self.net, one).double() for one in x]).cpu().numpy()

    def state_bytes(self, item_shape: tuple[int, ...]) -> int:
        """The size of `state_dict`, without building it."""
        with torch.device("meta"):
            return sum(t.numel() * t.element_size() for t in self.config.network.build().state_dict().values())

    def state_dict(self) -> dict[str, np.ndarray]:
        """The weights (the EMA of the last fit) by name, float32 arrays on the CPU."""
        return {name: tensor.cpu().numpy().copy() for name, tensor in self.net.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state_dict`. Raises ValueError if names or shapes are not those of this network."""
        if self.net is None:
            self._new_network(0)
        wanted = {name: tuple(tensor.shape) for name, tensor in self.net.state_dict().items()}
        given = {name: tuple(array.shape) for name, array in state.items()}
        if wanted != given:
            differing = sorted(name for name in wanted | given if wanted.get(name) != given.get(name))
            raise ValueError(
                f"the weights are of another network: {len(differing)} names or shapes differ, "
                f"{differing[0]!r} first: wanted {wanted.get(differing[0])}, got {given.get(differing[0])}"
            )
        self.net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in state.items()})
