"""Small classifiers of the real images, whose penultimate layer is a feature space; weights kept with the package."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from iterative_retraining.metrics.features.checks import check_images
from iterative_retraining.seeding import generator, torch_seed
from iterative_retraining.training_set import to_unit

N_FEATURES = 64
IMAGE_SIZES = {"digits": 8, "fashion_mnist": 28}
CHANNELS = {"digits": (16, 32), "fashion_mnist": (32, 64, 64, 64)}
N_CLASSES = 10


def weights_file(dataset: str) -> Path:
    """Where the committed weights of the classifier of ``dataset`` are."""
    return Path(__file__).parent / "weights" / f"{dataset}_classifier.safetensors"


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

    @classmethod
    def of(cls, dataset: str) -> "Classifier":
        """The architecture for a data set."""
        return cls(IMAGE_SIZES[dataset], CHANNELS[dataset])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.features(x))


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(to_unit(images)).permute(0, 3, 1, 2).contiguous()


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    dataset: str = "digits",
    seed: int,
    n_epochs: int = 20,
    batch_size: int = 64,
) -> Classifier:
    """A `Classifier` of uint8 images (N, S, S, 1) and labels (N,), by Adam under a cosine learning-rate schedule."""
    y, order = torch.from_numpy(labels), generator(seed)
    with torch_seed(seed):
        net = Classifier.of(dataset)
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
    """``features(images)``: uint8 (N, S, S, 1) -> float32 (N, 64), by the committed classifier of ``dataset``.

    Raises FileNotFoundError, naming the notebook that makes them, if the weights are missing.
    """

    n_classes = N_CLASSES

    def __init__(self, dataset: str = "digits", *, batch_size: int = 1024, device: str = "cpu") -> None:
        self.name = f"{dataset.replace('_', '-')}-classifier-{N_FEATURES}"
        self.size, self.batch_size, self.device = IMAGE_SIZES[dataset], batch_size, device
        file = weights_file(dataset)
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; make it: notebooks/00_features.ipynb, dataset = '{dataset}'")
        self.net = Classifier.of(dataset)
        self.net.load_state_dict(load_file(file))
        self.net.eval().to(device)

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        check_images(images, (self.size, self.size, 1))
        batches = range(0, len(images), self.batch_size)
        parts = [_tensor(images[start : start + self.batch_size]).to(self.device) for start in batches]
        return np.concatenate([self.net.features(part).cpu().numpy() for part in parts])

    @torch.inference_mode()
    def classes(self, features: np.ndarray) -> np.ndarray:
        """The predicted class of each image by its features (N, 64), (N,)."""
        return self.net.scores(torch.from_numpy(features).to(self.device)).argmax(dim=1).cpu().numpy()
