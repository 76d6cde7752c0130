"""Augmentation that does not leak into what is sampled: Karras et al. (2022), appendix F.2, after Karras et al. (2020).

Images are flipped, scaled, rotated, stretched and shifted at random, and the network is told how: nine labels, all zero
for an image as it was. Sampled with labels of zero, it draws such images.

The resampling is not the published one, which doubles the resolution with a wavelet filter, interpolates linearly and
halves it again. Here an image is its cosine series: every cosine is evaluated where the transformation puts it, and the
plane waves too fine for the pixels are left out. It is exact for smooth images and rings more at sharp edges.
"""

import math

import torch
from torch import Tensor

N_LABELS = 9
SCALE = 0.2  # log2 of a scaling or stretching of one standard deviation (Karras et al. 2022, appendix F.2)
SHIFT = 0.125  # a shift of one standard deviation, in widths and heights (ibid.)
_FLOATS_AT_ONCE = 2**21  # phases held at a time, which bounds the memory: 32 images of 32 x 32, 4 of 64 x 64


def augment(x: Tensor, generator: torch.Generator, probability: float, *, looks: bool = True) -> tuple[Tensor, Tensor]:
    """Randomly transformed images, like x (B, C, H, W), and the labels (B, 9), float32, that tell how.

    Every image is mirrored left to right with probability 1/2. Turning upside down (half of the times), scaling,
    rotation, stretching and shift are each switched on with ``probability``. ``generator`` lives on the device of x and
    advances by the same amount whatever comes out. Images that are only flipped keep their values to the bit; others
    may leave [-1, 1] near sharp edges. To be called outside autocast, which would calculate in bfloat16.

    looks: whether to look which images are more than flipped, and resample these alone. A look waits for a GPU; there
    it is better to resample all.

    Raises ValueError if ``probability`` is not in [0, 1].
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"augment_probability = {probability} is not allowed: it must lie in [0, 1], 0 for none")
    parameters = draw(len(x), generator, probability)
    for flip, axis in zip(parameters[:, :2].unbind(1), (3, 2), strict=True):
        x = torch.where(flip[:, None, None, None] > 0, x.flip(axis), x)
    moved = (parameters[:, 2:] != 0).any(1)
    if looks:
        x[moved] = resample(x[moved], matrices(parameters[moved].to(x.dtype), *x.shape[2:]))
    else:
        resampled = resample(x, matrices(parameters.to(x.dtype), *x.shape[2:]))
        x = torch.where(moved[:, None, None, None], resampled, x)
    return x, labels(parameters)


def draw(n: int, generator: torch.Generator, probability: float) -> Tensor:
    """a0 to a7 of ``n`` images (Karras et al. 2022, appendix F.2), float32 (n, 8); zero where switched off.

    a0 = 1 mirrors left to right, a1 = 1 turns upside down; a2 scales; a3 rotates, in radians; along the direction a4,
    in radians, a5 stretches; a6 and a7 shift. a0 and a1 are fair coins, a3 and a4 uniform on [-π, π], the rest N(0, 1).
    """
    uniform = torch.rand(n, 9, generator=generator, device=generator.device)
    normal = torch.randn(n, 4, generator=generator, device=generator.device)
    coins, angles = (uniform[:, :2] < 0.5).float(), math.pi * (2 * uniform[:, 2:4] - 1)
    values = torch.cat([coins, normal[:, :1], angles, normal[:, 1:]], dim=1)
    y_flip, scaling, rotation, stretching, shift = (uniform[:, 4:] < probability).unbind(1)
    on = [torch.ones_like(y_flip), y_flip, scaling, rotation, stretching, stretching, shift, shift]
    return torch.where(torch.stack(on, dim=1), values, 0.0)


def labels(parameters: Tensor) -> Tensor:
    """What the network is told, (B, 8) -> (B, 9): a0, a1, a2, cos a3 - 1, sin a3, a5 cos a4, a5 sin a4, a6, a7."""
    a0, a1, a2, a3, a4, a5, a6, a7 = parameters.unbind(1)
    return torch.stack([a0, a1, a2, a3.cos() - 1, a3.sin(), a5 * a4.cos(), a5 * a4.sin(), a6, a7], dim=1)


def matrices(parameters: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel comes from, (B, 2, 3): the inverse of scaling, rotation, stretching and shift, in this order.

    [L | o] sends p, a place in the result, to L p + o in the image; places are (x to the right, y down), in pixels from
    the centre. A positive a2 magnifies, a positive a3 turns counter-clockwise as seen (a3 = π/2 is `torch.rot90`),
    (cos a4, sin a4) is the direction in which a positive a5 lengthens, positive a6 and a7 shift right and down.
    Flips are not in it: `augment` has done them before.
    """
    a2, a3, a4, a5, a6, a7 = parameters[:, 2:].unbind(1)
    axis, shorter = _rotation(a4), torch.diag_embed(2.0 ** (SCALE * torch.stack([-a5, a5], dim=1)))
    linear = 2.0 ** (-SCALE * a2)[:, None, None] * _rotation(a3) @ axis @ shorter @ axis.mT
    shift = SHIFT * torch.stack([width * a6, height * a7], dim=1)
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)


