import re
import subprocess
import sys
import tomllib

import yaml
from packaging.requirements import Requirement

from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


def test_environment_yml_lists_what_pyproject_lists():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert pip == [*DEPENDENCIES, "--editable ."]
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]


def test_lock_pins_every_dependency_within_its_range():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = {r.name.lower().replace("_", "-"): r for r in map(Requirement, lines)}
    for dependency in map(Requirement, DEPENDENCIES):
        pin = pins[dependency.name.lower()]
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert dependency.specifier.contains(specifier.version), f"{pin} does not satisfy {dependency}"


def test_importing_the_core_does_not_load_heavy_optional_packages():
    code = (
        "import sys; import iterative_retraining.models.training, iterative_retraining.experiment;"
        "heavy = {'cleanfid', 'torchvision', 'papermill', 'snakemake', 'sphinx', 'matplotlib', 'pandas'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_core_uses_no_global_random_state():
    pattern = re.compile(
        r"np\.random\.(seed|rand|randn|normal|choice|permutation)\(|random\.seed\(|^import random", re.MULTILINE
    )
    for file in (ROOT / "src").rglob("*.py"):
        assert not pattern.search(file.read_text()), file


def test_modules_stay_small():
    sizes = {file.name: len(file.read_text().splitlines()) for file in (ROOT / "src").rglob("*.py")}
    assert {name: n for name, n in sizes.items() if n > 300} == {}


def test_the_workflow_runs_what_every_change_must_pass_and_publishes_the_book_built_there():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text())["jobs"]
    assert [step["run"] for step in jobs["check"]["steps"] if "run" in step][-1] == ".ci/run"
    (upload,) = (step for step in jobs["check"]["steps"] if "upload-pages-artifact" in step.get("uses", ""))
    assert upload["with"]["path"] == "book/_build/html"
    assert jobs["publish"]["needs"] == "check"


def test_what_reading_needs_is_locked():
    """The packages of `make read` and of Binder have versions in the lock file."""
    locked = {line.partition("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    (line,) = (
        line for line in (ROOT / "Makefile").read_text().splitlines() if "--constraint requirements.lock" in line
    )
    assert {name.lower() for name in line.split("requirements.lock ")[1].split()} <= locked
    assert "--constraint ../requirements.lock" in (ROOT / "binder" / "requirements.txt").read_text().splitlines()
