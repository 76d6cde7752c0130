"""Shared pieces: a tiny EDM, a tiny real set, and the command line of a run in a process of its own."""

import json
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial, partialmethod
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from forked import Forked
from hypothesis import settings

matplotlib.use("Agg")
settings.register_profile("project", deadline=None, derandomize=True)  # no test waits on a clock, none is flaky
settings.load_profile("project")
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "iterative_retraining"
sys.path[:0] = [str(ROOT / "workflow"), str(ROOT / "benchmarks"), str(ROOT / "book" / "_ext")]

LONGEST = ["commands", "slurm", "book", "kills", "source", "rehearsal", "workflow", "team", "notebooks", "parameters"]
TINY_EDM = {"channels": 4, "attention_resolutions": [], "n_steps": 3, "batch_size": 32, "sampling_batch_size": 700}
QUICK = {model: {"n_steps": 3} for model in ("edm", "flow_matching", "ddpm")}  # options, by model
QUICK |= {"spline_flow": {"n_transforms": 1, "width": 8, "n_bins": 4, "n_layers": 1}}
TINY_RUN = {
    "n_real": 300,
    "n_images_initial": 640,
    "n_images_per_retraining": 320,
    "scheme": "fully_synthetic",
    "n_retrain": 3,
    "model_options": TINY_EDM,
}
GPU = pytest.param("cuda", marks=pytest.mark.gpu)  # of tests that are the same on both devices
DEVICES = ["cpu", GPU]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, with --no-loadscope-reorder: else others would wait for one of them at the end."""
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what is marked gpu where there is none, and says why."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        from iterative_retraining.devices import why_no_gpu

        pytest.skip(why_no_gpu() or "no GPU: nvidia-smi lists none")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _few_halvings() -> Iterator[None]:
    """Floors of three random halvings instead of twenty, where a test does not say how many: most of them look on."""
    from iterative_retraining.metrics import ImageMetrics
    from iterative_retraining.runs import shared_work

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageMetrics, "floor", partialmethod(ImageMetrics.floor, n_splits=3))
        patch.setattr(shared_work, "cached_numbers", lambda name, make: make())  # such floors are for no real run
        yield


@pytest.fixture(autouse=True, scope="session")
def _few_losses() -> Iterator[None]:
    """A model's own loss under one noise an image instead of 6000 evaluations, which would be most of a tiny run."""
    from iterative_retraining import experiment

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "losses_of", partial(experiment.losses_of, n_evaluations=1))
        yield


@pytest.fixture
def digits() -> np.ndarray:
    from iterative_retraining.datasets import load_dataset

    return load_dataset("digits")[0]


class Calls:
    """Pickles as a call of any function: what a hostile file holds."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def exact_velocity(target, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """E[data - noise | x] of flow matching at x (N, 2) and times t (N,), for a mixture of Gaussians: given its
    component all is Gaussian."""
    means, x, t = torch.tensor(target.means, dtype=torch.float64), x.double(), t.double().view(-1, 1)
    variance = (t * target.std) ** 2 + (1 - t) ** 2
    gaps = x[:, None] - t[:, :, None] * means
    shares = torch.softmax(-0.5 * (gaps**2).sum(dim=2) / variance, dim=1)
    each = means + ((t * target.std**2 - (1 - t)) / variance)[:, :, None] * gaps
    return (shares[:, :, None] * each).sum(dim=1)


def exit_of(script: Path, *arguments: str) -> int | str | None:
    """What a script exits with, run in this process as ``python script arguments`` would be in one of its own.

    Its status, or the line that Python then prints with status 1. Fails where it does not exit or raises another error.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *arguments])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
    return ended.value.code


def wait_for(process: subprocess.Popen | Forked, condition: Callable[[], bool]) -> None:
    """Until ``condition()`` holds or the process has ended; asks a hundred times a second, which costs it nothing."""
    while process.poll() is None and not condition():
        time.sleep(0.01)


def copy_of_project(folder: Path, profile: dict) -> Path:
    """What a sweep needs, copied into ``folder``, with ``profile`` as the profile `tiny`."""
    for name in ("notebooks", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    (folder / "profiles").mkdir()
    (folder / "profiles" / "tiny.yml").write_text(yaml.safe_dump(profile))
    return folder


def untimed(ledger: Path) -> list[dict]:
    """A ledger without its wall times and their seals: what has to be the same in every repetition."""
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("seconds_") and k != "content_sha256"} for row in rows]


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    """Changes a sealed JSON file as its writer would: ``change`` is handed its content and may change it in place."""
    from iterative_retraining.files import sealed

    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(sealed(content), indent=2) + "\n")


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six small runs of the Gaussian: two seeds, three arms."""
    from iterative_retraining.experiment import open_experiment

    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        for scheme, lam in (("fully_synthetic", 0.5), ("mix", 0.0), ("mix", 1.0)):
            run = folder / f"{scheme}-{lam}-{seed}"
            arguments = {"model": "gaussian", "scheme": scheme, "lam": lam, "seed": seed, "n_retrain": 2, "n_real": 300}
            for _ in open_experiment(run_dir=run, **arguments).records():
                pass
    return sorted(folder.iterdir())
