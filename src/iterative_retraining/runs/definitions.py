"""The sources of the package as definitions, each with what of its text counts and what it refers to; nothing is run.

A definition is a function, an assignment or a class of a module, or a method of such a class, which stands beside its
class. What else a module does when it is imported is one definition more, `IMPORTED`.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

ROOT = __name__.partition(".")[0]
IMPORTED = "<module>"
SILENT = ("annotation", "returns", "type_comment", "type_params", "ctx", "kind")  # fields of a node that do nothing
MEANT = ("ClassVar", "InitVar", "KW_ONLY")  # the annotations that make another dataclass
BY_NAME = {"getattr": 1, "hasattr": 1, "setattr": 1, "attrgetter": 0, "methodcaller": 0}  # where they take the name
Import = tuple[str, str]  # of a module, and a name in it or ""
Chain = tuple[str, ...]  # a dotted name, in its parts


class Text:
    """What counts of a definition: all but docstrings, comments, annotations and import statements.

    parts: its text in order; a `Chain` is a name that stands for whatever it is bound to
    imports: names bound by import statements within
    mentions: attributes that it asks of anything; words: texts in it that could be such names; by_name: whether it asks
        for attributes whose names it is handed
    """

    def __init__(self, nodes: tuple[ast.AST, ...], module: str, is_package: bool) -> None:
        self.parts: list[str | Chain] = []
        self.imports: dict[str, Import] = {}
        self.mentions: set[str] = set()
        self.words: set[str] = set()
        self.by_name = self._in_class = False
        self._home = module, is_package
        for node in nodes:
            self._add(node)

    @property
    def references(self) -> Iterator[Chain]:
        """The names in it that may be bound to something."""
        return (part for part in self.parts if isinstance(part, tuple))

    def _add(self, node: object) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self.imports |= imported(node, *self._home)
            case ast.Pass() | ast.Expr(value=ast.Constant()):
                pass
            case ast.Constant(value=value):
                self.parts.append(f"{type(value).__name__} {value!r}")
                self.words |= {value} if isinstance(value, str) and value.isidentifier() else set()
            case ast.Name(id=name):
                self.parts.append((name,))
                self.mentions |= {name} if self._in_class else set()  # where it may be a method of that class
            case ast.Attribute(attr=name) if chain := dotted(node):
                self.parts.append(chain)
                self.mentions.update(chain[1:])
            case ast.AnnAssign():
                self._add_annotated(node)
            case ast.AST():
                self._add_node(node)
            case list():
                self.parts.append("[")
                for one in node:
                    before = len(self.parts)
                    self._add(one)
                    self.parts += [","] * (len(self.parts) > before)
                self.parts.append("]")
            case _:
                self.parts.append(repr(node))

    def _add_node(self, node: ast.AST) -> None:
        before, words = self._in_class, set(self.words)
        if isinstance(node, ast.Attribute):
            self.mentions.add(node.attr)
        elif isinstance(node, ast.MatchClass):
            self.mentions.update(node.kwd_attrs)
        elif isinstance(node, ast.Call):
            self._note_attribute(node)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            self._in_class = isinstance(node, ast.ClassDef)
        self.parts.append(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if name not in SILENT and value is not None and value != []:
                self.parts.append(f"{name}=")
                self._add(value)
        self.parts.append(")")
        self._in_class = before
        if isinstance(node, ast.JoinedStr):
            self.words = words

    def _add_annotated(self, node: ast.AnnAssign) -> None:
        """As without its annotation; in a class it may be a field of a dataclass, and says so."""
        if self._in_class:
            marks = {chain[-1] for chain in map(dotted, ast.walk(node.annotation)) if chain}
            self.parts.append(f"field {sorted(marks & set(MEANT))}")
        if node.value is not None:
            self._add_node(ast.Assign([node.target], node.value))
        elif self._in_class:
            self._add(node.target)

    def _note_attribute(self, call: ast.Call) -> None:
        chain = dotted(call.func)
        if chain and chain[-1] in BY_NAME:
            place = BY_NAME[chain[-1]]
            name = call.args[place] if len(call.args) > place else None
            if isinstance(name, ast.Constant):
                self.mentions.add(str(name.value))
            else:
                self.by_name = True


@dataclass(eq=False)
class Definition:
    """One definition: ``module`` is dotted and relative to the package, ``name`` the one within it, "Fit.step".

    bases, methods: of a class. The nodes of one that is defined more than once, such as a property, are all of them.
    """

    module: str
    is_package: bool
    name: str
    nodes: tuple[ast.AST, ...] = ()
    bases: tuple[ast.expr, ...] = ()
    methods: dict[str, "Definition"] = field(default_factory=dict)

    @cached_property
    def text(self) -> Text:
        """What of it counts."""
        return Text(self.nodes, self.module, self.is_package)

    def narrowed(self, keys: tuple[str, ...]) -> Text:
        """The text of a registry, an assignment of one literal dict, with the entries ``keys`` alone and in order.

        The whole text where it is no such thing, or has no such key.
        """
        value = getattr(self.nodes[0], "value", None)
        if len(self.nodes) == 1 and isinstance(value, ast.Dict):
            pairs = zip(value.keys, value.values, strict=True)
            entries = {key.value: one for key, one in pairs if isinstance(key, ast.Constant)}
            if len(entries) == len(value.keys) and set(keys) <= set(entries):
                own = ast.Dict([ast.Constant(key) for key in sorted(keys)], [entries[key] for key in sorted(keys)])
                return Text((ast.Assign([ast.Name(self.name)], own),), self.module, self.is_package)
        return self.text


class Module:
    """A source file: its definitions by qualified name, and what each of its names is bound to."""

    def __init__(self, source: str, name: str, is_package: bool) -> None:
        self.name, self.is_package = name, is_package
        self.definitions: dict[str, Definition] = {}
        self.bindings: dict[str, Definition | Import] = {}
        for statement in ast.parse(source).body:
            self._read(statement)

    @property
    def loads(self) -> Iterator[Import]:
        """What it imports when it is imported."""
        return (bound for bound in self.bindings.values() if isinstance(bound, tuple))

    def _read(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Import() | ast.ImportFrom():
                self.bindings |= imported(statement, self.name, self.is_package)
            case ast.Pass() | ast.Expr(value=ast.Constant()) | ast.AnnAssign(value=None):
                pass
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                if not any((dotted(one) or ("",))[-1] == "overload" for one in statement.decorator_list):
                    self.bindings[name] = self._define(name, statement)
            case ast.ClassDef(name=name):
                self.bindings[name] = self._define_class(statement)
            case ast.AnnAssign(target=ast.Name(id=name)):
                self.bindings[name] = self._define(name, statement)
            case ast.Assign(targets=targets) if names := _names(targets):
                self.bindings |= {name: self._define(name, statement) for name in names if name != "__all__"}
            case ast.If(test=test) if _is_aside(test):
                for one in statement.orelse:
                    self._read(one)
            case _:
                self._read_other(statement)

    def _read_other(self, statement: ast.stmt) -> None:
        """A statement that does something, a loop or an `if`, say; what it binds belongs to it."""
        definition = self._define(IMPORTED, statement)
        for node in ast.walk(statement):
            match node:
                case ast.Import() | ast.ImportFrom():
                    self.bindings |= imported(node, self.name, self.is_package)
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                    self.bindings.setdefault(name, definition)

    def _define(self, name: str, node: ast.AST) -> Definition:
        definition = self.definitions.setdefault(name, Definition(self.name, self.is_package, name))
        definition.nodes += (node,)
        return definition

    def _define_class(self, node: ast.ClassDef) -> Definition:
        own = {one: one.name for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        rest = [one for one in node.body if one not in own]
        head = self._define(node.name, ast.ClassDef(node.name, node.bases, node.keywords, rest, node.decorator_list))
        head.bases = tuple(node.bases)
        for method, name in own.items():
            head.methods[name] = self._define(f"{node.name}.{name}", method)
        return head


class Package(Mapping[str, Module]):
    """The modules below ``folder`` by dotted name, "" for the package itself; a file is read when it is asked for, so
    one that nothing needs may be broken. A folder without an __init__ is a package too, as Python has it."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path | None] = {"": None}
        for file in folder.rglob("*.py"):
            words = file.relative_to(folder).with_suffix("").parts
            for n in range(1, len(words)):
                self._files.setdefault(".".join(words[:n]), None)
            self._files[".".join(words[:-1] if words[-1] == "__init__" else words)] = file
        self._read: dict[str, Module] = {}

    def __getitem__(self, name: str) -> Module:
        if name not in self._read:
            file = self._files[name]
            source = file.read_text(encoding="utf-8") if file else ""
            self._read[name] = _read_module(source, name, file is None or file.name == "__init__.py")
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files


