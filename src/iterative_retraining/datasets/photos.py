"""Patches of the two colour photographs that ship inside scikit-learn: colour images without any file of the user's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from iterative_retraining.datasets.options import of_network

HEIGHT, WIDTH, N_PHOTOS = 427, 640, 2
TRAIN_WIDTH = 480  # pixels from the left; the rest is held out
OPTIONS = {  # our choices
    "channels": 32,
    "blocks_per_level": 1,
    "attention_resolutions": (8,),
    "dropout": 0.0,
    "augment_labels": 0,
    "norm_groups": 16,
    "ema_halflife_images": 50_000,
}


@dataclass(frozen=True)
class Photos:
    """All square patches of ``size`` pixels of a temple and of a flower, one every ``size`` / 4 pixels in both ways.

    The patches of the left three quarters are for training, those of the rest are held out; no pixel is in both.
    Labels: 0 for the temple, 1 for the flower. Neighbouring patches share most of their pixels, so they are far fewer
    independent images than their number says. The photographs are JPEGs: releases of the decoder may differ in the
    last bit.
    """

    size: int
    has_labels: ClassVar[bool] = True
    features: ClassVar[str] = "inception-clean"

    @property
    def name(self) -> str:
        """The name in the registry."""
        return f"photos{self.size}"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        return self.size, self.size, 3

    @property
    def counts(self) -> Mapping[str, int]:
        """The number of patches by split."""
        widths = {"train": TRAIN_WIDTH, "test": WIDTH - TRAIN_WIDTH}
        return {split: N_PHOTOS * self._places(HEIGHT) * self._places(width) for split, width in widths.items()}

    def _places(self, length: int) -> int:
        """How many patches begin along ``length`` pixels."""
        return (length - self.size) // (self.size // 4) + 1

    def load(self, split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `iterative_retraining.interfaces.Dataset`; data_dir is not used."""
        from sklearn.datasets import load_sample_images

        columns = slice(TRAIN_WIDTH) if split == "train" else slice(TRAIN_WIDTH, None)
        parts = np.stack(load_sample_images().images)[:, :, columns]
        windows = np.lib.stride_tricks.sliding_window_view(parts, (self.size, self.size), axis=(1, 2))
        every = self.size // 4
        patches = windows[:, ::every, ::every].transpose(0, 1, 2, 4, 5, 3).reshape(-1, *self.shape)
        return patches, np.repeat(np.arange(N_PHOTOS), len(patches) // N_PHOTOS)

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """See `iterative_retraining.interfaces.Dataset`."""
        multipliers = (1, 2, 2) if self.size == 32 else (1, 2, 2, 2)  # down to 8 x 8
        return OPTIONS | {"multipliers": multipliers} | of_network(network)


PHOTOS32 = Photos(32)
PHOTOS64 = Photos(64)
