"""Digits: small grey images of handwritten digits, which ship inside scikit-learn."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from iterative_retraining.datasets.options import of_network

SPLIT_SEED = 0
# Our choices; the budgets are parameters of a run, not part of this.
OPTIONS = {
    "channels": 16,
    "multipliers": (1, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (4,),
    "dropout": 0.13,  # that of CIFAR-10 (Karras et al. 2022): without it the network soon knows the 1 500 by heart
    "augment_labels": 0,
    "norm_groups": 16,
    "ema_halflife_images": 5_000,
}
# The samplers with the fewest evaluations that keep the standard deviation of Gaussian data within 0.5 % in one pass,
# along all eigenvectors of the digits' covariance that grey levels resolve, of DDPM those with a standard deviation of
# 0.05 and more: its lowest level is not fine enough for the last one (`models.gain`, benchmarks/solvers.py).
SAMPLERS: dict[str, dict[str, Any]] = {
    "edm": {"solver": "dpmpp_3m", "n_steps": 30, "rho": 10.0},
    "flow_matching": {"solver": "dpmpp_3m", "spacing": "karras", "n_steps": 30, "rho": 10.0},
    "ddpm": {"solver": "dpmpp_3m", "spacing": "quadratic_0.8", "n_steps": 28},
}
OF_ADM = {"channels": 32}  # its norms have 32 groups


class Digits:
    """The 1 797 grey images of 8 x 8 pixels of UCI's "optical recognition of handwritten digits" that scikit-learn has.

    Grey levels 0..16 become 0..255. The split is ours, see `held_out_rows`; both parts keep scikit-learn's order.
    """

    name = "digits"
    shape = (8, 8, 1)
    counts: Mapping[str, int] = MappingProxyType({"train": 1500, "test": 297})
    has_labels = True
    features = "digits"

    def load(self, split: str, data_dir: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `iterative_retraining.interfaces.Dataset`; data_dir is not used."""
        from sklearn.datasets import load_digits

        found = load_digits()
        images = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        labels = found.target.astype(np.int64)
        held_out = np.isin(np.arange(len(labels)), held_out_rows(labels, self.counts["test"]))
        rows = held_out if split == "test" else ~held_out
        return images[rows], labels[rows]

    def options(self, model: str, network: str) -> Mapping[str, Any]:
        """See `iterative_retraining.interfaces.Dataset`."""
        return OPTIONS | SAMPLERS.get(model, {}) | (OF_ADM if network == "adm" else {}) | of_network(network)


DIGITS = Digits()


def held_out_rows(labels: np.ndarray, n: int) -> np.ndarray:
    """The rows of the ``n`` held-out images, rising: of each class its share of ``n``, the largest remainders up.

    Which of a class is decided by the SHA-256 of "SPLIT_SEED row", least first: a rule that no release of a library
    changes.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    quotas, remainders = sizes * n // len(labels), sizes * n % len(labels)
    quotas[np.argsort(-remainders, kind="stable")[: n - quotas.sum()]] += 1
    by_hash = sorted(range(len(labels)), key=lambda row: hashlib.sha256(f"{SPLIT_SEED} {row}".encode()).digest())
    chosen = [[row for row in by_hash if labels[row] == c][:k] for c, k in zip(classes, quotas, strict=True)]
    return np.sort(np.concatenate(chosen).astype(np.int64))
