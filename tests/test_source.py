"""Which code decides a run's numbers: nothing that runs is missed, and nothing that does not run is counted."""

import ast
import pkgutil
import random
import re
import shutil
from collections.abc import Iterator
from functools import partialmethod
from importlib import import_module
from pathlib import Path

import pytest
from mutations import Line, Trace, annotate, extend, mutate, rename, reorder_imports, replace, reword, rewrite, sites

import iterative_retraining
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.runs import source
from iterative_retraining.runs.definitions import ROOT, Definition, Package
from iterative_retraining.runs.provenance import read_manifest
from iterative_retraining.runs.source import NOT_FOLLOWED, PACKAGE, Reach, changed, choices, definitions, source_sha256
from iterative_retraining.status import run_status, stale_note

from conftest import ROOT as PROJECT
from conftest import TINY_EDM

TINY_FLOW = {k: v for k, v in TINY_EDM.items() if k != "n_steps"} | {"n_steps": 2}
NETWORK = {"n_images_initial": 64, "n_images_per_retraining": 32, "scheme": "fully_synthetic", "n_real": 60}
RUNS = {
    "gaussian": {"model": "gaussian", "n_real": 60},
    "edm": {"model": "edm", "model_options": TINY_EDM, "checkpoint_images": 32, **NETWORK},
    "flow_matching": {"model": "flow_matching", "model_options": TINY_FLOW, **NETWORK},
}


