"""Says of every executed page, and under every figure, what made it, folded; with a figure's data as CSV beside it.

A page is an executed notebook: its parameters, those that were injected, its imports and the note on its scale stand
in the first cells. They become one fold below the question, with the values that made the page, not the defaults.
"""

import ast
import base64
import struct
from pathlib import Path, PurePosixPath

import nbformat

FOLD = ":::::{{dropdown}} {title}\n:class-container: made-by\n\n{text}\n:::::"


def tags(cell):
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def parameters(cells):
    """Name and value, as Python writes them, of the cells tagged as parameters: what was injected counts."""
    given = {}
    for tag in ("parameters", "injected-parameters"):
        for cell in (c for c in cells if tag in tags(c)):
            lines = [n for n in ast.parse(cell.source).body if isinstance(n, ast.Assign)]
            given |= {node.targets[0].id: ast.get_source_segment(cell.source, node.value) for node in lines}
    return given


def note(cell):
    """The Markdown that a cell has put out: (its first paragraph, the others)."""
    texts = [o.data["text/markdown"] for o in cell.outputs if "text/markdown" in o.get("data", {})]
    first, _, rest = "\n\n".join(texts).partition("\n\n")
    return first, rest


def fold(title, *parts):
    """A Markdown cell that is folded away below its title."""
    return nbformat.v4.new_markdown_cell(FOLD.format(title=title, text="\n\n".join(filter(None, parts))))


def code(source):
    """Python source as a block of Markdown."""
    return f"```python\n{source}\n```" if source else ""


def data_link(docname, name):
    """Where the data of a figure lie, as a link from its page; (path below the HTML, HTML)."""
    path = f"data/{PurePosixPath(docname).name}-{name}.csv"
    up = "../" * (len(PurePosixPath(docname).parts) - 1)
    return path, f'<a href="{up}{path}" download>The numbers of this figure (CSV)</a>'


def take_csv(cell):
    """The data of a figure, if the cell has put them out; they are no output any more, as no page can show them."""
    return "".join(o.data.pop("text/csv") for o in cell.outputs if "text/csv" in o.get("data", {}))


def sized(cell):
    """Shows a picture that was drawn at twice its size at its own: {"width": pixels}; {} for others."""
    for output in cell.outputs:
        shown = output.get("metadata", {}).get("image/png", {})
        if "width" in shown:
            width = struct.unpack(">I", base64.b64decode(output.data["image/png"][:64])[16:20])[0]
            return {"width": f"{min(width, shown['width'])}px"}
    return {}


def folded(nb, docname):
    """The notebook of a page with its plumbing in folds; and the data of its figures, by path below the HTML."""
    cells, files = nb.cells, {}
    first = next((k for k, c in enumerate(cells) if "parameters" in tags(c)), None)
    if first is None:
        return nb, files
    given = parameters(cells)
    setup = next(c for c in cells[first:] if c.cell_type == "code" and not any("parameters" in t for t in tags(c)))
    facts, visible = note(setup)
    notebook = f"Notebook `notebooks/{PurePosixPath(docname).name}.ipynb`"
    date = nb.metadata.get("executed", "")
    facts = f"{notebook}, executed {date}. {facts}" if date else f"{notebook}. {facts}"
    shown = "\n".join(f"{name} = {value}" for name, value in given.items())
    out, last = [], []
    for cell in cells:
        if cell is setup:
            title = f"Made at scale {ast.literal_eval(given['scale'])}" if "scale" in given else "What made this page"
            made = fold(title, facts, "With the parameters", code(shown), "and the imports", code(setup.source))
            (last if "fold-at-end" in tags(setup) else out).append(made)
            if visible:
                out.append(nbformat.v4.new_markdown_cell(visible))
        elif not any("parameters" in tag for tag in tags(cell)):
            out += _with_fold(cell, facts, shown, docname, files)
    nb.cells = out + last
    return nb, files


def _with_fold(cell, facts, shown, docname, files):
    if cell.cell_type != "code":
        return [cell]
    numbers = take_csv(cell)
    figure = cell.metadata.get("mystnb", {}).get("figure")
    if not figure:
        if "hide-input" in tags(cell) and not any(_visible(o) for o in cell.outputs):
            cell.metadata["tags"] = [*tags(cell), "remove-cell"]  # it glues numbers into the text
        return [cell]
    if not cell.outputs:
        return [cell]
    cell.metadata["mystnb"]["image"] = {**sized(cell), **cell.metadata["mystnb"].get("image", {})}
    source, link = "", ""
    if "hide-input" in tags(cell):
        source = code(cell.source)
        cell.metadata["tags"] = [*(t for t in tags(cell) if t != "hide-input"), "remove-input"]
    if numbers:
        path, link = data_link(docname, figure["name"])
        files[path] = numbers
    return [cell, fold("Made by", facts, "With the parameters", code(shown), source, link)]


def _visible(output):
    return output.output_type != "display_data" or not all(
        kind.startswith("application/papermill.record") for kind in output.get("data", {})
    )


def insert(app, docname, source):
    """Before a page is parsed: folds in an executed notebook, and its figures' data into the HTML."""
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    nb, files = folded(nbformat.reads(source[0], as_version=4), docname)
    source[0] = nbformat.writes(nb)
    for path, text in files.items():
        target = Path(app.outdir) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def setup(app):
    """Registers it with Sphinx."""
    app.connect("source-read", insert)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
