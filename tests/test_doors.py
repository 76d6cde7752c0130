"""Every model x scheme x data set that README and the notebook name, started at three doors: the notebook, as papermill
reads its command line, the command line of the package, and a profile.

All in one process and small: 24 random images of 8 x 8 pixels, networks of four channels. At
each door the same run arrives at `open_experiment`; one of the doors, in turns, then makes it.
"""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import papermill.cli
import pytest
import yaml
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

import iterative_retraining
from iterative_retraining import __main__, experiment, yaml_door
from iterative_retraining.datasets import DATASETS
from iterative_retraining.errors import ConfigError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.models import MODELS
from iterative_retraining.rehearsal import full_config
from iterative_retraining.runs.reading import read_config, read_ledger
from iterative_retraining.schemes import SCHEMES

from conftest import ROOT
from profiles import load_profile

NOTEBOOK = load_notebook_node(str(ROOT / "notebooks" / "retrain.ipynb"))
TEXT = (ROOT / "README.md").read_text() + "".join(c.source for c in NOTEBOOK.cells if c.cell_type == "markdown")
NAMED = {
    kind: [name for name in registry if f"`{name}`" in TEXT]
    for kind, registry in (("model", MODELS), ("scheme", SCHEMES), ("dataset", DATASETS))
}
SIZES = {  # of D_0 and D_1, (real, synthetic), of 24 real images at lam = 0.5
    "mix": [(24, 0), (24, 12)],
    "fully_synthetic": [(24, 0), (0, 24)],
    "accumulate": [(24, 0), (24, 24)],
    "accumulate_subsample": [(24, 0), (12, 12)],
    "fresh": [(2, 0), (2, 1)],
    "weighted": [(24, 0), (24, 12)],
}
SMALL = {"n_real": 24, "n_images_initial": 32, "n_images_per_retraining": 32, "n_retrain": 1}
UNET = {"channels": 4, "multipliers": [1], "blocks_per_level": 1, "attention_resolutions": [], "n_steps": 1}
OPTIONS = {
    "edm": UNET | {"augment_labels": 0, "augment_probability": 0.0},
    "flow_matching": UNET,
    "ddpm": UNET,
    "spline_flow": {"width": 4, "n_transforms": 1, "n_layers": 1, "n_bins": 2},
    "gaussian": {},
}


class Arrived(Exception):
    """In the place of a run: the door has been passed, with ``parameters``."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters


class SmallSpace:
    """Four random directions as a feature space."""

    name = "small"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(np.float32)
        return flat @ np.random.default_rng(0).normal(size=(flat.shape[1], 4)).astype(np.float32)


@pytest.fixture
def small(monkeypatch, tmp_path) -> Path:
    """An empty current directory, where every data set is small and at hand, without held-out images on which a loss
    would be taken ten thousand times, and where no published weights are needed."""

    def load(self, split: str, data_dir: object) -> tuple[np.ndarray, np.ndarray]:
        n, rng = (24 if split == "train" else 0), np.random.default_rng(1)
        return rng.integers(256, size=(n, *self.shape), dtype=np.uint8), rng.integers(2, size=n)

    for name in NAMED["dataset"]:
        monkeypatch.setattr(type(DATASETS[name]), "load", load)
        monkeypatch.setattr(type(DATASETS[name]), "shape", (8, 8, DATASETS[name].shape[2]))
    monkeypatch.setattr(experiment, "build_features", lambda name, dataset, **settings: SmallSpace())
    floor = ImageMetrics.floor
    monkeypatch.setattr(ImageMetrics, "floor", lambda self, real, *, seed: floor(self, real, seed=seed, n_splits=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def doors(monkeypatch) -> dict[str, Callable[..., None]]:
    """What starts a run with these parameters, by door; ``opens`` stands in the place of `open_experiment`."""

    def at_all_doors(opens: Callable[..., object]) -> None:
        for module in (iterative_retraining, __main__):
            monkeypatch.setattr(module, "open_experiment", opens)

    def papermill_runs(*words: str) -> None:
        """``papermill notebooks/retrain.ipynb out.ipynb *words``, its cells in this process, without the figure."""
        given: dict[str, Any] = {}
        monkeypatch.setattr(papermill.cli, "INPUT_PIPED", False)
        monkeypatch.setattr(papermill.cli, "OUTPUT_PIPED", False)
        monkeypatch.setattr(papermill.cli, "execute_notebook", lambda **how: given.update(how["parameters"]))
        monkeypatch.setattr(yaml_door, "_parent", lambda: (["papermill", "in.ipynb", "out.ipynb", *words], Path.cwd()))
        papermill.cli.papermill(["in.ipynb", "out.ipynb", *words], standalone_mode=False)
        namespace: dict[str, Any] = {"In": []}
        for cell in parameterize_notebook(deepcopy(NOTEBOOK), given).cells[:-1]:
            if cell.cell_type == "code":
                namespace["In"].append(cell.source)
                exec(cell.source, namespace)
        namespace["experiment"].run.close()

    def notebook(parameters: Mapping[str, Any], opens: Callable[..., object]) -> None:
        at_all_doors(opens)
        papermill_runs(*words_of(parameters))

    def command_line(parameters: Mapping[str, Any], opens: Callable[..., object]) -> None:
        at_all_doors(opens)
        __main__.main(words_of(parameters))

    def profile(parameters: Mapping[str, Any], opens: Callable[..., object]) -> None:
        """An arm of a profile and before it, if it is to be made, its theta_0; the Snakefile hands them over as -y."""
        at_all_doors(opens)
        shared, arm = dict(parameters), {name: parameters[name] for name in ("scheme", "lam")}
        folder = Path(shared.pop("run_dir")).parent
        run = {name: value for name, value in shared.items() if name not in arm}
        Path("one.yml").write_text(yaml.safe_dump({"description": "one", "seeds": [0], "run": run, "arms": [arm]}))
        (*_, planned) = load_profile("one.yml").runs.values()
        start = {"init": str(folder / planned.init)}
        if opens is open_experiment and not Path(start["init"]).exists():
            theta_0 = load_profile("one.yml").runs[planned.init].parameters
            papermill_runs("-y", json.dumps({**theta_0, "run_dir": start["init"]}))
        papermill_runs("-y", json.dumps({**planned.parameters, **start, "run_dir": parameters["run_dir"]}))

    return {"notebook": notebook, "command line": command_line, "profile": profile}


def words_of(parameters: Mapping[str, Any]) -> list[str]:
    """Parameters as text on a command line, mappings as JSON."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    return [word for name, text in texts.items() for word in ("-p", name, text)]


