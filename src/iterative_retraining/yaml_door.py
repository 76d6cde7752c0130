"""What papermill reads itself: files and text of parameters (-f, -y, -b), as YAML 1.1, before a notebook begins.

The notebook's kernel is a child of papermill, whose command line says which texts these were.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iterative_retraining.errors import ConfigError, shown


def papermill_yaml() -> tuple[dict[str, str], set[str]]:
    """The YAML texts that papermill was handed, by where they stand and in the order in which it reads them; and the
    names that ``-p`` and ``-r`` set after them. Nothing, where this process is no child of papermill's command."""
    words, folder = _parent()
    programs = [place for place, word in enumerate(words[:3]) if Path(word).name == "papermill"]
    if not programs:
        return {}, set()
    from papermill.cli import papermill

    given = papermill.make_context("papermill", words[programs[0] + 1 :], resilient_parsing=True).params
    texts = {f"the parameters {text} of -b": base64.b64decode(text).decode() for text in given["parameters_base64"]}
    files = [folder / name for name in given["parameters_file"]]  # what is no local file, papermill fetches
    texts |= {str(file): file.read_text(encoding="utf-8") for file in files if file.is_file()}
    texts |= {f"the parameters {text} of -y": text for text in given["parameters_yaml"]}
    return texts, {name for name, _ in (*given["parameters"], *given["parameters_raw"])}


def _parent() -> tuple[list[str], Path]:
    """Command line and current directory of the process that has started this one; none if it has ended."""
    import psutil

    try:
        parent = psutil.Process().parent()
        return ([], Path()) if parent is None else (parent.cmdline(), Path(parent.cwd()))
    except psutil.Error:
        return [], Path()


def same_meaning(name: str, read: object, meant: object) -> Any:
    """What papermill ``read``, where YAML 1.2 reads the same, ``meant``; of text that is a value in YAML 1.2, such as
    1e-3, the value. Raises ConfigError, with what to write, where they mean different things.
    """
    if isinstance(read, Mapping) and isinstance(meant, Mapping) and list(read) == list(meant):
        return {key: same_meaning(f"{name}.{key}", read[key], meant[key]) for key in read}
    if isinstance(read, list) and isinstance(meant, list) and len(read) == len(meant):
        return [same_meaning(f"{name}[{place}]", *pair) for place, pair in enumerate(zip(read, meant, strict=True))]
    if isinstance(read, str) and not isinstance(meant, str):
        return meant
    if type(read) is type(meant) and repr(read) == repr(meant):
        return read
    one, other = (json.dumps(value, default=str) for value in (read, meant))
    raise ConfigError(
        f"{name} = {shown(read)} is what papermill reads, as YAML 1.1; every other door reads {shown(meant)}, as YAML "
        f"1.2: write {one} or {other}, whichever is meant"
    )
