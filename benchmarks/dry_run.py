"""Each preset of the paper, dry: plan, check, two steps of its true network, samples, a measurement; on this machine.

    python benchmarks/dry_run.py --folder dry
    python benchmarks/dry_run.py --folder dry edm-ffhq64

What a preset asks of its user is written into ``--folder`` in the published layouts: weights made at random, and
patches of photographs in the zips that dataset_tool.py of NVlabs/edm makes. The feature network cannot be made so: its
file is known by its SHA-256. Random features of Inception's shape stand in for it, and the check says that it is
missing. Batches are of 2 images and the sampler takes 2 steps, as in a rehearsal, which goes through whole runs and
through a kill besides (`snakemake sweep ... rehearsal=true`).
"""

import argparse
import io
import json
import os
import resource
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS, load_dataset
from iterative_retraining.errors import ConfigError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.models.pretrained.stand_ins import write_stand_in
from iterative_retraining.rehearsal import STAND_INS, full_config, rehearsal_of
from iterative_retraining.training_set import TrainingSet

PRESETS = Path(__file__).resolve().parents[1] / "profiles" / "paper"
ZIPS = {"cifar10": "cifar10-32x32.zip", "ffhq64": "ffhq-64x64.zip"}
N_STEPS, N_SAMPLES = 2, 2


def write_zip(path: Path, dataset: str) -> None:
    """A zip of PNGs as dataset_tool.py makes it, with as many images as the data set has, of a few photographs."""
    shape, n = DATASETS[dataset].shape, DATASETS[dataset].counts["train"]
    contents = []
    for patch in load_dataset(STAND_INS[shape])[0][:50]:
        file = io.BytesIO()
        Image.fromarray(patch).save(file, format="png", compress_level=0, optimize=False)
        contents.append(file.getvalue())
    names = [f"{i // 1000:05d}/img{i:08d}.png" for i in range(n)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i, name in enumerate(names):
            archive.writestr(name, contents[i % len(contents)])
        labels = [[name, i % 10] for i, name in enumerate(names)] if DATASETS[dataset].has_labels else None
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


def arms_of(preset: str, options: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """The parameters of the mix as published and as intended, at λ = 0.5, with ``options`` of the model changed."""
    text = yaml.safe_load((PRESETS / f"{preset}.yml").read_text())
    arms = {}
    for variant, arm in zip(("as published", "as intended"), text["arms"][1::2], strict=True):
        own = {**text["run"], **arm, "lam": 0.5, "device": "cpu"}
        arms[variant] = own | {"model_options": {**own["model_options"], **(options or {})}}
    return arms


def write_weights(parameters: Mapping[str, Any]) -> RunConfig:
    """Writes what ``init`` names, random, in the current directory; returns the configuration of the run."""
    config, path = full_config(parameters), Path(parameters["init"])
    about = {"model": config.model, "item_shape": config.data.shape, "options": config.options}
    if write_stand_in(path.with_suffix(""), **about) != path:
        raise AssertionError(f"{path} has another layout")
    return config


def dry(parameters: Mapping[str, Any], folder: Path) -> str:
    """Two steps, two samples and a measurement of them among real images, as cells: seconds a step, a sample, FID."""
    found = rehearsal_of(parameters, folder)
    batch = found.parameters["model_options"]["batch_size"]
    budget = {"n_images_per_retraining": N_STEPS * batch, "n_retrain": 1, "run_dir": folder / "run"}
    experiment = open_experiment(**{**found.parameters, **budget, "checkpoint_images": 0})
    model = experiment.new_model()
    model.load_state_dict(experiment.initial_state)
    before, start = model.state_dict(), time.perf_counter()
    model.fit(TrainingSet.of(experiment.real), seed=0)
    fitted = time.perf_counter()
    images = model.sample(N_SAMPLES, seed=0)
    sampled = time.perf_counter()
    if all(np.array_equal(array, before[name]) for name, array in model.state_dict().items() if name in before):
        raise AssertionError("two steps have changed nothing")
    measured = np.concatenate([images, experiment.real[N_SAMPLES:]])  # of samples alone there are too few
    values = experiment.metrics(measured, real=experiment.real)
    experiment.run.close()
    return f"{(fitted - start) / N_STEPS:.3g} | {(sampled - fitted) / N_SAMPLES:.3g} | {values['fid']:.4g}"


def planned(preset: str) -> str:
    """What the planner and its check say of the preset in the current directory, in a cell."""
    from plan import main as plan

    report = plan([f"paper/{preset}", "--device", "a100"])
    try:
        return f"{plan([f'paper/{preset}', '--check'])}, {report.splitlines()[0]}"
    except ConfigError as error:
        missing = (line for line in str(error).splitlines() if line.startswith("- MISSING: "))
        return ", ".join(line.removeprefix("- MISSING: ").partition(":")[0] for line in missing)


def main(given: argparse.Namespace) -> None:
    """Prints a row for each variant of each preset."""
    torch.set_num_threads(given.threads)
    folder = given.folder.resolve()
    (folder / "data" / "weights").mkdir(parents=True, exist_ok=True)
    if not (folder / "profiles").exists():
        (folder / "profiles").symlink_to(PRESETS.parent)
    os.chdir(folder)
    print("| preset | variant | weights, M | check: missing | s a step of 2 | s a sample | FID | memory so far, GB |")
    print("|---|---|---|---|---|---|---|---|")
    for preset in given.presets:
        for variant, parameters in arms_of(preset).items():
            config = write_weights(parameters)
            if not Path("data", ZIPS[config.dataset]).exists():
                write_zip(Path("data", ZIPS[config.dataset]), config.dataset)
            missing = planned(preset)
            cells = dry(parameters, folder / f"{preset}, {variant}")
            network = config.family.network_config(config.data.shape, config.options)
            with torch.device("meta"):
                n = sum(p.numel() for p in network.build().parameters()) / 1e6
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            print(f"| {preset} | {variant} | {n:.1f} | {missing} | {cells} | {memory:.1f} |", flush=True)


if __name__ == "__main__":
    import sys

    sys.path.insert(0, str(PRESETS.parents[1] / "workflow"))
    names = sorted(path.stem for path in PRESETS.glob("*.yml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=names, metavar="PRESET", help=", ".join(names))
    parser.add_argument("--folder", type=Path, required=True, help="where files are written, 1 GB; kept")
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
