"""Pages for phones, keyboards and screen readers: our style sheet and script, and what the builders write amiss.

Mended in the HTML are header cells that hold nothing, the roles of a bibliography, whose children are no list items,
a sidebar outside of every landmark, and controls whose label hides the words that they show.
"""

import re
from pathlib import Path

STYLE = "reader.css"
SIDEBAR = '<div id="pst-primary-sidebar" class="bd-sidebar-primary bd-sidebar"'
MENDS = (
    (re.compile(r"<th([^>]*)>(?:\s|<p></p>)*</th>"), r"<td\1></td>"),
    (re.compile(r' role="list"( class="citation-list")'), r"\1"),
    (re.compile(r' role="doc-biblioentry"'), ""),
    (re.compile(r' id="(proof-content|proof|exercise-content|solution-content)"'), ""),  # of every one on a page
    (re.compile(rf"{SIDEBAR}>"), rf'{SIDEBAR} role="region" aria-label="Sidebar">'),
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    (re.compile(r'(search-button-field[^>]*?) aria-label="Search"'), r"\1"),
    (re.compile(r'(data-mode="\w+"\s+)title="[^"]+"'), r'\1aria-hidden="true"'),
)


def mended(page: str) -> str:
    """The HTML of a page, mended; of a page that was mended before, the same."""
    for wrong, right in MENDS:
        page = wrong.sub(right, page)
    return page


def mend(app, error):
    """After an HTML build: every page of the book."""
    if error is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        if "_static" not in page.parts:
            page.write_text(mended(page.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app):
    """Registers them with Sphinx."""
    app.add_css_file(STYLE, priority=900)  # after the theme's; Jupyter Book adds every script of _static by itself
    app.connect("build-finished", mend)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