def _rotation(angle: Tensor) -> Tensor:
    """(B,) -> (B, 2, 2): sends (1, 0) to (cos, sin), which is clockwise as seen when y points down."""
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).unflatten(1, (2, 2))


def resample(x: Tensor, maps: Tensor) -> Tensor:
    """The images x (B, C, H, W) after the transformations whose inverses are ``maps`` (B, 2, 3), as of `matrices`.

    Beyond its frame an image is mirrored, again and again, about the outer edge of its outer pixels, not about their
    centres (in the terms of `grid_sample`: "reflection" with align_corners=False).
    """
    height, width = x.shape[2:]
    batch = max(1, _FLOATS_AT_ONCE // (height * width * (height + width)))
    return torch.cat([_resample(*both) for both in zip(x.split(batch), maps.split(batch), strict=True)])


def _resample(x: Tensor, maps: Tensor) -> Tensor:
    linear, offset = maps.split([2, 1], dim=2)
    (places_y, omega_y, analysis_y), (places_x, omega_x, analysis_x) = (_cosines(size, x) for size in x.shape[2:])
    series = analysis_y @ x @ analysis_x.mT
    # cos u cos v is half of cos(u + v) plus half of cos(u - v); each is kept if the pixels can show it (Nyquist)
    plus, minus = (_visible(omega_x, sign * omega_y, linear)[:, None] for sign in (1, -1))
    places = torch.cartesian_prod(places_y, places_x).flip(1) @ linear.mT + offset.mT  # (B, H W, 2)
    u = (places[:, :, :1] + x.shape[3] / 2) * omega_x
    v = (places[:, :, 1:] + x.shape[2] / 2) * omega_y
    even = torch.einsum("bph,bchw,bpw->bcp", v.cos(), series * (plus + minus) / 2, u.cos())
    odd = torch.einsum("bph,bchw,bpw->bcp", v.sin(), series * (minus - plus) / 2, u.sin())
    return (even + odd).reshape(x.shape)


def _cosines(size: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``size`` pixels: places from the centre, radians per pixel, the matrix from values to amplitudes."""
    pixels = torch.arange(size, device=like.device, dtype=like.dtype)
    omega = math.pi / size * pixels
    waves = torch.outer(omega, pixels + 0.5).cos()
    return pixels + 0.5 - size / 2, omega, waves / waves.square().sum(1, keepdim=True)


def _visible(omega_x: Tensor, omega_y: Tensor, linear: Tensor) -> Tensor:
    """Which waves (B, H, W), 1.0 or 0.0, stay at or below π radians per pixel in both directions."""
    omega = torch.stack(torch.broadcast_tensors(omega_x, omega_y[:, None]), dim=-1)
    return (omega @ linear[:, None]).abs().amax(-1).le(math.pi).to(linear.dtype)
