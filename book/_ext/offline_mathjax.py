"""Serves MathJax with the book: copies it out of the installed package into the HTML; no page needs a network."""

import importlib.util
import shutil
from pathlib import Path

FILES = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions", "a11y", "sre")


def copy_mathjax(app, error):
    """After an HTML build: es5/ of the package to <html>/mathjax, as far as a page may ask for it."""
    if error is not None or app.builder.format != "html":
        return
    source = Path(importlib.util.find_spec("mathjax").origin).parent / "static" / "mathjax" / "es5"
    target = Path(app.outdir) / "mathjax"
    for name in FILES:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, dirs_exist_ok=True)
        else:
            target.mkdir(exist_ok=True)
            shutil.copy(source / name, target / name)


def setup(app):
    """Registers the copy with Sphinx."""
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
