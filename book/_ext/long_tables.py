"""Folds what a table has beyond its first rows: a reader sees eight, and unfolds the others where they stand.

On paper, and in the book as one page, nothing is folded. The front page has a table of its own length.
"""

import html

from docutils import nodes

ROWS = 8


def split(table):
    """The rows of a table beyond the first `ROWS`, taken out of it, as a table with the same head; or None."""
    body = next(iter(table.findall(nodes.tbody)), None)
    if body is None or len(body) <= ROWS:
        return None
    rest = table.deepcopy()
    rest["ids"], rest["names"] = [], []
    others = next(iter(rest.findall(nodes.tbody)))
    del others[:ROWS]
    del body[ROWS:]
    return rest


def fold(table):
    """Puts the rows beyond the first `ROWS` of a table into a fold below it."""
    rest = split(table)
    if rest is None:
        return
    count = len(next(iter(rest.findall(nodes.tbody))))
    head = html.escape(f"{count} more row{'s' if count > 1 else ''}")
    begin = nodes.raw("", f'<details class="more-rows"><summary>{head}</summary>', format="html")
    end = nodes.raw("", "</details>", format="html")
    place = table.parent.index(table) + 1
    table.parent.insert(place, [begin, rest, end])


def fold_long_tables(app, doctree, docname):
    """After a page is resolved: all its tables."""
    if app.builder.name != "html" or docname == app.config.root_doc:
        return
    for table in list(doctree.findall(nodes.table)):
        fold(table)


def setup(app):
    """Registers it with Sphinx."""
    app.connect("doctree-resolved", fold_long_tables, priority=900)  # after the links to the glossary
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
