"""Feature Likelihood Divergence (Jiralerspong et al. 2023, arXiv 2302.04440), written from its definition."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.metrics.metric import FeatureMetric, Value
from iterative_retraining.metrics.pairs import TILE, Rows, check_features, mean, squared_distances, tiles
from iterative_retraining.metrics.reference import Reference
from iterative_retraining.metrics.values import Values
from iterative_retraining.seeding import generator

LOG_VARIANCE_RANGE = (-40.0, 20.0)  # bounds of the published implementation: a copy would have variance 0
NEARNESS = 1e-3  # added to the nearest squared distance in the starting variances, as published
BACKGROUND_SHRINK = 0.9**2  # of squared distances to the training mean, as published
KEPT_PAIRS = 2**25  # distances kept in memory between iterations (256 MB); beyond, they are computed again


@dataclass(frozen=True)
class FeatureMixture:
    """Isotropic Gaussians of equal weight: ``centres`` (M, D) and ``log_variances`` (M,), float64 on one device."""

    centres: Tensor
    log_variances: Tensor

    def log_prob(self, x: Rows) -> Tensor:
        """Log-density of x (N, D) per dimension, (N,)."""
        found = [self.terms(block).logsumexp(dim=1) for _, block in _distance_blocks(x, self.centres)]
        return torch.cat(found) / self.centres.shape[1]

    def terms(self, squared: Tensor) -> Tensor:
        """Weight times density of every Gaussian, as logarithms, at squared distances (N, M), (N, M)."""
        return _log_normal(squared, self.log_variances, self.centres.shape[1]) - math.log(len(self.centres))


def _log_normal(squared: Tensor, log_variance: Tensor, dim: int) -> Tensor:
    """Log-density of isotropic normals at squared distances (N, M) from their centres."""
    return -0.5 * (squared * (-log_variance).exp() + dim * (log_variance + math.log(2 * math.pi)))


def _distance_blocks(x: Rows, centres: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The squared distances of x (N, D) to centres (M, D), a block of rows at a time: (rows, block)."""
    for rows in tiles(len(x), max(1, TILE**2 // len(centres))):
        yield rows, squared_distances(x[rows], centres)


def _nearest(x: Rows, centres: Tensor) -> Tensor:
    """The squared distance of every centre (M, D) to the nearest row of x, (M,)."""
    return torch.stack([block.min(dim=0).values for _, block in _distance_blocks(x, centres)]).min(dim=0).values


def fit_mixture(centres: Tensor, data: Rows, *, n_iterations: int = 100, tolerance: float = 1e-5) -> FeatureMixture:
    """The mixture on ``centres`` (M, D) whose variances maximise the likelihood of ``data`` (N, D), by EM.

    Starts at (nearest squared distance + 1e-3) / D. During the fit a further component at the mean of the data, with a
    variance of its own, takes what no centre explains, as in the published implementation (which climbs by Adam).
    Stops when the mean log-likelihood per dimension gains less than ``tolerance``.
    """
    (n, dim), count = data.features.shape, len(centres)
    middle = sum(data[rows].sum(dim=0) for rows in tiles(n)) / n

    background = torch.cat([(data[rows] - middle).square().sum(dim=1, keepdim=True) for rows in tiles(n)])
    background *= BACKGROUND_SHRINK

    def blocks() -> Iterator[Tensor]:  # the last column: the background
        for rows, block in _distance_blocks(data, centres):
            yield torch.cat([block, background[rows]], dim=1)

    kept = list(blocks()) if n * count <= KEPT_PAIRS else None
    log_variances = centres.new_zeros(count + 1)
    log_variances[:-1] = ((_nearest(data, centres) + NEARNESS) / dim).log()
    log_weights = torch.full_like(log_variances, -math.log(count))
    log_weights[-1] = 0.0
    previous = -math.inf
    for _ in range(n_iterations):
        weights, moments, total = torch.zeros_like(log_variances), torch.zeros_like(log_variances), 0.0
        for squared in kept or blocks():
            terms = _log_normal(squared, log_variances, dim).add_(log_weights)
            log_likelihood = terms.logsumexp(dim=1, keepdim=True)
            shares = terms.sub_(log_likelihood).exp_()
            weights += shares.sum(dim=0)
            moments += shares.mul_(squared).sum(dim=0)
            total += log_likelihood.sum().item()
        fitted = (moments / (dim * weights)).log()
        log_variances = torch.where(weights > 0, fitted, log_variances).clamp_(*LOG_VARIANCE_RANGE)
        gain, previous = total / (n * dim) - previous, total / (n * dim)
        if gain < tolerance:
            break
    return FeatureMixture(centres, log_variances[:-1])


def _normalised(device: str, test: np.ndarray, *others: np.ndarray) -> list[Rows]:
    """All sets shifted and scaled so that each dimension of ``test`` has mean 0 and variance 1; test first.

    Raises ValueError if a dimension of the test features is constant.
    """
    if len(test) < 2:
        raise ValueError(f"test must hold at least 2 images, got {len(test)}")
    centre = mean(test)
    variance = sum(np.square(test[rows] - centre).sum(axis=0) for rows in tiles(len(test))) / (len(test) - 1)
    if (variance == 0).any():
        raise ValueError(f"dimension {int(np.argmin(variance))} of the test features is constant: no scale for it")
    return [Rows(x, centre, device, np.sqrt(variance)) for x in (test, *others)]


@dataclass(frozen=True)
class FLD(FeatureMetric):
    """Feature Likelihood Divergence (Jiralerspong et al. 2023, arXiv 2302.04440) of features (N, D) against training
    data ``real`` (M, D) and held-out ``test`` data (K, D).

    A mixture of Gaussians stands on (at most ``max_generated``) generated points, its variances fitted to the training
    points; its negative log-likelihood of the test points, per dimension, times 100, less that of a mixture on half of
    the training points fitted to the other half. About 0 for a perfect model, larger for poor, narrow or copying ones:
    copies of training points get variances near 0 and say nothing of the test points, so the value has no upper bound.
    fld_gap: train less test value; the more negative, the more memorised. Values agree with the authors' implementation
    to about two points near zero, which is its own scatter, and less far from it, where the optimisers part.
    ``about`` has n_centres, the generated points used. Raises ValueError for sets of fewer than 4 points.
    """

    max_generated: int = 10_000
    seed: int = 0

    name: ClassVar = "fld"
    values: ClassVar = {
        "fld": Value("FLD", -1, ("noise", "collapse", "copies")),
        "fld_gap": Value("FLD gap", +1, ("copies",)),
    }
    needs: ClassVar = frozenset({"test"})

    def measure(self, generated: np.ndarray, reference: Reference) -> Values:
        """See `FeatureMetric.measure`."""
        real, test = reference.real, reference.test
        for name, x in (("real", real), ("generated", generated)):
            if len(x) < 4:
                raise ValueError(f"fld needs at least 4 images in {name}, got {len(x)}")
        rng = generator(self.seed)
        points = generated[np.sort(rng.permutation(len(generated))[: self.max_generated])]
        order, half = rng.permutation(len(real)), min(len(points), len(real) // 2)
        held_out, train, centres, first, second = _normalised(
            reference.device, test, real, points, real[order[:half]], real[order[half:]]
        )
        mixture = fit_mixture(centres[:], train)
        nll, nll_train = (-mixture.log_prob(x).mean().item() for x in (held_out, train))
        baseline = reference.once(  # the order of the real points is drawn after that of the generated ones
            ("fld", self.seed, len(generated), half),
            lambda: -fit_mixture(first[:], second).log_prob(held_out).mean().item(),
        )
        found = {"fld": 100 * (nll - baseline), "fld_gap": 100 * (nll_train - nll)}
        counts = {"n_generated": len(generated), "n_centres": len(points), "n_real": len(real), "n_test": len(test)}
        return Values(found, **counts, baseline_nll=baseline)


def sample_quality(generated: np.ndarray, *, real: np.ndarray, test: np.ndarray, device: str = "cpu") -> np.ndarray:
    """The quality score of every generated point (N,): its log-density per dimension under a mixture on ``test``, whose
    variances are fitted to ``real``.

    Higher is better. It is the density of held-out data, so a filter that uses it must not be judged on the same data.
    """
    check_features(generated=generated, real=real, test=test)
    held_out, train, points = _normalised(device, test, real, generated)
    return fit_mixture(held_out[:], train).log_prob(points).cpu().numpy()


def sample_memorisation(
    generated: np.ndarray, *, real: np.ndarray, test: np.ndarray, device: str = "cpu"
) -> np.ndarray:
    """The memorisation score of every generated point (N,): the highest log-density per dimension that its own fitted
    Gaussian gives to a training point of ``real``. Higher: more likely a copy."""
    check_features(generated=generated, real=real, test=test)
    _, train, points = _normalised(device, test, real, generated)
    mixture, dim = fit_mixture(points[:], train), real.shape[1]
    return (_log_normal(_nearest(train, mixture.centres), mixture.log_variances, dim) / dim).cpu().numpy()
