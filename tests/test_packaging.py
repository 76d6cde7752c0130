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
