"""Randomness is a function, not a state.

Every random number of the package is a function of ``(run seed, generation, stage)`` and, for samples, of the sample's
index. Nothing depends on batch size, device count, what ran before, or where an interrupted run was picked up again.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import overload

import numpy as np
import torch


@overload
def stage_seed(run_seed: int, generation: int, stage: str) -> int: ...
@overload
def stage_seed(run_seed: tuple[int, ...], generation: int, stage: str) -> tuple[int, ...]: ...


def stage_seed(run_seed, generation, stage):
    """The seed of one stage of one generation: 63 bits, so that it fits torch, NumPy and JSON alike.

    With a tuple of seeds, those of an ensemble's members, the tuple of theirs.
    Raises ValueError if ``run_seed`` or ``generation`` is negative.
    """
    if isinstance(run_seed, tuple):
        return tuple(stage_seed(seed, generation, stage) for seed in run_seed)
    if run_seed < 0 or generation < 0:
        raise ValueError(f"seed and generation must not be negative, got seed={run_seed}, generation={generation}")
    entropy = np.random.SeedSequence([run_seed, generation, zlib.crc32(stage.encode())])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int) -> np.random.Generator:
    """A NumPy generator of its own for ``seed`` (Philox, a counter-based generator)."""
    return np.random.Generator(np.random.Philox(seed))


@contextmanager
def torch_seed(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Inside, torch draws (weights, noise, dropout) from ``seed``; outside, its global state is as it was before."""
    device = torch.device(device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def reseed(seed: int, device: torch.device) -> None:
    """Sets the generator that torch draws from on ``device``; for use within `torch_seed`, which puts it back."""
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or torch.cuda.current_device()].manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def noise_by_index(seed: int, indices: range, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """Unit Gaussian noise (len(indices), *shape), whose row for index i depends on ``(seed, i)`` alone.

    Each index owns one of 2^64 disjoint blocks of the Philox counter, so any split of the indices into batches or over
    devices gives the same rows.
    """
    key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    noise = np.empty((len(indices), *shape), dtype=dtype)
    for row, index in zip(noise, indices, strict=True):
        bits = np.random.Philox(key=key, counter=np.array([0, 0, 0, index], dtype=np.uint64))
        row[...] = np.random.Generator(bits).standard_normal(shape, dtype=dtype)
    return noise
