"""Whether a profile can start here: files, disk, memory, driver and PyTorch, looked at in seconds, nothing computed."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS
from iterative_retraining.devices import listed_gpus, why_no_gpu
from iterative_retraining.errors import ConfigError, UserError
from iterative_retraining.metrics.features import build_features
from iterative_retraining.models.pretrained import diffusers_weights, state_that_fits
from iterative_retraining.runs.origin import init_identity

from cards import find_card
from profiles import PlannedRun, Profile

Found = tuple[bool, str]  # whether it is as it should be, and words for it
DEFAULT_MB = 4000  # of memory, as in the Snakefile


def check(profile: Profile, disk: int, device: str) -> str:
    """Words for all that was looked at. disk: the bytes that the runs left to do will keep.

    device: the name of a card that has to be here, or "". Raises ConfigError that names all that is missing at once.
    """
    found = [*_files(profile.runs.values()), *_machine(profile, disk), *_gpu(device)]
    lines = "\n".join(f"- {'' if good else 'MISSING: '}{words}" for good, words in found)
    if not all(good for good, _ in found):
        n = sum(not good for good, _ in found)
        raise ConfigError(f"{profile.name} cannot start here: {n} of {len(found)} things are missing\n{lines}")
    return f"## {profile.name} can start here\n\n{lines}"


def _files(runs: Iterable[PlannedRun]) -> Iterator[Found]:
    """Data, weights and feature networks of all runs, each looked at once."""
    looks: dict[tuple[str, str], Callable[[], object]] = {}
    for run in runs:
        given, config = run.parameters, run.config
        data_dir, init = given.get("data_dir", ""), given.get("init", "")
        name, weights = given.get("features", "auto"), given.get("features_weights", "")
        looks[f"data: {config.dataset} in {data_dir or 'its library'}", ""] = partial(_look, config.dataset, data_dir)
        features = partial(build_features, name, config.dataset, weights=weights)
        looks.setdefault((f"features: {name} {weights}".strip(), config.dataset), features)
        if init:
            key = f"weights: {init}", json.dumps(config.identity()["options"])
            looks.setdefault(key, partial(_look_at_weights, init, config))
    for words, problem in dict.fromkeys((words, _said(call)) for (words, _), call in looks.items()):
        yield not problem, f"{words}: {problem}" if problem else words


def _said(call: Callable[[], Any]) -> str:
    """What an error of ``call`` says that a user can mend; "" if it has none."""
    try:
        call()
    except (UserError, ValueError) as error:
        return str(error)
    return ""


def _look(dataset: str, data_dir: str) -> None:
    """Raises DataError if the files are not those of the data set; one that takes long to load is looked at instead."""
    data = DATASETS[dataset]
    if hasattr(data, "look"):
        data.look(data_dir or None)
    else:
        data.load("train", data_dir or None)


def _look_at_weights(init: str, config: RunConfig) -> None:
    """Raises UserError if the weights are not there or are of another network."""
    init_identity(init)
    if Path(init).is_file() or diffusers_weights(init) is not None:
        asked = {"model": config.model, "dataset": config.dataset, "options": config.options}
        state_that_fits(init, item_shape=config.data.shape, **asked)


def _machine(profile: Profile, disk: int) -> Iterator[Found]:
    """Free disk where runs will lie, and free memory for one run."""
    place = next(path for path in (Path("runs").absolute(), *Path("runs").absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    yield free >= disk, f"disk: {disk / 1e9:.1f} GB will be kept below {place}, {free / 1e9:.1f} GB are free"
    available, needed = _available_memory(), profile.resources.get("mem_mb", DEFAULT_MB)
    if available is not None:
        words = f"memory: a run may take {needed} MB (resources: mem_mb), {available} MB are free"
        yield available >= needed, words


def _available_memory() -> int | None:
    """Free memory in MB, by Linux; None on another system."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _gpu(device: str) -> Iterator[Found]:
    """Cards, driver and PyTorch."""
    import torch

    gpus, why, card = listed_gpus(), why_no_gpu(), find_card(device)
    build = f"PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}"
    if not gpus:
        yield not device, f"GPU: none here, nvidia-smi lists none ({build})"
        return
    names = ", ".join(f"{gpu.name}, {gpu.memory} MB, driver {gpu.driver}" for gpu in gpus)
    yield not why, f"GPU: {why}" if why else f"GPU: {names} ({build})"
    if device:
        wanted = card.title if card else device
        there = any(_same(device, gpu.name) for gpu in gpus)
        yield there, f"GPU asked for: {wanted}" + ("" if there else f", and here: {names}")


def _same(device: str, name: str) -> bool:
    """Whether the name of a card, as a user or as a driver has it, means the other's."""
    plain = [text.lower().replace(" ", "").replace("-", "").replace("geforce", "") for text in (device, name)]
    return plain[0].removesuffix("40gb") in plain[1]