@pytest.fixture(scope="module")
def traced(tmp_path_factory) -> dict[str, tuple[Trace, Path]]:
    """A run of each model: begun, gone on with, and then the start of another run."""
    for module in pkgutil.walk_packages(iterative_retraining.__path__, f"{ROOT}."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found = {}
    for name, parameters in RUNS.items():
        folder = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch, Trace() as trace:
            patch.setattr(ImageMetrics, "floor", partialmethod(ImageMetrics.floor, n_splits=1))
            for path, n_retrain, init in (("run", 1, ""), ("run", 2, ""), ("child", 1, str(folder / "run"))):
                experiment = open_experiment(run_dir=folder / path, n_retrain=n_retrain, init=init, **parameters)
                for _ in experiment.records():
                    pass
                experiment.run.close()
        found[name] = trace, folder / "child"
    return found


def reach_of(run: Path, package: Path = PACKAGE) -> Reach:
    manifest = read_manifest(run)
    chosen, without = choices(manifest["config"], **manifest["measured"])
    return Reach(package, chosen, {*NOT_FOLLOWED, *without}, source.ROOTS)


def lines_of(definition: Definition) -> Iterator[Line]:
    """The lines of a definition; those of a class without its methods."""
    file = definition.module.replace(".", "/")
    file = f"{file}/__init__.py".removeprefix("/") if definition.is_package else f"{file}.py"
    for top in definition.nodes:
        for node in [*top.body, *top.decorator_list] if isinstance(top, ast.ClassDef) else [top]:
            numbers = [one.lineno for one in ast.walk(node) if hasattr(one, "lineno")]
            for line in range(min(numbers), node.end_lineno + 1):
                yield file, line


def lines_not_followed() -> set[Line]:
    every = [d for module in Package(PACKAGE).values() for d in module.definitions.values()]
    outside = [d for d in every if {d.module, f"{d.module}.{d.name}"} & set(NOT_FOLLOWED)]
    return {line for d in outside for line in lines_of(d)}


def asked_by_them() -> set[Line]:
    """The lines of what only that which is not followed may call: the digests of a manifest."""
    files = Package(PACKAGE)["files"].definitions
    return {line for name in ("data_sha256", "state_sha256") for line in lines_of(files[name])}


@pytest.mark.parametrize("model", RUNS)
def test_whatever_a_run_executes_is_reached(traced, model):
    trace, run = traced[model]
    reached = {line for d in reach_of(run).found for line in lines_of(d)}
    assert len(trace.functions) > 80
    assert trace.functions - reached - lines_not_followed() - asked_by_them() == set()


def test_what_is_not_followed_is_there():
    modules = Package(PACKAGE)
    names = set(modules) | {f"{m}.{name}" for m, module in modules.items() for name in module.definitions}
    assert set(NOT_FOLLOWED) <= names
    assert {"experiment._initial_state", "models.pretrained.state_that_fits"} <= names


@pytest.fixture
def copy(tmp_path) -> Path:
    target = tmp_path / "package"
    shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    return target


@pytest.mark.parametrize("model", RUNS)
def test_mutations_of_executed_lines_are_noticed(traced, model, copy, capsys):
    n = 60
    trace, run = traced[model]
    pairs, rng, lines = reach_of(run).pairs(), random.Random(model), trace.lines - lines_not_followed()
    files = {file: (copy / file).read_text() for file in sorted({file for file, _ in lines})}
    for file, text in files.items():
        (copy / file).write_text(ast.unparse(ast.parse(text)))
    assert reach_of(run, copy).pairs() == pairs  # another layout, and no comments
    counts = {file: len(list(sites(ast.parse(text), own(lines, file)))) for file, text in files.items()}
    caught, missed = {}, []
    for number in rng.sample(range(sum(counts.values())), n):
        file = next(f for f in counts if (number := number - counts[f]) < 0)
        tree = ast.parse(files[file])
        kind, node, *place = list(sites(tree, own(lines, file)))[number]
        mutate(kind, node, *place)
        (copy / file).write_text(ast.unparse(ast.fix_missing_locations(tree)))
        if reach_of(run, copy).pairs() == pairs:
            missed.append((file, getattr(node, "lineno", 0), kind))
        else:
            caught[kind] = caught.get(kind, 0) + 1
        (copy / file).write_text(files[file])
    with capsys.disabled():
        print(f"\n{model}: {sum(caught.values())} of {n} mutations caught {caught}, missed {missed}")
    assert missed == []


def own(lines: set[Line], file: str) -> set[int]:
    return {number for name, number in lines if name == file}


def an_unused_metric(package: Path) -> None:
    (package / "metrics" / "brightness.py").write_text("def brightness(generated, *, real):\n    return {'b': 0.0}\n")
    file = package / "metrics" / "__init__.py"
    text = re.sub(r"(?m)^(METRICS\b.*= \{)$", r'\1\n    "brightness": brightness,', file.read_text())
    file.write_text(f"from {ROOT}.metrics.brightness import brightness\n{text}")


def unused_methods(package: Path) -> None:
    for name in ("Gaussian", "Fit", "ImageMetrics", "Mix", "RunConfig"):
        extend(package, name, "def surely_not_used(self): return 1")


def other_studies(package: Path) -> None:
    for file in [*(package / "studies").rglob("*.py"), package / "status.py", package / "runs" / "progress.py"]:
        file.write_text("x = 1\n")


SAME = {
    "an unused metric": an_unused_metric,
    "unused methods": unused_methods,
    "a renamed file": lambda p: rename(p, "seeding", "randomness"),
    "a file in another room": lambda p: rename(p, "training_set", "datasets.of_a_generation"),
    "a renamed file of a model": lambda p: rename(p, "models.gaussian", "models.normal"),
    "other docstrings": lambda p: rewrite(p, reword),
    "other annotations": lambda p: rewrite(p, annotate),
    "reordered imports": lambda p: rewrite(p, reorder_imports),
    "a comment": lambda p: replace(p / "retrain.py", "\n", "  # a comment\n"),
    "another name for an import": lambda p: replace(p / "models" / "gaussian.py", "np", "n_p"),
    "other studies": other_studies,
    "a broken file that nothing needs": lambda p: (p / "aside.py").write_text("def"),
}


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME)
def test_what_decides_no_number_is_not_noticed(edit, copy):
    chosen = {"METRICS": []}
    if edit is SAME["a comment"]:
        (copy / "retrain.py").write_text(ast.unparse(ast.parse((copy / "retrain.py").read_text())))
        rewrite(copy, reword, "retrain.py")  # no text over several lines is left, in which it would be no comment
    edit(copy)
    assert definitions(copy, chosen) == definitions(PACKAGE, chosen)


