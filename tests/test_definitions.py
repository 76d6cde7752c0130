"""What is reached in small packages that are written here."""

from pathlib import Path

import pytest

from iterative_retraining.runs.source import changed, definitions

ROOT = "iterative_retraining"


def written(folder: Path, **files: str) -> Path:
    """A package: ``models__edm`` is the file models/edm.py, ``models`` is models/__init__.py if there is such a one."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in files:
        if (folder / name).is_dir():
            (folder / f"{name}.py").rename(folder / name / "__init__.py")
    return folder


def names(folder: Path, chosen: dict | None = None, roots: tuple[str, ...] = ("main.run",)) -> list[str]:
    return [name for name, _ in definitions(folder, chosen, roots=roots)]


@pytest.fixture
def registries(tmp_path) -> Path:
    return written(
        tmp_path,
        main=f"from {ROOT}.metrics import METRICS\n"
        f"from {ROOT}.models import MODELS\ndef run(name): return MODELS[name].build(), METRICS",
        models=f"from {ROOT}.models import edm\nfrom {ROOT}.models.gaussian import FAMILY as GAUSSIAN\n"
        "MODELS: dict[str, object] = {'edm': edm.FAMILY, 'gaussian': GAUSSIAN}\n",
        models__edm="class Family:\n    def build(self): return STEPS\n    def plot(self): return 1\n"
        "STEPS = 18\nFAMILY = Family()\n",
        models__gaussian="class Plain:\n    def build(self): return DIVISOR\nDIVISOR = 1\nFAMILY = Plain()\n",
        metrics=f"from {ROOT}.metrics.fid import fid\nMETRICS = {{'fid': fid, 'rank': lambda: RANK}}\nRANK = 1\n",
        metrics__fid="def fid(): return EPS\nEPS = 0\n",
    )


def test_a_registry_is_narrowed_to_what_is_chosen(registries):
    own = names(registries, {"MODELS": ["edm"], "METRICS": ["fid"]})
    assert own == ["EPS", "FAMILY", "Family", "Family.build", "METRICS", "MODELS", "STEPS", "fid", "run"]
    assert names(registries, {"MODELS": ["gaussian"], "METRICS": []}) == [
        "DIVISOR", "FAMILY", "METRICS", "MODELS", "Plain", "Plain.build", "run",
    ]  # fmt: skip


@pytest.mark.parametrize("chosen", [{}, {"MODELS": ["edm", "another"], "METRICS": ["none"]}])
def test_a_registry_without_a_choice_counts_whole(registries, chosen):
    assert {"DIVISOR", "STEPS", "RANK", "EPS"} <= set(names(registries, chosen))


def test_a_registry_that_is_no_dict_counts_whole(registries):
    file = registries / "models" / "__init__.py"
    for value in ("(edm.FAMILY, GAUSSIAN)", "dict(edm=edm.FAMILY, gaussian=GAUSSIAN)", "{'edm': edm.FAMILY, **OTHERS}"):
        file.write_text(file.read_text().partition("MODELS")[0] + f"OTHERS = {{1: GAUSSIAN}}\nMODELS = {value}\n")
        assert {"DIVISOR", "STEPS"} <= set(names(registries, {"MODELS": ["edm"]}))


def test_new_entries_and_moves_are_not_noticed_and_values_are(registries):
    chosen = {"MODELS": ["edm"], "METRICS": ["fid"]}

    def here() -> list:
        return definitions(registries, chosen, roots=("main.run",))

    before, metrics = here(), registries / "metrics" / "__init__.py"
    metrics.write_text(metrics.read_text().replace("{'fid'", "{'new': lambda: 3, 'fid'"))
    (registries / "models" / "edm.py").rename(registries / "models" / "karras.py")
    models = registries / "models" / "__init__.py"
    models.write_text(models.read_text().replace("import edm", "import karras").replace("edm.FAMILY", "karras.FAMILY"))
    assert here() == before
    metrics.write_text(metrics.read_text().replace("'fid': fid", "'fid': lambda: fid()"))
    assert changed(before, here()) == ["METRICS"]


def test_namesakes_are_told_apart(registries):
    before = definitions(registries, roots=("main.run",))
    models = registries / "models" / "__init__.py"
    models.write_text(
        models.read_text().replace("edm.FAMILY, 'gaussian': GAUSSIAN", "GAUSSIAN, 'gaussian': edm.FAMILY")
    )
    assert changed(before, definitions(registries, roots=("main.run",))) == ["MODELS"]


def test_equal_namesakes_are_told_apart_by_their_modules(tmp_path):
    same = "def f(): return g()\n"
    written(tmp_path, a=same + "def g(): return 1\n", b=same + "def g(): return 2\n")
    written(
        tmp_path, main=f"from {ROOT}.a import f\nfrom {ROOT}.b import f as other\ndef run(): return f() - other()\n"
    )
    before = definitions(tmp_path, roots=("main.run",))
    written(
        tmp_path, main=f"from {ROOT}.b import f\nfrom {ROOT}.a import f as other\ndef run(): return f() - other()\n"
    )
    assert changed(before, definitions(tmp_path, roots=("main.run",))) == ["run"]


CLASSES = """
import torch
from dataclasses import dataclass
class Base:
    def shared(self): return 1
    def unused(self): return 2
