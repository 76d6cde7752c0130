"""EDM, the diffusion model of Karras, Aittala, Aila and Laine (2022), written from the equations of the paper."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from iterative_retraining.data import TrainingSet, to_uint8, to_unit
from iterative_retraining.models.networks import UNet, UNetConfig
from iterative_retraining.seeding import generator, noise_by_index, stage_seed, torch_seed

Denoiser = Callable[[Tensor, Tensor], Tensor]


class NonFiniteLossError(FloatingPointError):
    """A training loss was NaN or infinite; the message names the step and the last finite loss."""


@dataclass(frozen=True, kw_only=True)
class EDMConfig:
    """Training and sampling of an `EDM`. Budgets, half-lives and ramps are counted in images shown to the network.

    sigma_data to n_steps are the values of Karras et al. (2022), table 1. Each fit starts Adam afresh and the EMA
    becomes the next fit's start, as in the published retraining protocol.
    """

    network: UNetConfig
    n_images_initial: int
    n_images_per_retraining: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    lr_rampup_images: int = 0
    ema_halflife_images: int = 500_000
    warm_start: bool = True
    sigma_data: float = 0.5
    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    n_steps: int = 18
    sampling_batch_size: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (int, float) and (isinstance(value, bool) or not isinstance(value, field.type | int)):
                raise ValueError(f"{field.name} = {value!r} is not allowed: it must be of type {field.type.__name__}")
        for name in ("n_images_initial", "n_images_per_retraining", "lr_rampup_images", "ema_halflife_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it counts images, 0 or more")
        for name in ("batch_size", "sampling_batch_size", "n_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it must be at least 1")
        for name in ("learning_rate", "sigma_data", "p_std", "sigma_min", "rho"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)} is not allowed: it must be above 0")
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_max = {self.sigma_max} is not allowed: it must exceed sigma_min")


def precondition(net: Callable[[Tensor, Tensor], Tensor], x: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """The denoiser D(x; sigma) of Eq. 7, with the coefficients of table 1: x (B, C, H, W), sigma (B,) -> like x."""
    variance = sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / variance, sigma * sigma_data / variance.sqrt()
    c_in, c_noise = 1 / variance.sqrt(), sigma.log() / 4
    wide = (-1, *[1] * (x.ndim - 1))
    return c_skip.view(wide) * x + c_out.view(wide) * net(c_in.view(wide) * x, c_noise)


def denoising_loss(denoise: Denoiser, x: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float) -> Tensor:
    """Eq. 2 under the weight lambda(sigma) of table 1, a mean over images and pixels: scalar.

    x, noise (B, C, H, W), noise unit Gaussian; sigma (B,).
    """
    return denoising_errors(denoise, x, sigma, noise, sigma_data).mean()


def denoising_errors(denoise: Denoiser, x: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float) -> Tensor:
    """The terms of `denoising_loss` before the mean, like x (B, ...)."""
    wide = (-1, *[1] * (x.ndim - 1))
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    error = denoise(x + sigma.view(wide) * noise, sigma) - x
    return weight.view(wide) * error.square()


def noise_levels(n_steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """Eq. 5: n_steps levels from sigma_max down to sigma_min, then 0, float64 (n_steps + 1,)."""
    ramp = torch.linspace(0, 1, n_steps, dtype=torch.float64)
    levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def sample_heun(
    net: Denoiser,
    noise: Tensor,
    *,
    n_steps: int = 18,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    rho: float = 7.0,
) -> Tensor:
    """Algorithm 1 of Karras et al. (2022), deterministic: 2 n_steps - 1 evaluations of ``net(x, sigma)``.

    noise is unit Gaussian (B, ...); the network sees float32, the state is float64, which is returned.
    """
    levels = noise_levels(n_steps, sigma_min, sigma_max, rho).tolist()
    x = noise.double() * levels[0]

    def slope(x: Tensor, sigma: float) -> Tensor:
        denoised = net(x.float(), torch.full((len(x),), sigma, device=x.device))
        return (x - denoised.double()) / sigma

    for sigma, sigma_next in pairwise(levels):
        d = slope(x, sigma)
        x_next = x + (sigma_next - sigma) * d
        if sigma_next > 0:
            x_next = x + (sigma_next - sigma) * 0.5 * (d + slope(x_next, sigma_next))
        x = x_next
    return x


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


class EDM:
    """A U-Net denoiser trained by denoising score matching and sampled by Heun's method; images uint8 (N, H, W, C)."""

    def __init__(self, config: EDMConfig, device: str = "cpu") -> None:
        self.config, self.device = config, torch.device(device)
        self.net: UNet | None = None
        self._flat: nn.Parameter | None = None

    def _new_network(self, seed: int) -> None:
        with torch_seed(seed):
            net = UNet(self.config.network)
        # channels_last wins in training on two CPU cores and is what tensor cores want: benchmarks/edm_training.py
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self._flat = flatten_parameters(self.net)

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D(x; sigma) with the current weights: x (B, C, H, W) in noise-level units, sigma (B,)."""
        return precondition(self.net, x, sigma, self.config.sigma_data)

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
        """The loss of one batch (B, H, W, C) in [-1, 1], with fresh noise levels and noise (Karras et al., table 1)."""
        x = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)  # NHWC memory: channels_last already
        sigma = (torch.randn(len(x), device=self.device) * self.config.p_std + self.config.p_mean).exp()
        return denoising_loss(self.denoise, x, sigma, torch.randn_like(x), self.config.sigma_data)

    def _ema_decay(self, batch: int, n_seen: int, afresh: bool) -> float:
        """0.5^(batch / half-life); from random weights the half-life is 5 % of the images seen, at most its value."""
        halflife = self.config.ema_halflife_images
        if afresh:
            halflife = min(halflife, 0.05 * n_seen)
        return 0.5 ** (batch / max(halflife, 1e-8))

    @torch.inference_mode()
    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` images, uint8 (n, H, W, C); image i is made from the latent of ``(seed, i)``, whatever the batches."""
        config, net = self.config, self.config.network
        self.net.eval()
        images = np.empty((n, net.resolution, net.resolution, net.colours), dtype=np.uint8)
        for start in range(0, n, config.sampling_batch_size):
            rows = range(start, min(n, start + config.sampling_batch_size))
            noise = torch.from_numpy(noise_by_index(seed, rows, images.shape[1:])).to(self.device).permute(0, 3, 1, 2)
            x = sample_heun(
                self.denoise,
                noise,
                n_steps=config.n_steps,
                sigma_min=config.sigma_min,
                sigma_max=config.sigma_max,
                rho=config.rho,
            )
            images[start : rows.stop] = to_uint8(x.permute(0, 2, 3, 1).cpu().numpy())
        return images

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
