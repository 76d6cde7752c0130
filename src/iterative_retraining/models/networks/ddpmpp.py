"""The DDPM++ U-Net of Song et al. (2021), as parameterised in the appendix of Karras et al. (2022).

One class serves digits of 8 x 8 pixels and colour images of 64 x 64: everything that differs is in `UNetConfig`.
"""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iterative_retraining.models.process import check_numbers

WIDEST, DEEPEST = 2**13, 64  # channels, and blocks a level, beyond those of all published U-Nets
SKIP_SCALE = math.sqrt(0.5)  # residual sums keep unit variance (Song et al. 2021)


class NetworkConfig(Protocol):
    """The shape of a network for images (B, colours, resolution, resolution)."""

    @property
    def resolution(self) -> int: ...

    @property
    def colours(self) -> int: ...

    def build(self) -> nn.Module:
        """The network, with random weights from torch's generator."""


def check_shape(config: Any) -> None:
    """Raises ValueError unless a U-Net can have the numbers that all of them take, see `UNetConfig`."""
    check_numbers(
        config,
        counts=("resolution", "colours", "channels", "blocks_per_level"),
        at_most={"channels": WIDEST, "blocks_per_level": DEEPEST},
    )
    halvings = len(config.multipliers) - 1
    if halvings < 0 or config.resolution % 2**halvings:
        raise ValueError(
            f"resolution {config.resolution} cannot be halved {halvings} times: take fewer multipliers than "
            f"{config.multipliers}"
        )
    if not all(isinstance(multiplier, int) and multiplier > 0 for multiplier in config.multipliers):
        raise ValueError(f"multipliers = {config.multipliers} is not allowed: they are whole numbers above 0")
    if config.channels * max(config.multipliers) > WIDEST:
        raise ValueError(
            f"channels = {config.channels} is not allowed with multipliers = {config.multipliers}: the widest level "
            f"may have {WIDEST} channels"
        )
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout = {config.dropout} is not allowed: it must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a `UNet`. The defaults are the published CIFAR-10 network (Karras et al. 2022, appendix)."""

    resolution: int = 32
    colours: int = 3
    channels: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    blocks_per_level: int = 4
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.13
    augment_labels: int = 9

    def __post_init__(self) -> None:
        check_shape(self)
        if self.channels % 2:
            raise ValueError(f"channels = {self.channels} is not allowed: it must be even (sines and cosines)")
        if not 0 <= self.augment_labels <= WIDEST:
            raise ValueError(f"augment_labels = {self.augment_labels} is not allowed: it lies in 0..{WIDEST}")

    def build(self) -> "UNet":
        """The network, with random weights from torch's generator."""
        return UNet(self)


class GroupNorm(nn.GroupNorm):
    """torch's group norm, and the same by sums over pixels where that is faster: in sampling small images on a CPU.

    On a GPU it keeps the precision of what it is given, as on a CPU; torch's autocast would make it float32 there, and
    all that follows up to the next convolution. Its own sums are float32 in any case.

    Below 1024 pixels torch's kernel for channels_last memory goes through it group by group, with strides; 1.1 to 2.9
    times as slow as this at 4 x 4 to 28 x 28; from 1024 pixels on it is 2.5 times as fast (benchmarks/solvers.py).
    With gradients this would not win.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.is_cuda and torch.is_autocast_enabled("cuda"):
            with torch.autocast("cuda", enabled=False):
                return F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
        small = x[0, 0].numel() < 1024 and x.is_contiguous(memory_format=torch.channels_last)
        plain = x.is_cpu and x.dtype == torch.float32 and not torch.is_grad_enabled()
        return self._by_sums(x) if small and plain else super().forward(x)

    def _by_sums(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> the same: E x and E x^2 of a group, as torch's kernel has them, then one a x + b."""
        b, c, h, w = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(b, h * w, c)  # a view of channels_last
        sums = torch.stack([pixels.sum(dim=1), pixels.square().sum(dim=1)])
        mean, square = sums.view(2, b, self.num_groups, -1).mean(dim=3) / (h * w)
        scale = (square - mean.square()).clamp(min=0).add(self.eps).rsqrt()
        scale = scale[:, :, None] * self.weight.view(self.num_groups, -1)
        shift = self.bias.view(self.num_groups, -1) - mean[:, :, None] * scale
        out = torch.addcmul(shift.view(b, 1, c), pixels, scale.view(b, 1, c))
        return out.view(b, h, w, c).permute(0, 3, 1, 2)