_read_module = lru_cache(maxsize=1024)(Module)


def dotted(node: ast.AST) -> Chain:
    """The parts of a dotted name, or () for another node."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    return (node.id, *reversed(words)) if isinstance(node, ast.Name) else ()


def imported(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> dict[str, Import]:
    """What an import statement in ``module`` binds. Raises ValueError for a star, which does not say."""
    if isinstance(node, ast.Import):
        return {
            a.asname or a.name.partition(".")[0]: (a.name if a.asname else a.name.partition(".")[0], "")
            for a in node.names
        }
    full = node.module or ""
    if node.level:
        here = [ROOT, *module.split(".")] if module else [ROOT]
        above = here[: len(here) - node.level + is_package]
        full = ".".join([*above, *([full] if full else [])])
    if any(alias.name == "*" for alias in node.names):
        raise ValueError(f"from {full} import * in {module or ROOT}: what it binds cannot be told; name it")
    return {alias.asname or alias.name: (full, alias.name) for alias in node.names}


def _names(targets: list[ast.expr]) -> list[str]:
    """The names that an assignment binds, if it does nothing else."""
    flat = [one for target in targets for one in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return [one.id for one in flat] if all(isinstance(one, ast.Name) for one in flat) else []


def _is_aside(test: ast.expr) -> bool:
    """Whether it is TYPE_CHECKING or __name__ == "__main__": not so when a run imports the module."""
    return (dotted(test) or ("",))[-1] == "TYPE_CHECKING" or (
        isinstance(test, ast.Compare) and dotted(test.left) == ("__name__",)
    )
