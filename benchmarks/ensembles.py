"""Forty small diffusion models in the plane: one batched computation against the same runs one after another.

    python benchmarks/ensembles.py

Peer: a plain loop, one network (nn.Sequential) and one torch Adam a run, same sizes, batches, loss and moving average.
It is timed on a few runs and scaled to all, which is exact for runs that cost the same.
"""

import argparse
import itertools
import time
from functools import partial
from statistics import median

import torch
from torch import nn

from iterative_retraining.studies.toy2d.distributions import DISTRIBUTIONS
from iterative_retraining.studies.toy2d.ensembles import Ensemble, EnsembleConfig, MemberSets
from iterative_retraining.studies.toy2d.members import N_FREQUENCIES, PLANE_FAMILIES, ProcessMembers
from iterative_retraining.training_set import TrainingSet

MEMBERS, STEPS, PEER_RUNS = 40, 150, 4


class PlainNetwork(nn.Module):
    """The network of an ensemble's member as plain modules."""

    def __init__(self, members: ProcessMembers) -> None:
        super().__init__()
        sizes = [2 + 2 * N_FREQUENCIES, *[members.width] * members.n_layers]
        layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(members.width, 2))

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        angles = level[:, None] * (2.0 ** torch.arange(N_FREQUENCIES) / 2)
        return self.layers(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def plain_run(config: EnsembleConfig, data: torch.Tensor, n_points: int) -> None:
    """One run trained by a plain loop."""
    net = PlainNetwork(config.members)
    ema = [p.detach().clone() for p in net.parameters()]
    adam = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    for _ in range(n_points // config.batch_size):
        x = data[torch.randint(len(data), (config.batch_size,))]
        errors = config.members.process.loss_terms(net, x, torch.randn(len(x)), torch.randn_like(x))
        loss = errors.mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        for average, p in zip(ema, net.parameters(), strict=True):
            average.lerp_(p.detach(), 0.01)


def seconds(function, *arguments) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(2)
    x = DISTRIBUTIONS["eight_gaussians"].sample(1000, seed=0)
    print(f"{MEMBERS} members, {STEPS} steps, {torch.get_num_threads()} threads, 3 rounds, alternating")
    print("| batch | one after another, s | batched, s | ratio: median (min to max) |\n|---|---|---|---|")
    for batch in (64, 256):
        config = EnsembleConfig(PLANE_FAMILIES["edm"], batch_size=batch, n_points_initial=batch * STEPS)
        data, seeds = MemberSets((TrainingSet.of(x),) * MEMBERS), tuple(range(MEMBERS))
        points, pairs = torch.from_numpy(x).float(), []
        for _ in range(3):
            plain = sum(seconds(plain_run, config, points, batch * STEPS) for _ in range(PEER_RUNS))
            batched = seconds(partial(Ensemble(config, MEMBERS).fit, data, seed=seeds))
            pairs.append((plain * MEMBERS / PEER_RUNS, batched))
        ratios = [plain / batched for plain, batched in pairs]
        slow, fast = (median(column) for column in zip(*pairs, strict=True))
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {batch} | {slow:.1f} | {fast:.1f} | {spread} |")