def _norm(channels: int) -> GroupNorm:
    groups = max(1, min(32, channels // 4))
    while channels % groups:
        groups -= 1
    return GroupNorm(groups, channels, eps=1e-6)


def _scaled(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> nn.Conv2d | nn.Linear:
    """Glorot-uniform weights times ``scale`` and zero biases; 1e-5 makes a residual branch start as nearly nothing."""
    nn.init.xavier_uniform_(layer.weight)
    with torch.no_grad():
        layer.weight.mul_(scale)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _conv(c_in: int, c_out: int, size: int = 3, scale: float = 1.0) -> nn.Conv2d:
    return _scaled(nn.Conv2d(c_in, c_out, size, padding=size // 2), scale)


def embed_level(level: Tensor, channels: int) -> Tensor:
    """Sines and cosines of the noise level, (B,) -> (B, channels), frequencies from 1 to 1e-4 (Vaswani et al. 2017)."""
    half = channels // 2
    phase = level[:, None] * 1e-4 ** (torch.arange(half, device=level.device) / max(half - 1, 1))
    return torch.cat([phase.sin(), phase.cos()], dim=1)


def attend(query: Tensor, key: Tensor, value: Tensor, *, heads: bool) -> Tensor:
    """softmax(query key^T / sqrt(C)) value of one head, each (B, N, C) -> (B, N, C).

    heads: whether the head is a dimension of its own, without which no GPU takes a fused kernel. On a CPU it would
    round in another way.
    """
    if heads:
        return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
    return F.scaled_dot_product_attention(query, key, value)


class Attention(nn.Module):
    """Self-attention over positions with one head, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.qkv = _conv(channels, 3 * channels, 1, scale=math.sqrt(0.2))
        self.out = _conv(channels, channels, 1, scale=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # (B, H*W, 3C)
        mixed = attend(*(part.contiguous() for part in qkv.chunk(3, dim=2)), heads=x.is_cuda)
        return (x + self.out(mixed.transpose(1, 2).reshape(x.shape))) * SKIP_SCALE


class Block(nn.Module):
    """A residual block conditioned on the noise level; ``resample`` is "", "down" (2 x 2 mean) or "up" (nearest)."""

    def __init__(self, c_in: int, c_out: int, c_emb: int, dropout: float, attention: bool, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.norm0 = _norm(c_in)
        self.conv0 = _conv(c_in, c_out)
        self.shift = _scaled(nn.Linear(c_emb, c_out))
        self.norm1 = _norm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = _conv(c_out, c_out, scale=1e-5)
        self.skip = _conv(c_in, c_out, 1) if resample or c_in != c_out else nn.Identity()
        self.attention = Attention(c_out) if attention else nn.Identity()

    def _resized(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0) if self.resample == "up" else x

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(self._resized(F.silu(self.norm0(x))))
        h = F.silu(self.norm1(h + self.shift(embedding)[:, :, None, None]))
        h = self.conv1(self.dropout(h))
        return self.attention((h + self.skip(self._resized(x))) * SKIP_SCALE)


class UNet(nn.Module):
    """``net(x, level, labels)``: x (B, C, H, W), level (B,) -> (B, C, H, W); labels (B, augment_labels) or None."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        c, c_emb = config.channels, 4 * config.channels
        self.embed_labels = _scaled(nn.Linear(config.augment_labels, c, bias=False)) if config.augment_labels else None
        self.embed = nn.Sequential(_scaled(nn.Linear(c, c_emb)), nn.SiLU(), _scaled(nn.Linear(c_emb, c_emb)), nn.SiLU())
        self.first = _conv(config.colours, c)
        skips = self._build_encoder(c_emb)
        self._build_decoder(c_emb, skips)
        c_last = c * config.multipliers[0]
        self.last = nn.Sequential(_norm(c_last), nn.SiLU(), _conv(c_last, config.colours, scale=1e-5))

    def _block(self, c_in: int, c_out: int, c_emb: int, attention: bool, resample: str = "") -> Block:
        return Block(c_in, c_out, c_emb, self.config.dropout, attention, resample)

    def _build_encoder(self, c_emb: int) -> list[int]:
        """Fills ``self.encoder``; returns the channels of every feature map that the decoder will be handed."""
        config, c = self.config, self.config.channels
        self.encoder, skips = nn.ModuleList(), [c]
        for level, multiplier in enumerate(config.multipliers):
            if level:
                self.encoder.append(self._block(c, c, c_emb, False, "down"))
                skips.append(c)
            attention = config.resolution >> level in config.attention_resolutions
            for _ in range(config.blocks_per_level):
                self.encoder.append(self._block(c, config.channels * multiplier, c_emb, attention))
                c = config.channels * multiplier
                skips.append(c)
        return skips

    def _build_decoder(self, c_emb: int, skips: list[int]) -> None:
        """Fills ``self.bottom`` and ``self.decoder``: a block more than the encoder a level, attention in the last."""
        config, c = self.config, skips[-1]
        self.bottom = nn.ModuleList([self._block(c, c, c_emb, True), self._block(c, c, c_emb, False)])
        self.decoder = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            if level < len(config.multipliers) - 1:
                self.decoder.append(self._block(c, c, c_emb, False, "up"))
            attention = config.resolution >> level in config.attention_resolutions
            for index in range(config.blocks_per_level + 1):
                last = index == config.blocks_per_level
                self.decoder.append(
                    self._block(c + skips.pop(), config.channels * multiplier, c_emb, attention and last)
                )
                c = config.channels * multiplier

    def forward(self, x: Tensor, level: Tensor, labels: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), already scaled; level (B,), what `embed_level` takes; labels (B, augment_labels) or None."""
        embedding = embed_level(level, self.config.channels)
        if self.embed_labels is not None and labels is not None:
            embedding = embedding + self.embed_labels(labels)
        embedding = self.embed(embedding)
        x = self.first(x)
        skips = [x]
        for block in self.encoder:
            x = block(x, embedding)
            skips.append(x)
        for block in self.bottom:
            x = block(x, embedding)
        for block in self.decoder:
            x = block(x if block.resample else torch.cat([x, skips.pop()], dim=1), embedding)
        return self.last(x)
