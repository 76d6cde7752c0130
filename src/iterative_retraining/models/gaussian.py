"""The model of the Gaussian warm-up: fitted by maximum likelihood, its density exact."""

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np

from iterative_retraining.models.family import PlainFamily
from iterative_retraining.seeding import noise_by_index
from iterative_retraining.training_set import TrainingSet, to_uint8, to_unit


class Gaussian:
    """A multivariate Gaussian with the sample mean and the unbiased covariance (divisor N - 1).

    Where items have weights w, both are weighted and the divisor is sum w - sum w^2 / sum w: still unbiased for data of
    one distribution (reliability weights).
    Takes vectors (N, D) of floats, or uint8 images, which it treats as vectors of pixels in [-1, 1].
    """

    def __init__(self, mean: np.ndarray | None = None, cov: np.ndarray | None = None) -> None:
        self.mean = None if mean is None else np.asarray(mean, dtype=np.float64)
        self.cov = None if cov is None else np.asarray(cov, dtype=np.float64)
        self.item_shape = () if mean is None else self.mean.shape
        self.is_image = False

    def fit(self, data: TrainingSet, *, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> Self:
        """Sample mean and unbiased covariance. ``seed`` draws nothing: the estimate has no randomness of its own.

        Raises ValueError with fewer than two data of a weight above 0.
        """
        items, weights = data.array(), None if data.weights is None else data.item_weights(np.arange(len(data)))
        n_counted = len(items) if weights is None else np.count_nonzero(weights)
        if n_counted < 2:
            raise ValueError(f"a covariance needs at least 2 data, got {n_counted}")
        self.is_image, self.item_shape = items.dtype == np.uint8, items.shape[1:]
        x = (to_unit(items) if self.is_image else items).reshape(len(items), -1).astype(np.float64)
        self.mean = x.mean(axis=0) if weights is None else np.average(x, axis=0, weights=weights)
        self.cov = np.atleast_2d(np.cov(x, rowvar=False, aweights=weights))
        if progress is not None:
            progress(len(items), len(items))
        return self

    def sample(self, n: int, *, seed: int) -> np.ndarray:
        """``n`` items shaped and typed like the data; row i depends on ``(seed, i)`` and the parameters alone."""
        eigenvalues, vectors = np.linalg.eigh(self.cov)
        root = vectors * np.sqrt(eigenvalues.clip(min=0))
        x = self.mean + noise_by_index(seed, range(n), self.mean.shape, np.float64) @ root.T
        x = x.reshape(n, *self.item_shape)
        return to_uint8(x) if self.is_image else x

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """Log density in nats at ``x`` (N, D), float64 (N,). Raises ValueError if the covariance is singular.

        At uint8 images, that of their pixels in [-1, 1], each spread evenly over its level: the variance of that is
        added to the covariance, which so is never singular.
        """
        cov = self.cov
        if x.dtype == np.uint8:
            x, cov = to_unit(x).reshape(len(x), -1).astype(np.float64), cov + (2 / 255) ** 2 / 12 * np.eye(len(cov))
        try:
            factor = np.linalg.cholesky(cov)
        except np.linalg.LinAlgError as error:
            raise ValueError("the covariance is singular: this Gaussian has no density") from error
        z = np.linalg.solve(factor, (x - self.mean).T)
        log_det = 2 * np.log(np.diagonal(factor)).sum()
        return -0.5 * ((z**2).sum(axis=0) + log_det + self.mean.size * np.log(2 * np.pi))

    def state_bytes(self, item_shape: tuple[int, ...]) -> int:
        """The size of `state_dict` for items of ``item_shape``: mean and covariance, float64."""
        dim = int(np.prod(item_shape))
        return 8 * dim * (dim + 1)

    def state_dict(self) -> dict[str, np.ndarray]:
        """All that `sample` needs, as arrays."""
        shape, flag = np.array(self.item_shape, dtype=np.int64), np.array([self.is_image], dtype=np.uint8)
        return {"mean": self.mean, "cov": self.cov, "item_shape": shape, "is_image": flag}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state_dict`."""
        self.mean, self.cov = state["mean"], state["cov"]
        self.item_shape, self.is_image = tuple(int(n) for n in state["item_shape"]), bool(state["is_image"][0])


GAUSSIAN_FAMILY = PlainFamily("gaussian", "Gaussian", Gaussian, has_density=True)
