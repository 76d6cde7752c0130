"""Ways in which a generator can go wrong, made from real images: what to try a metric on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from iterative_retraining.metrics import FeatureMetrics
from iterative_retraining.metrics.features.classifiers import ClassifierFeatures
from iterative_retraining.seeding import generator, stage_seed

N_FEW = 60


def spoil_by_noise(images: np.ndarray, strength: float, *, seed: int) -> np.ndarray:
    """uint8 images plus Gaussian noise of ``strength`` grey levels, clipped."""
    noisy = images + strength * generator(seed).normal(size=images.shape)
    return np.rint(np.clip(noisy, 0, 255)).astype(np.uint8)


def collapse_cases(fresh: np.ndarray, labels: np.ndarray, train: np.ndarray, *, seed: int) -> dict[str, np.ndarray]:
    """Imitations of generators, by name, as uint8 images (N, H, W, C); every case but "few samples" has N = len(fresh).

    fresh, labels: real images that the training set does not hold, and their classes; train: the training set.
    real: fresh ones; shift: one pixel to the right; dropped modes: the lower half of the classes alone, repeated;
    shrunken: every image half-way to the mean of its class; noise: of 60 grey levels; copies: of training images;
    near copies: those with noise of 3 grey levels; one image: repeated; few samples: 60 of them.
    """
    rng, n = generator(seed), len(fresh)
    kept = np.flatnonzero(labels < (labels.max() + 1) / 2)
    means = np.stack(
        [fresh[labels == c].mean(axis=0) if (labels == c).any() else fresh[0] for c in range(labels.max() + 1)]
    )
    copies = train[rng.permutation(len(train))[np.arange(n) % len(train)]]
    return {
        "real": fresh,
        "shift": np.roll(fresh, 1, axis=2),
        "dropped modes": fresh[kept[np.arange(n) % len(kept)]],
        "shrunken": np.rint((fresh + means[labels]) / 2).astype(np.uint8),
        "noise": spoil_by_noise(fresh, 60.0, seed=seed),
        "copies": copies,
        "near copies": spoil_by_noise(copies, 3.0, seed=seed),
        "one image": np.repeat(fresh[:1], n, axis=0),
        "few samples": fresh[:N_FEW],
    }


def noise_cases(
    fresh: np.ndarray,
    labels: np.ndarray,
    train: np.ndarray,
    *,
    seed: int,
    strengths: Sequence[float] = (0, 10, 20, 40, 60, 90, 120),
) -> dict[float, np.ndarray]:
    """Fresh real images under more and more noise, by its strength in grey levels; labels and train are not used."""
    return {strength: spoil_by_noise(fresh, strength, seed=seed) for strength in strengths}


def measure_cases(
    images: np.ndarray,
    labels: np.ndarray,
    features: ClassifierFeatures,
    cases: Callable[..., Mapping],
    *,
    seed: int,
    n_splits: int,
) -> list[dict[str, Any]]:
    """Every metric of every case, one row {case, split, name: value, ...} each.

    In each of ``n_splits`` random splits a third of the real images is the training set, a third the held-out set of
    FLD, and of the last third ``cases(fresh, labels, train, seed=...)`` makes the sets to measure.
    """
    rows = []
    for split in range(n_splits):
        split_seed = stage_seed(seed, split, "cases")
        train, test, rest = np.array_split(generator(split_seed).permutation(len(images)), 3)
        against = FeatureMetrics(features(images[train]), features(images[test]), classifier=features)
        for case, generated in cases(images[rest], labels[rest], images[train], seed=split_seed).items():
            rows.append({"case": case, "split": split, **against(features(generated))})
    return rows


def verdicts(
    rows: Sequence[Mapping[str, Any]], metrics: Mapping[str, int], reference: str = "real"
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """What each metric says of each case: names of the cases (C,), mean values (C, M), and scores (C, M).

    metrics: by name, +1 where higher is better and -1 where lower is. A score is the difference of the means of the
    case and of ``reference``, in standard deviations of the reference over splits; positive: it reads as better.
    """
    cases = list(dict.fromkeys(row["case"] for row in rows))
    values = np.array([[[r[m] for r in rows if r["case"] == case] for m in metrics] for case in cases])
    own = values[cases.index(reference)]
    gaps = (values.mean(axis=2) - own.mean(axis=1)) * np.array(list(metrics.values()))
    spread = own.std(axis=1, ddof=1)
    scores = np.divide(gaps, spread, out=np.copysign(np.inf, gaps), where=spread > 0)
    return cases, values.mean(axis=2), np.where(gaps == 0, 0.0, scores)
