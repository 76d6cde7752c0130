"""The feature space of the digits: a small classifier trained on the real images, its weights kept with the package."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from iterative_retraining.data import to_unit
from iterative_retraining.seeding import generator, torch_seed

DIGITS_WEIGHTS = Path(__file__).parent / "weights" / "digits_classifier.safetensors"
N_FEATURES = 64


class Classifier(nn.Module):
    """Grey images (B, 1, 8, 8) in [-1, 1] -> class scores (B, 10); `features` gives the 64 numbers below them."""

    def __init__(self, n_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, N_FEATURES),
            nn.LayerNorm(N_FEATURES, elementwise_affine=False),  # bounded features: no outlier dominates FID
        )
        self.scores = nn.Linear(N_FEATURES, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(self.features(x))


def _tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(to_unit(images)).permute(0, 3, 1, 2).contiguous()


def train_classifier(
    images: np.ndarray, labels: np.ndarray, *, seed: int, n_epochs: int = 20, batch_size: int = 64
) -> Classifier:
    """A `Classifier` of uint8 images (N, 8, 8, 1) and labels (N,), by Adam under a cosine learning-rate schedule."""
    x, y, order = _tensor(images), torch.from_numpy(labels), generator(seed)
    with torch_seed(seed):
        net = Classifier()
        adam = torch.optim.Adam(net.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, n_epochs)
        for _ in range(n_epochs):
            for index in np.array_split(order.permutation(len(x)), len(x) // batch_size):
                loss = nn.functional.cross_entropy(net(x[index]), y[index])
                adam.zero_grad()
                loss.backward()
                adam.step()
            schedule.step()
    return net.eval()


@torch.inference_mode()
def accuracy(net: Classifier, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images (N, 8, 8, 1) whose highest score is that of their label."""
    return float((net(_tensor(images)).argmax(dim=1).numpy() == labels).mean())


class DigitsFeatures:
    """``features(images)``: uint8 (N, 8, 8, 1) -> float32 (N, 64), by the committed classifier."""

    name = "digits-classifier-64"

    def __init__(self, batch_size: int = 1024) -> None:
        self.batch_size = batch_size
        self.net = Classifier()
        if not DIGITS_WEIGHTS.is_file():
            raise FileNotFoundError(f"{DIGITS_WEIGHTS} is missing; run notebooks/00_digits_features.ipynb to make it")
        self.net.load_state_dict(load_file(DIGITS_WEIGHTS))
        self.net.eval()

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        if images.ndim != 4 or images.shape[1:] != (8, 8, 1) or images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 (N, 8, 8, 1), got {images.dtype} {images.shape}")
        batches = range(0, len(images), self.batch_size)
        return np.concatenate(
            [self.net.features(_tensor(images[start : start + self.batch_size])).numpy() for start in batches]
        )
