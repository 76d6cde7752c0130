"""What the members of an ensemble are trained on: one training set and one scheme for each of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from iterative_retraining.interfaces import Scheme
from iterative_retraining.training_set import TrainingSet

Seeds = tuple[int, ...]


@dataclass(frozen=True)
class MemberSets:
    """D_t of an ensemble: one training set of points (n, 2) for each member."""

    sets: tuple[TrainingSet, ...]

    @property
    def n_real(self) -> tuple[int, ...]:
        """By member."""
        return tuple(data.n_real for data in self.sets)

    @property
    def n_synthetic(self) -> tuple[int, ...]:
        """By member."""
        return tuple(data.n_synthetic for data in self.sets)


@dataclass(frozen=True)
class MemberSchemes:
    """The scheme of an ensemble: one for each member."""

    schemes: tuple[Scheme, ...]

    @property
    def history_length(self) -> int | None:
        """The longest."""
        lengths = [scheme.history_length for scheme in self.schemes]
        return None if None in lengths else max(lengths)

    def n_samples(self, n_real: int) -> int:
        """The most that any member needs."""
        return max(scheme.n_samples(n_real) for scheme in self.schemes)

    def check(self, n_real: int, n_retrain: int) -> None:
        """As each of them does."""
        for scheme in self.schemes:
            scheme.check(n_real, n_retrain)

    def initial_set(self, real: np.ndarray) -> MemberSets:
        """What theta_0 of each member is fitted to, from real data (n, M, 2)."""
        return MemberSets(tuple(scheme.initial_set(real[:, i]) for i, scheme in enumerate(self.schemes)))

    def training_set(self, real: np.ndarray, history: Sequence[np.ndarray], *, seed: Seeds) -> MemberSets:
        """D_t of each member, from real data (n, M, 2) and samples (n, M, 2)."""
        return MemberSets(
            tuple(
                scheme.training_set(real[:, i], _OfMember(history, i), seed=own)
                for i, (scheme, own) in enumerate(zip(self.schemes, seed, strict=True))
            )
        )


class _OfMember(Sequence):
    """The samples of one member, by generation."""

    def __init__(self, history: Sequence[np.ndarray], member: int) -> None:
        self.history, self.member = history, member

    def __len__(self) -> int:
        return len(self.history)

    def __getitem__(self, generation: int) -> np.ndarray:
        return self.history[generation][:, self.member]


def points_of(data: MemberSets | TrainingSet, n_members: int) -> list[Tensor]:
    """The points (N, 2) of each member, float32."""
    own = [d.array() for d in data.sets] if isinstance(data, MemberSets) else [*data.array().swapaxes(0, 1)]
    if len(own) != n_members:
        raise ValueError(f"{n_members} members need as many sets of data, got {len(own)}")
    return [torch.from_numpy(points).float() for points in own]


def item_weights_of(data: MemberSets | TrainingSet, n_members: int) -> list[Tensor] | None:
    """The weights (N,) of the points of each member, float32; None where no point has one."""
    sets = data.sets if isinstance(data, MemberSets) else (data,) * n_members
    if all(own.weights is None for own in sets):
        return None
    return [torch.from_numpy(own.item_weights(np.arange(len(own)))).float() for own in sets]