EXTENDED = [
    "retrain",
    "Gaussian.fit",
    "NetworkModel.sample",
    "Fit.step",
    "UNet.forward",
    "Mix.training_set",
    "to_uint8",
]
EXTENDED += ["noise_by_index", "ImageMetrics.floor", "Run.load_state", "open_experiment", "RunConfig.__post_init__"]


@pytest.mark.parametrize("name", EXTENDED)
def test_one_more_statement_is_noticed_by_name(name, copy):
    extend(copy, name, "0 + 0")
    assert changed(definitions(PACKAGE), definitions(copy)) == [name]


CHANGED = {
    "Experiment.records": ("experiment.py", "self.real,", "self.real[::-1],"),  # the real data reversed
    "RunConfig": ("config.py", "n_images_per_retraining: int = 36_000", "n_images_per_retraining: int = 36_001"),
    "GenerationRecord": ("retrain.py", "    n_images: int\n", "    n_images: int = 0\n"),
    "N_PREVIEW": ("retrain.py", "N_PREVIEW = 16", "N_PREVIEW = 15"),
    "UNet": ("models/networks/ddpmpp.py", "class UNet(nn.Module)", "class UNet(nn.Sequential)"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_what_decides_numbers_is_noticed_by_name(name, copy):
    file, old, new = CHANGED[name]
    replace(copy / file, old, new)
    assert changed(definitions(PACKAGE), definitions(copy)) == [name]


def test_an_import_of_something_else_is_noticed(copy):
    replace(copy / "models" / "gaussian.py", "import numpy as np", "import torch as np")
    assert "Gaussian.fit" in changed(definitions(PACKAGE), definitions(copy))


def test_the_real_registries_are_narrowed_once_they_are_dicts():
    whole, modules = definitions(), Package(PACKAGE)
    for name, home in (("MODELS", "models"), ("SCHEMES", "schemes"), ("DATASETS", "datasets")):
        registry = modules[home].definitions[name].nodes[0].value
        if isinstance(registry, ast.Dict):
            assert len(definitions(chosen={name: [registry.keys[0].value]})) < len(whole)
        else:
            assert definitions(chosen={name: ["edm"]}) == whole


def test_a_stale_run_says_what_has_changed(traced, copy, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(traced["gaussian"][1], run)
    manifest = read_manifest(run)
    assert run_status(run).code == "current"
    assert list(manifest["sources"]) == [manifest["attempts"][0]["source_sha256"]]
    assert source_sha256(manifest["sources"][manifest["attempts"][0]["source_sha256"]]) in manifest["sources"]
    monkeypatch.setattr(source, "PACKAGE", copy)
    try:
        for name, code in (
            ("Gaussian.fit", "stale: 1 definition changed (Gaussian.fit)"),
            ("retrain", "stale: 2 definitions changed (Gaussian.fit, retrain)"),
            ("noise_by_index", "stale: 3 definitions changed (Gaussian.fit, noise_by_index, retrain)"),
            ("to_uint8", "stale: 4 definitions changed (Gaussian.fit, noise_by_index, retrain, ...)"),
        ):
            extend(copy, name, "0 + 0")
            source._here.cache_clear()
            assert run_status(run).code == code
            assert "**1 of these 1 runs are stale**" in stale_note([run])
            assert code.removeprefix("stale: ") in stale_note([run])
    finally:
        monkeypatch.undo()
        source._here.cache_clear()


def test_published_runs_are_of_earlier_code_or_say_what_has_changed():
    runs = sorted(path.parent for path in (PROJECT / "results").glob("*/manifest.json"))
    earlier = [run for run in runs if "sources" not in read_manifest(run)]
    for run in earlier:
        assert run_status(run).code == "earlier code"
    if earlier:
        assert f"**{len(earlier)} of these {len(earlier)} runs were made by earlier code**" in stale_note(earlier)


def test_changed_by_hand():
    old = [("a", "1"), ("b", "1"), ("b", "2"), ("c", "1"), ("d", "1")]
    new = [["a", "1"], ["b", "2"], ["b", "3"], ["d", "2"], ["e", "1"]]
    assert changed(old, new) == ["b", "d", "c (gone)", "e (new)"]
    assert changed(old, old[::-1]) == []