def arrives(**parameters: Any) -> None:
    raise Arrived(parameters)


def test_all_that_is_there_is_named():
    assert set(NAMED["model"]) == MODELS.keys()
    assert set(NAMED["scheme"]) == SCHEMES.keys() == SIZES.keys()
    assert set(NAMED["dataset"]) == {"digits", "fashion_mnist", "cifar10", "ffhq64"}


@pytest.mark.parametrize("dataset", NAMED["dataset"])
@pytest.mark.parametrize("model", NAMED["model"])
def test_a_model_with_every_scheme_is_one_run_at_every_door(small, doors, model, dataset):
    about = {"dataset": dataset, "model": model, "model_options": OPTIONS[model]}
    turn = NAMED["model"].index(model) + NAMED["dataset"].index(dataset)
    for place, scheme in enumerate(NAMED["scheme"]):
        parameters = {**SMALL, **about, "scheme": scheme, "lam": 0.5, "run_dir": str(small / scheme)}
        ids = set()
        for start in doors.values():
            with pytest.raises(Arrived) as arrived:
                start(parameters, arrives)
            ids.add(full_config(arrived.value.parameters).run_id)
            assert arrived.value.parameters["n_retrain"] == 1
        assert ids == {full_config(parameters).run_id}
        door = list(doors)[(turn + place) % len(doors)]
        doors[door](parameters, open_experiment)
        assert [(row["n_real"], row["n_synthetic"]) for row in read_ledger(small / scheme)] == SIZES[scheme]
        made = read_config(small / scheme)
        assert made["run_id"] in ids or (door == "profile" and made["identity"]["init"].endswith("@0"))


@pytest.mark.parametrize("door", ["notebook", "command line", "profile"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dataset": "cifar10"}, "cifar10 is looked for in data_dir, which is empty; set data_dir to the folder"),
        ({"dataset": "ffhq64"}, "ffhq64 is looked for in data_dir, which is empty; set data_dir to a zip of the PNGs"),
        ({"features": "inception-clean", "features_weights": "nowhere.pt"}, "weights nowhere.pt are missing: download"),
    ],
)
def test_what_lacks_its_files_is_refused_alike_at_every_door(tmp_path, monkeypatch, doors, door, given, message):
    if "features" not in given:
        monkeypatch.setattr(experiment, "build_features", lambda name, dataset, **settings: SmallSpace())
    monkeypatch.chdir(tmp_path)
    parameters = {**SMALL, **given, "scheme": "mix", "lam": 0.5, "run_dir": str(tmp_path / "run")}
    with pytest.raises(ConfigError, match=message):
        doors[door](parameters, open_experiment)
    assert not (tmp_path / "run").exists()
