"""Puts the reference of the whole package, from its docstrings, where a page has the line `%% package reference`.

Every module is found by walking the package: a new file is in the book by being there. Docstrings are plain text with
names in backticks, no reStructuredText: everything else in them is escaped, and so read as it stands.
"""

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

PACKAGE = "iterative_retraining"
MARK = "%% package reference"
MISSING = (
    "*This book was built without the package, which its reference is made from: `make setup`, then build it again.*"
)
ROOMS = ("datasets", "schemes", "models", "metrics", "selectors", "runs", "studies")
QUOTED = re.compile(r"(``.+?``|`.+?`)")
NAMED = r"[a-z_]\w*(?:, \w+)* ?: "  # at the start of a line


def modules() -> Iterator[ModuleType]:
    """All modules of the package but those that are commands."""
    for found in pkgutil.walk_packages(importlib.import_module(PACKAGE).__path__, f"{PACKAGE}."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def room(module: ModuleType) -> str:
    """The heading a module stands under."""
    first = module.__name__.split(".")[1]
    return f"`{first}`" if first in ROOMS else "The core"


def reference() -> str:
    """The page's text: a heading a room, and all public names of its modules that have a docstring; or, where the book
    is built without the package, one line that says so."""
    if importlib.util.find_spec(PACKAGE) is None:
        return MISSING
    lines, heading = [], ""
    for module in sorted(modules(), key=lambda m: (room(m) != "The core", m.__name__)):
        if room(module) != heading:
            heading = room(module)
            lines += [f"## {heading}", ""]
        lines += [f"### {module.__name__.removeprefix(PACKAGE + '.')}", "", "```{eval-rst}"]
        lines += [f".. automodule:: {module.__name__}", "   :members:", "```", ""]
    return "\n".join(lines)


def insert(app, docname, source):
    """Before a page is parsed: the reference in place of its mark."""
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, reference())


def escaped(text: str) -> str:
    """Plain text as reStructuredText that reads the same; names in backticks become literal."""
    parts = QUOTED.split(" ".join(text.split()))
    plain = (re.sub(r"([\\*_|`<>\[\]])", r"\\\1", part) for part in parts[::2])
    quoted = (f"\\ ``{part.strip('`')}``\\ " for part in parts[1::2])
    return "\\ " + "".join(piece for pair in zip(plain, [*quoted, ""], strict=True) for piece in pair)


def as_plain_text(app, what, name, obj, options, lines):
    """Every paragraph of a docstring as one of plain text; one that lists names, "name: what", as one for each."""
    paragraphs = []
    for text in re.split(r"\n\s*\n", "\n".join(lines)):
        paragraphs += re.split(rf"\n(?={NAMED})", text) if re.match(NAMED, text) else [text]
    lines[:] = [line for text in paragraphs if text.strip() for line in (escaped(text), "")]


def setup(app):
    """Registers both with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("source-read", insert)
    app.connect("autodoc-process-docstring", as_plain_text)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
