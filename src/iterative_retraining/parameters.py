"""The parameters of a notebook: papermill only warns of a name that does not exist, we refuse it."""

import ast
from collections.abc import Mapping
from typing import Any

from iterative_retraining.errors import refuse_unknown

INJECTED = "# Parameters"  # how papermill begins the cell it injects


def check_parameters(namespace: Mapping[str, Any], names: str) -> None:
    """Call it right after the parameters cell: ``check_parameters(globals(), "lam seed ...")``, names in one string.

    Raises ConfigError if papermill injected a name that is not among ``names``.
    """
    for source in namespace.get("In", []):
        if source.startswith(INJECTED):
            refuse_unknown("parameter of this notebook", _assigned(source), names.split())


def _assigned(source: str) -> list[str]:
    targets = [t for node in ast.parse(source).body if isinstance(node, ast.Assign) for t in node.targets]
    return [target.id for target in targets if isinstance(target, ast.Name)]
