"""The reference of the package in the book: every module is in it, and docstrings read there as they stand."""

import importlib.util
from pathlib import Path

import pytest
from docutils.core import publish_doctree

import iterative_retraining

from conftest import ROOT

SPEC = importlib.util.spec_from_file_location("package_reference", ROOT / "book" / "_ext" / "package_reference.py")
extension = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(extension)


@pytest.mark.parametrize(
    ("plain", "shown"),
    [
        ("theta* = E_(p_theta) of |x|, *args and **how, E_data_", None),
        ("2. no list\n   over two lines", "2. no list over two lines"),
        ("`fit` and ``lam``s of `iterative_retraining.x`", "fit and lams of iterative_retraining.x"),
        ("uint8 (N, H, W[, C]) <run id>/*.json_ :role: .. note:: x", None),
        (r"a \ backslash and half a `quote", None),
    ],
)
def test_a_docstring_reads_as_it_stands(plain, shown):
    tree = publish_doctree(extension.escaped(plain), settings_overrides={"report_level": 1, "halt_level": 1})
    assert tree.astext() == (shown or plain)


def test_paragraphs_stay_apart():
    lines = ["One", "two.", "", "* three", ""]
    extension.as_plain_text(None, "function", "f", None, "", lines)
    assert lines == ["\\ One two.", "", "\\ \\* three", ""]


def test_names_that_are_listed_stand_in_a_line_each():
    lines = ["k, n: numbers", "of things", "test : more", "", "Prose that goes", "on: here"]
    extension.as_plain_text(None, "function", "f", None, "", lines)
    assert lines == ["\\ k, n: numbers of things", "", "\\ test : more", "", "\\ Prose that goes on: here", ""]


def test_every_module_has_its_place():
    text = extension.reference()
    source = Path(iterative_retraining.__file__).parent
    for path in source.rglob("*.py"):
        parts = path.relative_to(source.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name != "iterative_retraining" and not name.endswith("__main__"):
            assert f".. automodule:: {name}\n" in text, name
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## The core", *(f"## `{room}`" for room in sorted(extension.ROOMS))
    ]  # fmt: skip
