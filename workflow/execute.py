"""Executes a chapter's notebook by papermill and leaves a page: outputs kept, injected parameters folded.

python workflow/execute.py notebooks/05_images.ipynb out/05_images.ipynb '{"scale": "quick"}'
"""

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import papermill

from iterative_retraining.parameters import parse_value


def execute(notebook: str, page: str, parameters: dict) -> None:
    """Runs ``notebook`` from the current directory and writes ``page``, whole or not at all: a page that is there stays
    where the notebook fails.

    Raises ValueError for a parameter that the notebook does not have, papermill's PapermillExecutionError where a cell
    has the output of an error.
    """
    known = papermill.inspect_notebook(notebook)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(f"{notebook} has no parameter {unknown[0]!r}; it has: {', '.join(known)}")
    target = Path(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=target.parent) as folder:
        part = Path(folder) / target.name
        papermill.execute_notebook(notebook, str(part), parameters, progress_bar=False, start_timeout=300, cwd=".")
        clean(part)
        part.replace(target)


def clean(page: Path) -> None:
    """Removes what a reader does not need: times, paths, standard error; folds the injected parameters away. The day
    stays, as ``executed`` in the metadata."""
    nb = nbformat.read(page, as_version=4)
    nb.metadata.pop("papermill", None)
    nb.metadata["executed"] = datetime.now(UTC).date().isoformat()
    for cell in nb.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata["tags"].append("hide-input")
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    nbformat.write(nb, page)


def errors(page: Path) -> list[str]:
    """The errors among the outputs of a notebook, one line each."""
    outputs = [o for c in nbformat.read(page, as_version=4).cells if c.cell_type == "code" for o in c.outputs]
    return [f"a cell ended in {o.ename}: {o.evalue}" for o in outputs if o.output_type == "error"]


def main() -> None:
    """Executes what the command line names. Raises ValueError."""
    parser = argparse.ArgumentParser(prog="execute.py", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="such as notebooks/05_images.ipynb")
    parser.add_argument("page", help="the notebook to write")
    parser.add_argument("parameters", nargs="?", default="{}", help="a JSON object (default: {})")
    given = parser.parse_args()
    parameters = parse_value(given.parameters)
    if not isinstance(parameters, dict):
        raise ValueError(f"the parameters {given.parameters} are not allowed: they are a JSON object")
    if not Path(given.notebook).is_file():
        raise ValueError(f"there is no notebook {given.notebook}")
    execute(given.notebook, given.page, parameters)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
