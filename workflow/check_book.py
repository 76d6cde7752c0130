"""Says what a built book lacks: pages of its _toc.yml, figures of its notebooks, alt texts; and what it has too much:
pages with the output of an error. Exit status 1 if anything.

python workflow/check_book.py book
"""

import argparse
import re
import sys
from pathlib import Path

import nbformat
import yaml

from execute import errors


def pages(toc: object) -> list[str]:
    """Every page that a parsed _toc.yml names."""
    if isinstance(toc, list):
        return [page for item in toc for page in pages(item)]
    if not isinstance(toc, dict):
        return []
    own = [toc[key] for key in ("root", "file") if key in toc]
    return own + [page for value in toc.values() for page in pages(value)]


def figures(notebook: Path) -> list[str]:
    """The names of a notebook's captioned figures; of a cell tagged ``if-run``, if there was something to draw."""
    cells = [c for c in nbformat.read(notebook, as_version=4).cells if "figure" in c.metadata.get("mystnb", {})]
    return [c.metadata.mystnb.figure.name for c in cells if "if-run" not in c.metadata.get("tags", []) or _drawn(c)]


def _drawn(cell: nbformat.NotebookNode) -> bool:
    return any("image/png" in output.get("data", {}) for output in cell.outputs)


def missing(book: Path) -> list[str]:
    """What the HTML of ``book`` lacks, one line each; empty if it is whole."""
    html, found = book / "_build" / "html", []
    for page in pages(yaml.safe_load((book / "_toc.yml").read_text())):
        file = html / f"{page}.html"
        if not file.is_file():
            found.append(f"page {page} was not built")
            continue
        text, notebook = file.read_text(), book / f"{page}.ipynb"
        if not notebook.is_file():
            continue
        found += [f"{page}: {error}" for error in errors(notebook)]
        for name in figures(notebook):
            figure = re.search(rf'<figure[^>]* id="{name}">(.*?)</figure>', text, re.DOTALL)
            image = figure and re.search(r'<img alt="([^"]+)"[^>]* src="([^"]+)"', figure[1])
            if not image:
                found.append(f"{page}: figure {name} has no image with alt text")
            elif not (file.parent / image[2]).is_file():
                found.append(f"{page}: the image of figure {name} is missing")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="check_book.py", description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument("book", type=Path, help="the folder with _toc.yml and _build")
    given = parser.parse_args().book
    if not (given / "_toc.yml").is_file():
        sys.exit(f"error: {given} is no book: it has no _toc.yml")
    problems = missing(given)
    print("\n".join(problems) or f"{given}: every page and figure is there")
    sys.exit(bool(problems))
