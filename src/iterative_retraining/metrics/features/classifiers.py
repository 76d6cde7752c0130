"""Small classifiers of real images, whose penultimate layer is a feature space; weights kept with the package."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from iterative_retraining.errors import WeightsError
from iterative_retraining.metrics.features.checks import check_images
from iterative_retraining.seeding import generator, torch_seed
from iterative_retraining.training_set import to_unit

N_FEATURES = 64
N_CLASSES = 10


class Classifier(nn.Module):
    """Grey images (B, 1, S, S) in [-1, 1] -> class scores (B, 10); `features` gives the 64 numbers below them.

    channels: of the convolutions, the first at full size, each further one halving it.
    """

    def __init__(self, size: int, channels: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((1, *channels), channels, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2 if layers else 1, padding=1), nn.SiLU()]
        for _ in channels[1:]:
            size = (size + 1) // 2
        self.features = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(channels[-1] * size * size, N_FEATURES),
            nn.LayerNorm(N_FEATURES, elementwise_affine=False),  # bounded features: no outlier dominates FID
        )
        self.scores = nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.features(x))


@dataclass(frozen=True)
class ClassifierSpace:
    """The feature space of a classifier of the data set ``name``; notebooks/00_features makes its weights.

    shape: (S, S, 1) of the images. channels: see `Classifier`. n_epochs: of the training.
    """

    name: str
    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    n_epochs: int
    needs_weights: ClassVar[bool] = False

    @property
    def file(self) -> Path:
        """Where the committed weights are."""
        return Path(__file__).parent / "weights" / f"{self.name}_classifier.safetensors"

    def network(self) -> Classifier:
        """The classifier with random weights."""
        return Classifier(self.shape[0], self.channels)

    def build(self, weights: str | Path = "", device: str = "cpu") -> "ClassifierFeatures":
        """See `iterative_retraining.metrics.features.checks.FeatureEntry`."""
        return ClassifierFeatures(self, device=device)


DIGITS = ClassifierSpace("digits", (8, 8, 1), (16, 32), n_epochs=20)
FASHION_MNIST = ClassifierSpace("fashion_mnist", (28, 28, 1), (32, 64, 64, 64), n_epochs=6)
FASHION_MNIST14 = ClassifierSpace("fashion_mnist14", (14, 14, 1), (32, 48, 48), n_epochs=6)


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(to_unit(images)).permute(0, 3, 1, 2).contiguous()


def train_classifier(
    space: ClassifierSpace,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    n_epochs: int = 0,
    batch_size: int = 64,
) -> Classifier:
    """A `Classifier` of uint8 images (N, S, S, 1) and labels (N,), by Adam under a cosine learning-rate schedule.

    n_epochs: 0 for those of ``space``.
    """
    y, order, n_epochs = torch.from_numpy(labels), generator(seed), n_epochs or space.n_epochs
    with torch_seed(seed):
        net = space.network()
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, n_epochs)
        for _ in range(n_epochs):
            for index in np.array_split(order.permutation(len(images)), len(images) // batch_size):
                loss = nn.functional.cross_entropy(net(_tensor(images[index])), y[index])
                adam.zero_grad()
                loss.backward()
                adam.step()
            schedule.step()
    return net.eval()


@torch.inference_mode()
def accuracy(net: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images (N, S, S, 1) whose highest score is that of their label."""
    scores = [net(_tensor(images[start : start + 4096])) for start in range(0, len(images), 4096)]
    return float((torch.cat(scores).argmax(dim=1).numpy() == labels).mean())


class ClassifierFeatures:
    """``features(images)``: uint8 (N, S, S, 1) -> float32 (N, 64), by the committed classifier of ``space``.

    Raises WeightsError, naming the notebook that makes them, if the weights are missing or damaged.
    """

    n_classes = N_CLASSES

    def __init__(self, space: ClassifierSpace, *, batch_size: int = 1024, device: str = "cpu") -> None:
        self.name = f"{space.name.replace('_', '-')}-classifier-{N_FEATURES}"
        self.shape, self.batch_size, self.device = space.shape, batch_size, device
        self.net = space.network()
        try:
            self.net.load_state_dict(load_file(space.file))
        except (OSError, SafetensorError, RuntimeError) as error:
            why = "cannot be read" if space.file.is_file() else "is missing"
            how = f"take it from the repository, or make it: notebooks/00_features.ipynb, dataset = {space.name!r}"
            first = str(error).partition("\n")[0]  # torch lists every tensor
            raise WeightsError(f"{space.file} {why} ({first}); {how}") from error
        self.net.eval().to(device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        check_images(images, self.shape)
        batches = range(0, len(images), self.batch_size)
        parts = [_tensor(images[start : start + self.batch_size]).to(self.device) for start in batches]
        return np.concatenate([self.net.features(part).cpu().numpy() for part in parts])

    @torch.inference_mode()
    def classes(self, features: np.ndarray) -> np.ndarray:
        """The predicted class of each image by its features (N, 64), (N,)."""
        return self.net.scores(torch.from_numpy(features).to(self.device)).argmax(dim=1).cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """The probability of each class by features (N, 64), float32 (N, 10)."""
        return self.net.scores(torch.from_numpy(features).to(self.device)).softmax(dim=1).cpu().numpy()
