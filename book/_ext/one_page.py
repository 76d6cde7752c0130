"""The book as one page, from which the PDF is printed, is written as its pages are.

An extension that registers writers for Sphinx's builder `singlehtml` by name, as sphinx-exercise does, hides those that
the others have registered for `html`: every one of them is given to both.
"""


def share_writers(app):
    """Before a build: what writes a node for `html` writes it for `singlehtml`, where nothing else does."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = {**handlers.get("html", {}), **handlers.get("singlehtml", {})}


def setup(app):
    """Registers it with Sphinx."""
    app.connect("builder-inited", share_writers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
