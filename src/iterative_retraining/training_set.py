"""Images as arrays: the training set of a generation, and the one place where pixels are scaled."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np


def to_unit(images):
    """uint8 images in any layout, an array or a tensor, to float32 in [-1, 1]; the inverse of `to_uint8`."""
    if str(images.dtype).removeprefix("torch.") != "uint8":
        raise TypeError(f"images must be uint8, got {images.dtype}")
    values = images.astype(np.float32) if isinstance(images, np.ndarray) else images.float()
    return values * (1 / 127.5) - 1.0  # in float32 both


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Numbers in [-1, 1] to uint8 images of the same layout, rounded to nearest; what lies outside is clipped."""
    if not np.isfinite(x).all():
        raise FloatingPointError("cannot turn non-finite values into images")
    return np.rint(np.clip(x, -1, 1) * 127.5 + 127.5).astype(np.uint8)


@dataclass(frozen=True)
class TrainingSet:
    """D_t, by index: ``rows[p]`` are the rows taken of ``parts[p]``. The arrays themselves are never copied whole.

    parts : arrays (N_p, ...) of one item shape and dtype, the real data first (possibly memory-mapped)
    rows : integer arrays (n_p,), one per part
    weights : what an item of each part counts relative to one of the others; None if all count the same

    Raises ValueError for parts that do not belong together, for no items and for weights that are not allowed.
    """

    parts: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]
    weights: tuple[float, ...] | None = None

    @classmethod
    def of(cls, array: np.ndarray) -> Self:
        """All items of one array."""
        return cls((array,), (np.arange(len(array)),))

    def __post_init__(self) -> None:
        if len({(part.shape[1:], part.dtype) for part in self.parts}) != 1:
            raise ValueError(f"parts differ in shape or dtype: {[(p.shape[1:], p.dtype) for p in self.parts]}")
        if len(self) == 0:
            raise ValueError("an empty training set: no rows of any part were selected")
        if self.weights is not None:
            self._check_weights()

    def _check_weights(self) -> None:
        if len(self.weights) != len(self.parts):
            raise ValueError(f"weights = {self.weights} are not allowed: {len(self.parts)} parts need one each")
        if not all(math.isfinite(w) and w >= 0 for w in self.weights) or self._total_weight() <= 0:
            raise ValueError(
                f"weights = {self.weights} are not allowed: finite numbers >= 0, above 0 for a part that has rows"
            )

    def _total_weight(self) -> float:
        return sum(w * len(rows) for w, rows in zip(self.weights, self.rows, strict=True))

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows)

    @property
    def n_real(self) -> int:
        """The size of the first part."""
        return len(self.rows[0])

    @property
    def n_synthetic(self) -> int:
        """The size of all other parts."""
        return len(self) - self.n_real

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """The items at the integer positions ``index`` (B,), as one array (B, ...)."""
        out = np.empty((len(index), *self.parts[0].shape[1:]), dtype=self.parts[0].dtype)
        start = 0
        for part, rows in zip(self.parts, self.rows, strict=True):
            here = (index >= start) & (index < start + len(rows))
            out[here] = part[rows[index[here] - start]]
            start += len(rows)
        return out

    def item_weights(self, index: np.ndarray) -> np.ndarray:
        """The weights of the items at the positions ``index`` (B,), float64 (B,): 1 on average over the whole set."""
        if self.weights is None:
            return np.ones(len(index))
        part = np.searchsorted(np.cumsum([len(rows) for rows in self.rows]), index, side="right")
        return np.array(self.weights)[part] * (len(self) / self._total_weight())

    def array(self) -> np.ndarray:
        """All items, copied into one array (N, ...): for models that need every datum at once."""
        return self[np.arange(len(self))]