@dataclass
class Thing(Base):
    size: int = 3
    LIMIT = 4
    def __post_init__(self): self.helper()
    def helper(self): return self.wide
    @property
    def wide(self): return self.size
    def asked(self): return 5
    def by_name(self): return 6
    def never(self): return self.hidden()
    def hidden(self): return 7
    alias = aliased
    def aliased(self): return 8
class Net(torch.nn.Module):
    def forward(self, x): return x
class NotReached:
    def asked(self): return 9
"""


def test_methods_are_reached_when_anything_asks_for_them(tmp_path):
    body = "def run(x):\n    Thing(), Net()\n    return x.asked(), x.shared(), {}\n"
    written(tmp_path, main=CLASSES + body.format("getattr(x, 'by_name')"))
    own = ["Base", "Base.shared", "Net", "Net.forward", "Thing", "Thing.__post_init__", "Thing.aliased", "Thing.asked"]
    assert names(tmp_path) == [*own, "Thing.by_name", "Thing.helper", "Thing.wide", "run"]
    written(tmp_path, main=CLASSES + body.format("None"))
    assert "Thing.by_name" not in names(tmp_path)
    written(tmp_path, main=CLASSES + body.format("[getattr(x, name) for name in NAMES]") + "NAMES = ['by_name']\n")
    assert "Thing.by_name" in names(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("size: int = 3", "size: float = 3", True),
        ("size: int = 3", "size: int = 4", False),
        ("size: int = 3", "size = 3", False),  # no field any more
        ("size: int = 3", "size: ClassVar[int] = 3", False),
        ("@dataclass\n", "", False),
        ("Thing(Base)", "Thing", False),
        ("LIMIT = 4", "LIMIT = 4\n    'a text that does nothing'; pass", True),
        ("def hidden(self): return 7", "def hidden(self): return 8", True),
        ("def __post_init__(self): self", "def __post_init__(self) -> None:\n        'What it does'; self", True),
        ("return self.size", "return self.size or None", False),
        ("    @property\n", "", False),
        ("import torch\n", "from torch import nn\n", False),
    ],
)
def test_what_counts_of_a_class(tmp_path, old, new, same):
    text = CLASSES + "def run(x): return Thing(), Net, x.shared()\n"
    before = definitions(written(tmp_path, main=text), roots=("main.run",))
    assert old in text
    after = definitions(written(tmp_path, main=text.replace(old, new)), roots=("main.run",))
    assert (before == after) is same


def test_names_are_those_of_what_they_are_bound_to(tmp_path):
    texts = (
        f"import numpy as np\nfrom {ROOT}.tools import count\ndef run(): return np.linalg.norm(count())",
        f"from numpy import linalg\nimport {ROOT}.tools as t\ndef run(): return linalg.norm(t.count())",
        "def run():\n    from numpy.linalg import norm\n    from .tools import count as c\n    return norm(c())",
        f"import numpy\nfrom {ROOT} import tools\ndef run(): return numpy.linalg.norm(tools.count())",
    )
    written(tmp_path, tools="def count(): return 1\n")
    found = [definitions(written(tmp_path, main=text), roots=("main.run",)) for text in texts]
    assert [name for name, _ in found[0]] == ["count", "run"]
    assert all(one == found[0] for one in found)
    other = definitions(written(tmp_path, main=texts[0].replace("numpy", "torch")), roots=("main.run",))
    assert changed(found[0], other) == ["run"]


def test_what_importing_does_is_reached(tmp_path):
    files = {
        "main": f"from {ROOT}.models.a import A\ndef run(): return A",
        "models": f"from {ROOT} import setup\nfrom {ROOT}.models.b import B\n",
        "models__a": "A = 1\nif A:\n    from math import pi as B\n",
        "models__b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    X = 1\nB = 2\n",
        "setup": "import torch\ntorch.backends.x = 1\n",
        "aside": "print('never')\n",
    }
    assert names(written(tmp_path, **files)) == ["<module>", "<module>", "A", "run"]


def test_a_name_bound_by_other_statements_belongs_to_them(tmp_path):
    text = "try:\n    import fast\n    LEVEL = 1\nexcept ImportError:\n    LEVEL = {}\ndef run(): return LEVEL\n"
    before = definitions(written(tmp_path, main=text.format(2)), roots=("main.run",))
    after = definitions(written(tmp_path, main=text.format(3)), roots=("main.run",))
    assert changed(before, after) == ["<module>"]


def test_a_star_and_a_missing_root_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"from os import \* in main: what it binds cannot be told; name it"):
        names(written(tmp_path, main="from os import *\ndef run(): return 1\n"))
    with pytest.raises(KeyError, match="gone"):
        names(written(tmp_path, main="def run(): return 1\n"), roots=("main.gone",))
