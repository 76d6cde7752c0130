"""FFHQ-64: faces in colour, from a zip or a folder of PNGs, decoded once, then memory-mapped from the user's cache."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from iterative_retraining.datasets.options import of_augmentation, of_network
from iterative_retraining.datasets.pngs import look_at_pngs, read_pngs
from iterative_retraining.errors import DataError
from iterative_retraining.file_kinds import unfinished

N_IMAGES = 70_000
SIZE = 64
HOW = (
    "set data_dir to a zip of the PNGs, to their folder, or to a folder with that zip alone. The originals, of 1024 x "
    "1024 pixels, are at https://github.com/NVlabs/ffhq-dataset; dataset_tool.py of https://github.com/NVlabs/edm with "
    "--resolution=64x64 makes the zip of them; another resize filter gives another FID"
)

# As Karras et al. (2022) published it, where that differs from CIFAR-10; the steps are those of their sampler alone.
OPTIONS = {"multipliers": (1, 2, 2, 2), "dropout": 0.05, "learning_rate": 2e-4}
OF_EDM = {"n_steps": 40}
AUGMENT_PROBABILITY = 0.15


class FFHQImages:
    """70 000 faces of 64 x 64 pixels made of FFHQ (Karras et al. 2019), without labels and without a held-out split.

    data_dir: a zip of PNGs, a folder of PNGs with its subfolders, or a folder that holds one zip; other files, such as
    a dataset.json, are not looked at. The images are in the order of their names: the same from a zip and from its
    folder. The first call decodes (about a minute); the array is then kept in the cache and memory-mapped. It is made
    again when names, sizes or checksums in the zip change, or names, sizes or times of modification in the folder;
    where they lie does not matter.

    A PNG does not tell by which filter it was made smaller, and FID depends on it. The SHA-256 of the images in a run's
    manifest tells two filters apart, and a run does not go on with other images than it began with.
    """

    name = "ffhq64"
    shape = (SIZE, SIZE, 3)
    counts: Mapping[str, int] = MappingProxyType({"train": N_IMAGES})
    has_labels = False
    features = "inception-legacy_pytorch"  # as the authors' metric has it

    def load(self, split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `iterative_retraining.interfaces.Dataset`; the images are read-only. Raises DataError if files are
        missing, damaged, of another size or mode, or not 70 000."""
        images = read_pngs(_find(data_dir), self.name, N_IMAGES, SIZE, HOW)
        return images, np.zeros(len(images), dtype=np.int64)

    def look(self, data_dir: str | Path | None = None) -> None:
        """Whether `load` will find its files, in seconds. Raises DataError."""
        look_at_pngs(_find(data_dir), self.name, N_IMAGES, SIZE, HOW)

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """See `iterative_retraining.interfaces.Dataset`."""
        of_edm = OF_EDM | of_augmentation(network, AUGMENT_PROBABILITY) if model == "edm" else {}
        return OPTIONS | of_network(network) | of_edm


FFHQ64 = FFHQImages()


def _find(data_dir: str | Path | None) -> Path:
    """The zip, or the folder with PNGs."""
    if not data_dir:
        raise DataError(f"ffhq64 is looked for in data_dir, which is empty; {HOW}")
    path = Path(data_dir)
    if not path.exists():
        raise DataError(f"ffhq64 is looked for in {path}, which is not there{unfinished(path)}; {HOW}")
    if path.is_file() or next(path.rglob("*.png"), None):
        return path
    zips = sorted(path.glob("*.zip"))
    if len(zips) != 1:
        found = f"{len(zips)} zips: {', '.join(file.name for file in zips)}" if zips else "no zip"
        raise DataError(f"ffhq64 is looked for in {path}, which holds no PNG and {found}; {HOW}")
    return zips[0]
