"""What the server of forks imports, see `forked`: a run is opened once, which reads sources and images."""

import tempfile
from functools import partial

import snakemake.cli  # noqa: F401
import torch

from iterative_retraining import experiment

from conftest import TINY_RUN

torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # imports much
experiment.losses_of = partial(experiment.losses_of, n_evaluations=1)  # as in conftest
with tempfile.TemporaryDirectory() as folder:
    experiment.open_experiment(run_dir=folder, device="cpu", **TINY_RUN).run.close()
