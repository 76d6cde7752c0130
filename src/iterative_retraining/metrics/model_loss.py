"""The loss of the model itself on held-out images: whether it still learns the distribution, or by now the images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from iterative_retraining.metrics.metric import Value

MODEL_VALUES = {
    "held_out_loss": Value("loss on held-out images", -1),
    "training_loss": Value("loss on training images", -1),
    "held_out_bits": Value("bits a dimension of held-out images", -1),
    "training_bits": Value("bits a dimension of training images", -1),
}
MOST_IMAGES = 2_000
N_EVALUATIONS = 6_000  # of the network, for each of the two sets


class HasLoss(Protocol):
    """A model with a loss, see `iterative_retraining.models.training.NetworkModel.loss`."""

    def loss(self, images: np.ndarray, *, seed: int, n_noises: int) -> Mapping[str, float]:
        """The mean loss on images (N, ...)."""


@dataclass(frozen=True)
class ModelLoss:
    """The loss of ``model``, as it is now, on held-out images ``test``, uint8 (K, H, W, C), and on as many of the
    training images: the first min(K, `MOST_IMAGES`) of each, under about ``n_evaluations`` noises that are always the
    same. held_out_loss rises where a model learns by heart; training_loss goes on falling.
    """

    model: HasLoss
    test: np.ndarray
    n_evaluations: int = N_EVALUATIONS

    def __call__(self, generated: np.ndarray, *, real: np.ndarray) -> dict[str, float]:
        """What generated images look like does not count."""
        n = min(len(self.test), len(real), MOST_IMAGES)
        asked = {"seed": 0, "n_noises": max(1, self.n_evaluations // n)}
        losses = {"held_out": self.model.loss(self.test[:n], **asked), "training": self.model.loss(real[:n], **asked)}
        return {f"{of}_{name}": value for of, found in losses.items() for name, value in found.items()}


def losses_of(model: object, test: np.ndarray | None, n_evaluations: int = N_EVALUATIONS) -> list[ModelLoss]:
    """The metric of a model that has a loss, where images are held out; else none."""
    return [ModelLoss(model, test, n_evaluations)] if test is not None and hasattr(model, "loss") else []
