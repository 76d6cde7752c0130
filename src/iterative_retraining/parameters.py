"""Parameters as text: one reading of values at every door, and the refusal of names that do not exist.

A value is read as YAML 1.2 (core schema) reads it, with digits that may be grouped by _ as in Python: 010 is 10, 1e-3
is a number, 1:30, yes and 2020-01-01 are text. The doors: ``-p`` and ``-f`` of the command line, profiles, papermill's
``-p``. What papermill reads itself (``-f``, ``-y``), it reads as YAML 1.1, where 010 is 8 and 1:30 is 90; what becomes
of that is told in `yaml_door`.
"""

import ast
import keyword
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import yaml

from iterative_retraining.errors import ConfigError, refuse_unknown
from iterative_retraining.yaml_door import papermill_yaml, same_meaning

PATHS = ("init", "features_weights", "data_dir", "tensorboard_dir")  # parameters that a profile takes too, and text
INJECTED = "# Parameters"  # how papermill begins the cell it injects
DIGITS = "[0-9]+(?:_[0-9]+)*"
SCALARS = {  # of the core schema, https://yaml.org/spec/1.2.2/#103-core-schema
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": rf"[-+]?{DIGITS}|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": rf"[-+]?(?:\.{DIGITS}|{DIGITS}(?:\.(?:{DIGITS})?)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}


class CoreLoader(yaml.SafeLoader):
    """YAML with the scalars of the core schema of YAML 1.2, and ``<<``. A key that is there twice is an error."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A dict. Raises ConstructorError, with the place, for a key that is there twice."""
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is there twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Decimal whatever zeros it begins with; 0o and 0x say another base."""
        text = self.construct_scalar(node)
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


for _tag, _pattern in SCALARS.items():
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})$"), None)
CoreLoader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"<<$"), ["<"])  # of YAML 1.1, in profiles
CoreLoader.add_constructor("tag:yaml.org,2002:int", CoreLoader.construct_int)


def load_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML document, and its nodes, which know their lines; None for an empty document.

    Raises ValueError, with the line, for what is none.
    """
    try:
        loader = CoreLoader(text)
        root = loader.get_single_node()
        return (None if root is None else loader.construct_document(root)), root
    except Exception as error:  # beside YAMLError, PyYAML passes on whatever int() and recursion raise
        mark, what = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        raise ValueError(f"line {mark.line + 1}: {what}" if mark else str(what)) from error


def parse_value(text: str) -> Any:
    """The value that ``text`` means. What begins with [, {, " or ' is YAML (and so JSON); the rest is one scalar,
    whole: ``x #1`` and ``a: 1`` are text, and so is nothing.

    Raises ConfigError for a list, mapping or quotation that does not end well.
    """
    plain = text.strip()
    try:
        if plain.startswith(("[", "{", '"', "'")):
            return load_yaml(text)[0]
        tag = next((tag for tag, pattern in SCALARS.items() if plain and re.fullmatch(pattern, plain)), "str")
        return CoreLoader("").construct_object(yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", plain))
    except ValueError as error:
        raise ConfigError(
            f"the value {text} is not allowed ({error}); write lists and mappings as JSON, such as "
            "'[1, 2]' or '{\"channels\": 8}', and text that begins like one in double quotes"
        ) from error


def check_text(name: str, value: object, given: object) -> None:
    """Raises ConfigError, with the form that works, for a number where text belongs, as of a folder called 2024."""
    if isinstance(value, int | float):
        raise ConfigError(f"{name} = {given} is not allowed: it is text, which is written -p {name} '\"{given}\"'")


def check_parameters(namespace: dict[str, Any], names: str) -> None:
    """Call it right after the parameters cell: ``check_parameters(globals(), "lam seed ...")``, names in one string.

    Where papermill handed over text for a parameter whose default is none (``-p model_options '{"channels": 8}'``), its
    value becomes what `parse_value` reads; where it read a file itself, see `same_meaning`. Raises ConfigError if
    papermill injected a name that is not among ``names``, a number where the default is no text at all, or a value that
    YAML 1.2 reads otherwise.
    """
    defaults: dict[str, Any] = {}
    for source in namespace.get("In", []):
        if not source.startswith(INJECTED):
            defaults |= _literals(source)
            continue
        injected = _assigned(source)
        refuse_unknown("parameter of this notebook", injected, names.split())
        given = _given_in_yaml()
        for name in injected:
            if defaults.get(name) == "":
                check_text(name, namespace.get(name), namespace.get(name))
            if name in given:
                namespace[name] = same_meaning(name, namespace.get(name), given[name])
            elif isinstance(namespace.get(name), str):
                value = parse_value(namespace[name])
                if isinstance(value, str) or not isinstance(defaults.get(name), str):
                    namespace[name] = value


def explain_keywords() -> None:
    """Call it before the parameters cell: a name that Python cannot assign to, as in ``-p lambda 0.5``, is then refused
    like any other unknown name (ConfigError), where papermill's cell by itself ends in a SyntaxError.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return

    def refuse(lines: list[str]) -> list[str]:
        if lines and lines[0].startswith(INJECTED):
            known = [name for source in shell.user_ns.get("In", []) for name in _literals(source)]
            names = [line.partition(" = ")[0] for line in lines[1:] if " = " in line]
            refuse_unknown("parameter of this notebook", filter(_is_no_name, names), dict.fromkeys(known))
        return lines

    shell.input_transformers_cleanup.append(refuse)


def _is_no_name(text: str) -> bool:
    return keyword.iskeyword(text) or not text.isidentifier()


def _given_in_yaml() -> dict[str, Any]:
    """The parameters that papermill, if it has started this kernel, was handed as YAML, as every door reads them."""
    given: dict[str, Any] = {}
    texts, others = papermill_yaml()
    for where, text in texts.items():
        try:
            value, _ = load_yaml(text)
        except ValueError as error:
            raise ConfigError(f"cannot read {where}: {error}") from error
        given |= value if isinstance(value, dict) else {}
    return {name: value for name, value in given.items() if name not in others}


def _assigned(source: str) -> Mapping[str, ast.expr]:
    """The expressions that a cell assigns to names."""
    assignments = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {t.id: node.value for node in assignments for t in node.targets if isinstance(t, ast.Name)}


def _literals(source: str) -> dict[str, Any]:
    """The literals that a cell assigns to names; none if it is no plain Python, as one with a magic of IPython."""
    try:
        assigned = _assigned(source)
    except SyntaxError:
        return {}
    found = {}
    for name, value in assigned.items():
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, TypeError):
            continue
    return found
