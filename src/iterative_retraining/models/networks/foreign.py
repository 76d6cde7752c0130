"""The networks of published weights that are not DDPM++: torchcfm's U-Net and that of diffusers, by their packages."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from iterative_retraining.errors import shown
from iterative_retraining.models.networks.ddpmpp import check_shape
from iterative_retraining.models.process import check_choice, check_numbers

ADM_GROUPS = 32  # of every group norm in torchcfm's U-Net


class ForeignNetwork(nn.Module):
    """Another package's network ``inner``, called as ours are: x (B, C, H, W), level (B,) -> like x."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


class ADM(ForeignNetwork):
    """torchcfm's `UNetModel`, whose embedding has frequencies from 1 to 1e-4."""

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.inner(level, x)


class DiffusersUNet(ForeignNetwork):
    """diffusers' `UNet2DModel`, whose embedding has such frequencies too."""

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        return self.inner(x, level, return_dict=False)[0]


@dataclass(frozen=True, kw_only=True)
class ADMConfig:
    """torchcfm's U-Net, that of Dhariwal and Nichol (2021). The defaults are the published OT-CFM network for CIFAR-10
    (Tong et al. 2024).

    multipliers, blocks_per_level, attention_resolutions: as in `ddpmpp.UNetConfig`.
    head_channels: channels of each head of attention; 0 for one head of all channels.
    """

    resolution: int = 32
    colours: int = 3
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks_per_level: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    head_channels: int = 64

    def __post_init__(self) -> None:
        require("torchcfm", "otcfm")
        check_shape(self)
        _check_groups(self.channels, ADM_GROUPS)
        _check_heads(self)

    def build(self) -> ADM:
        """The network, with torchcfm's random weights from torch's generator."""
        from torchcfm.models.unet.unet import UNetModel

        inner = UNetModel(
            image_size=self.resolution,
            in_channels=self.colours,
            out_channels=self.colours,
            model_channels=self.channels,
            channel_mult=self.multipliers,
            num_res_blocks=self.blocks_per_level,
            attention_resolutions=[2**level for level in attended_levels(self)],  # as factors of the size
            dropout=self.dropout,
            num_head_channels=self.head_channels or -1,
        )
        return ADM(inner)


@dataclass(frozen=True, kw_only=True)
class DiffusersUNetConfig:
    """diffusers' `UNet2DModel`. The defaults are the CIFAR-10 network of Ho et al. (2020), google/ddpm-cifar10-32; its
    dropout is that of the paper's training, which the published config.json does not say.

    multipliers, blocks_per_level, attention_resolutions: as in `ddpmpp.UNetConfig`.
    head_channels: channels of each head of attention; 0 for one head of all channels. norm_groups: of the group norms.
    downsample_padding, flip_sin_to_cos, freq_shift, norm_eps: as diffusers calls them.
    """

    resolution: int = 32
    colours: int = 3
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    blocks_per_level: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.1
    head_channels: int = 0
    norm_groups: int = 32
    downsample_padding: int = 0
    flip_sin_to_cos: bool = False
    freq_shift: int = 1
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        require("diffusers", "ddpm")
        check_shape(self)
        check_numbers(self, counts=("norm_groups",), positive=("norm_eps",))
        check_choice("downsample_padding", self.downsample_padding, (0, 1))
        check_choice("flip_sin_to_cos", self.flip_sin_to_cos, (True, False))
        _check_groups(self.channels, self.norm_groups)
        _check_heads(self)

    def arguments(self) -> dict[str, Any]:
        """What `UNet2DModel` is built with."""
        attended = attended_levels(self)
        kinds = ["Attn" if level in attended else "" for level in range(len(self.multipliers))]
        return {
            "sample_size": self.resolution,
            "in_channels": self.colours,
            "out_channels": self.colours,
            "block_out_channels": [self.channels * multiplier for multiplier in self.multipliers],
            "layers_per_block": self.blocks_per_level,
            "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
            "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
            "dropout": self.dropout,
            "attention_head_dim": self.head_channels or None,
            "norm_num_groups": self.norm_groups,
            "downsample_padding": self.downsample_padding,
            "flip_sin_to_cos": self.flip_sin_to_cos,
            "freq_shift": self.freq_shift,
            "norm_eps": self.norm_eps,
        }

    def build(self) -> DiffusersUNet:
        """The network, with diffusers' random weights from torch's generator."""
        from diffusers import UNet2DModel

        return DiffusersUNet(UNet2DModel(**self.arguments()))


def require(package: str, extra: str) -> None:
    """Raises ValueError unless ``package`` is installed; it comes with the extra ``extra``."""
    if find_spec(package) is None:
        raise ValueError(
            f"this network needs the package {package}, which is not installed: "
            f"pip install 'iterative-retraining[{extra}]'"
        )


def attended_levels(config: ADMConfig | DiffusersUNetConfig) -> list[int]:
    """The levels with attention."""
    levels = range(len(config.multipliers))
    return [level for level in levels if config.resolution >> level in config.attention_resolutions]


def _check_groups(channels: int, groups: int) -> None:
    if channels % groups:
        raise ValueError(
            f"channels = {channels} is not allowed: its group norms make it a multiple of {groups} (norm_groups)"
        )


def _check_heads(config: ADMConfig | DiffusersUNetConfig) -> None:
    size = config.head_channels
    if size < 0:
        raise ValueError(f"head_channels = {size} is not allowed: it counts channels, or is 0 for one head")
    for level in {*attended_levels(config), len(config.multipliers) - 1} if size else ():
        width = config.channels * config.multipliers[level]
        if width % size:
            raise ValueError(
                f"head_channels = {size} is not allowed: it must divide the {width} channels of attention, with "
                f"channels = {config.channels}, multipliers = {config.multipliers} and attention_resolutions = "
                f"{shown(config.attention_resolutions)}"
            )
