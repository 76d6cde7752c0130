"""Which lines of the package a run executes, what can be mutated on them, and other edits of a copy of the package."""

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from iterative_retraining.runs.source import PACKAGE, ROOT

Line = tuple[str, int]  # of a file, relative to the package


class Trace:
    """A context in which the functions of the package, by their first lines, and all their lines are noted."""

    def __init__(self) -> None:
        self.functions: set[Line] = set()
        self.lines: set[Line] = set()

    def __enter__(self) -> "Trace":
        sys.settrace(self._called)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _called(self, frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith(f"{PACKAGE}/") or not code.co_flags & inspect.CO_OPTIMIZED:
            return None  # of another package, or the body of a class or module
        file = code.co_filename.removeprefix(f"{PACKAGE}/")
        self.functions.add((file, code.co_firstlineno))

        def line(frame, event, argument):
            self.lines.add((file, frame.f_lineno))
            return line

        return line


OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}
COMPARISONS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq}
COMPARISONS |= {ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In}


def sites(tree: ast.Module, lines: set[int]) -> Iterator[tuple[str, ast.AST, str, int]]:
    """What can be mutated on these lines: kind, node and, of a statement, the field that holds it and its place."""
    silent = {
        id(n)
        for top in ast.walk(tree)
        for field in ("annotation", "returns")
        if getattr(top, field, None)
        for n in ast.walk(getattr(top, field))
    }
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            for k, one in enumerate(block if isinstance(block, list) else ()):
                if is_plain(one) and one.lineno in lines:
                    yield "delete", node, field, k
                    if k + 1 < len(block) and is_plain(block[k + 1]) and ast.dump(one) != ast.dump(block[k + 1]):
                        yield "swap", node, field, k
                if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
                    silent.add(id(one.value))
    for node in ast.walk(tree):
        if id(node) in silent or getattr(node, "lineno", 0) not in lines:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
            yield "constant", node, "", 0
        if type(getattr(node, "op", None)) in OPERATORS and isinstance(node, ast.BinOp | ast.AugAssign):
            yield "operator", node, "", 0
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
            yield "comparison", node, "", 0
        if isinstance(node, ast.If | ast.IfExp | ast.While):
            yield "negate", node, "", 0


def is_plain(statement: ast.stmt) -> bool:
    """Whether it does something, and is no definition or import."""
    silent = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    others = ast.Import | ast.ImportFrom | ast.Pass | ast.FunctionDef | ast.ClassDef | ast.Global | ast.Nonlocal
    return not silent and not isinstance(statement, others)


def mutate(kind: str, node: ast.AST, field: str, k: int) -> None:
    match kind:
        case "delete":
            getattr(node, field)[k] = ast.Pass()
        case "swap":
            block = getattr(node, field)
            block[k], block[k + 1] = block[k + 1], block[k]
        case "constant":
            old = node.value
            node.value = (not old) if isinstance(old, bool) else old + ("x" if isinstance(old, str) else 1)
        case "operator":
            node.op = OPERATORS[type(node.op)]()
        case "comparison":
            node.ops[0] = COMPARISONS[type(node.ops[0])]()
        case "negate":
            node.test = ast.UnaryOp(ast.Not(), node.test)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def rewrite(package: Path, change: Callable[[ast.AST], None], files: str = "**/*.py") -> None:
    """Applies ``change`` to every node of these files; their comments and layout are lost."""
    for file in package.glob(files):
        tree = ast.parse(file.read_text())
        for node in list(ast.walk(tree)):
            change(node)
        file.write_text(ast.unparse(tree))


def extend(package: Path, name: str, statement: str) -> None:
    """Adds a statement to the body of the definitions with this qualified name."""
    outer, _, inner = name.rpartition(".")

    def add(node: ast.AST) -> None:
        here = isinstance(node, ast.ClassDef) and node.name == outer if outer else isinstance(node, ast.Module)
        for one in node.body if here else ():
            if getattr(one, "name", "") == inner:
                one.body += ast.parse(statement).body
                found.append(one)

    found: list[ast.AST] = []
    rewrite(package, add)
    assert found, name


def reword(node: ast.AST) -> None:
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            first.value.value = "Other words."


def annotate(node: ast.AST) -> None:
    if isinstance(node, ast.arg) and node.annotation is not None:
        node.annotation = ast.Name("object")
    elif isinstance(node, ast.FunctionDef):
        node.returns = None
    elif isinstance(node, ast.AnnAssign) and not ast.unparse(node.annotation).startswith(("ClassVar", "InitVar")):
        node.annotation = ast.Name("object")


def reorder_imports(node: ast.AST) -> None:
    if isinstance(node, ast.Module):
        imports = [one for one in node.body if isinstance(one, ast.Import | ast.ImportFrom)]
        node.body = imports[::-1] + [one for one in node.body if one not in imports]


def rename(package: Path, old: str, new: str) -> None:
    """Another name for a module, "models.edm", say, wherever it is imported."""
    (package / f"{old.replace('.', '/')}.py").rename(package / f"{new.replace('.', '/')}.py")
    for file in package.rglob("*.py"):
        file.write_text(file.read_text().replace(f"from {ROOT}.{old} import", f"from {ROOT}.{new} import"))
