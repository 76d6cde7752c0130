"""The parameters of a notebook: papermill only warns of a name that does not exist, we refuse it."""

import ast
import difflib
from collections.abc import Collection, Mapping
from typing import Any

from iterative_retraining.config import ConfigError

INJECTED = "# Parameters"  # how papermill begins the cell it injects


def check_parameters(namespace: Mapping[str, Any], names: str) -> None:
    """Call it right after the parameters cell as ``check_parameters(globals(), "lam seed ...")``, all names in one string.

    Raises ConfigError if papermill injected a name that is not among ``names``.
    """
    known = names.split()
    for source in namespace.get("In", []):
        if source.startswith(INJECTED):
            _check(_assigned(source), known)


def _assigned(source: str) -> list[str]:
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _check(given: Collection[str], known: Collection[str]) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown parameter {name!r}; this notebook takes: {', '.join(known)}{hint}")
