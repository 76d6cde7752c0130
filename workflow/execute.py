"""Executes a chapter's notebook by papermill and leaves a page: outputs kept, injected parameters folded.

python workflow/execute.py notebooks/05_images.ipynb out/05_images.ipynb '{"scale": "quick"}'
"""

import json
import sys
from pathlib import Path

import nbformat
import papermill


def execute(notebook: str, page: str, parameters: dict) -> None:
    """Runs ``notebook`` from the current directory and writes ``page``.

    Raises ValueError for a parameter that the notebook does not have.
    """
    known = papermill.inspect_notebook(notebook)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(f"{notebook} has no parameter {unknown[0]!r}; it has: {', '.join(known)}")
    Path(page).parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(notebook, page, parameters, progress_bar=False, start_timeout=300, cwd=".")
    clean(Path(page))


def clean(page: Path) -> None:
    """Removes what a reader does not need: times, paths, standard error; folds the injected parameters away."""
    nb = nbformat.read(page, as_version=4)
    nb.metadata.pop("papermill", None)
    for cell in nb.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("hide-input")
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    nbformat.write(nb, page)


if __name__ == "__main__":
    execute(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
