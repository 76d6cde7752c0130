"""Which code decides a run's numbers, definition by definition: what an experiment of that configuration can reach.

Sources are read and not run. From `ROOTS` on, a definition reaches whatever the names in it are bound to, and of a
class that is reached every method that any reached definition asks for by name ("rapid type analysis"), with all those
that Python or a base class from elsewhere may call. So more is reached than is executed, and never less, except by
names that are computed, and by what a decorator or an assignment does besides where nothing reaches its own name. Of a
registry the chosen entries count alone. Files that are no code, such as weights of a classifier, do not count.

A definition is known by its name within its module and a digest of its text without docstrings, comments, annotations,
imports and places: what it takes from other packages counts by the name it has there. So a move or a new neighbour
changes nothing, and a changed line does.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from iterative_retraining.runs.definitions import IMPORTED, ROOT, Chain, Definition, Module, Package, Text, dotted

PACKAGE = Path(__file__).parents[1]
ROOTS = ("experiment.open_experiment", "experiment.Experiment.records")
# What is called on the way, and only records or tells: nothing that it returns or writes is read for a number.
NOT_FOLLOWED = (
    "runs.source",  # this module,
    "runs.definitions",  # and what it reads sources with
    "runs.provenance",  # writes the manifest; refuses other real images than before
    "runs.attempts",  # how an attempt ends, and whether the disk is large enough to begin it
    "file_kinds",  # words for error messages
    "devices",  # likewise, and which device "auto" is; the manifest has it
    "models.memory",  # how many images go through the network at once
    "runs.locks",  # one process at a time in a directory
    "runs.origin.init_identity",  # names the weights that a run starts from, for its run id
    "experiment._initial_identity",  # the same weights' configuration, for the manifest
)
PLAIN_BASES = ("object", "typing.Protocol", "typing.Generic", "typing.NamedTuple", "abc.ABC")  # they call no method
Pair = tuple[str, str]  # qualified name, 16 hexadecimal digits of the text's SHA-256


def definitions(
    package: Path = PACKAGE,
    chosen: Mapping[str, Collection[str]] | None = None,
    *,
    without: Collection[str] = (),
    roots: Sequence[str] = ROOTS,
) -> list[Pair]:
    """Qualified name and digest of all that ``roots`` reach in the package in that folder, sorted.

    chosen: of the registries with these names, the keys that count; any other registry counts whole, and so does one
        that is no literal dict or has no such key
    without: definitions or modules that are not followed, besides `NOT_FOLLOWED`

    Raises KeyError for a root that is not there.
    """
    return Reach(package, chosen or {}, {*NOT_FOLLOWED, *without}, roots).pairs()


def source_sha256(pairs: Iterable[Sequence[str]]) -> str:
    """SHA-256 of `definitions`."""
    return hashlib.sha256(json.dumps([list(pair) for pair in pairs]).encode()).hexdigest()


def changed(stored: Iterable[Sequence[str]], here: Iterable[Sequence[str]]) -> list[str]:
    """The names of definitions that differ between two lists of them, with " (gone)" or " (new)" after those that only
    ``stored`` or ``here`` has; what both have comes first."""
    old, new = _by_name(stored), _by_name(here)
    both = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
    gone, added = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    return both + [f"{name} (gone)" for name in gone] + [f"{name} (new)" for name in added]


def _by_name(pairs: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name, digest in sorted(map(tuple, pairs)):
        found[name].append(digest)
    return found


def of_run(
    identity: Mapping[str, Any], features: str | None = None, metrics: Collection[str] | None = None
) -> list[Pair]:
    """`definitions` here for a run with that identity (`RunConfig.identity`), in that feature space, by those metrics;
    None for any."""
    chosen, without = choices(identity, features, metrics)
    return _here(tuple(sorted(chosen.items())), without)


def choices(
    identity: Mapping[str, Any], features: str | None = None, metrics: Collection[str] | None = None
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """``chosen`` and ``without`` of `definitions` for such a run: starting weights are not read where there are none,
    nor from a published file where another run left them."""
    network = identity["options"].get("network")
    chosen = {
        "MODELS": (identity["model"],),
        "SCHEMES": (identity["scheme"],),
        "DATASETS": (identity["dataset"],),
        "NETWORKS": () if network is None else (network,),
        "SOLVERS": tuple(identity["options"][name] for name in ("solver",) if name in identity["options"]),
    }
    selector, reward = identity.get("selector"), identity.get("selector_options", {}).get("reward")
    chosen |= {"SELECTORS": (selector,) if selector else (), "REWARDS": (reward,) if reward else ()}
    chosen |= {} if features is None else {"FEATURES": (features,)}
    chosen |= {} if metrics is None else {"METRICS": tuple(sorted(metrics))}
    init = identity.get("init") or ""
    if "@sha256:" in init:
        return chosen, ()
    return chosen, ("models.pretrained.state_that_fits" if init else "experiment._initial_state",)


@cache
def _here(chosen: tuple[tuple[str, tuple[str, ...]], ...], without: tuple[str, ...]) -> list[Pair]:
    return definitions(PACKAGE, dict(chosen), without=without)


Bound = Definition | Module | str | None  # str: a dotted name of another package; None: a variable, or Python's own


class Reach:
    """All that ``roots`` reach: `found`, each definition with its text."""

    def __init__(
        self, package: Path, chosen: Mapping[str, Collection[str]], outside: Collection[str], roots: Iterable[str]
    ) -> None:
        self.modules, self.chosen, self.outside = Package(package), chosen, outside
        self.found: dict[Definition, Text] = {}
        self._entered: set[str] = set()
        self._mentions: set[str] = set()
        self._words: set[str] = set()
        self._by_name = False
        self._waiting: dict[str, list[Definition]] = defaultdict(list)  # methods of reached classes, by name
        self._pending = [self._root(root) for root in roots]
        while self._pending:
            self._take(self._pending.pop())

    def _root(self, root: str) -> Definition:
        module = max((name for name in self.modules if root.startswith(f"{name}.")), key=len, default="")
        return self.modules[module].definitions[root.removeprefix(f"{module}.")]

    def _is_outside(self, definition: Definition) -> bool:
        return bool({definition.module, f"{definition.module}.{definition.name}"} & set(self.outside))

    def _take(self, definition: Definition) -> None:
        if definition in self.found or self._is_outside(definition):
            return
        keys = self.chosen.get(definition.name)
        text = definition.text if keys is None else definition.narrowed(tuple(keys))
        self.found[definition] = text
        self._enter(definition.module)
        for full, name in text.imports.values():
            self._load(full, name)
        for chain in text.references:
            bound, _ = self._bound(chain, text, definition.module)
            if isinstance(bound, Definition):
                self._pending.append(bound)
            elif isinstance(bound, Module):  # handed on as a whole
                self._pending += bound.definitions.values()
        if definition.bases or definition.methods:
            self._open(definition)
        self._by_name |= text.by_name
        self._words |= text.words
        self._mention(text.mentions | (self._words if self._by_name else set()))

    def _mention(self, names: set[str]) -> None:
        for name in names - self._mentions:
            self._pending += self._waiting.pop(name, [])
        self._mentions |= names

    def _open(self, head: Definition) -> None:
        """A class is reached: its methods are, or wait until they are asked for."""
        called = self._is_called_from_elsewhere(head)
        for name, method in head.methods.items():
            if called or name in self._mentions or (name.startswith("__") and name.endswith("__")):
                self._pending.append(method)
            else:
                self._waiting[name].append(method)

    def _is_called_from_elsewhere(self, head: Definition) -> bool:
        """Whether a base class is of another package, which may call any method."""
        for base in head.bases:
            chain = dotted(getattr(base, "value", base) if type(base).__name__ == "Subscript" else base)
            bound = self._bound(chain, head.text, head.module)[0] if chain else None
            if isinstance(bound, Definition):
                if self._is_called_from_elsewhere(bound):
                    return True
            elif (bound or ".".join(chain)) not in PLAIN_BASES:
                return True
        return False

    def _enter(self, name: str) -> None:
        """A module is imported, and with it those above it and those that it imports: what that does is reached."""
        if name in self._entered or name in self.outside:
            return
        self._entered.add(name)
        module = self.modules[name]
        if IMPORTED in module.definitions:
            self._pending.append(module.definitions[IMPORTED])
        if name:
            self._enter(name.rpartition(".")[0])
        for full, attribute in module.loads:
            self._load(full, attribute)

    def _load(self, full: str, attribute: str) -> None:
        for name in (full, f"{full}.{attribute}"):
            own = name.removeprefix(ROOT).removeprefix(".")
            if (name == ROOT or name.startswith(f"{ROOT}.")) and own in self.modules:
                self._enter(own)

    def _bound(self, chain: Chain, text: Text, module: str) -> tuple[Bound, int]:
        """What a dotted name is bound to, and how many parts of it name that."""
        bound: Definition | tuple[str, str] | None = text.imports.get(chain[0])
        bound = self.modules[module].bindings.get(chain[0]) if bound is None else bound
        found: Bound = self._imported(*bound) if isinstance(bound, tuple) else bound
        used = 1
        while isinstance(found, Module) and used < len(chain):
            found, used = self._member(found, chain[used]), used + 1
        return found, used

    def _imported(self, full: str, name: str) -> Bound:
        if full != ROOT and not full.startswith(f"{ROOT}."):
            return f"{full}.{name}" if name else full
        module = self.modules.get(full.removeprefix(ROOT).removeprefix("."))
        return module if module is None or not name else self._member(module, name)

    def _member(self, module: Module, name: str) -> Bound:
        bound, own = module.bindings.get(name), f"{module.name}.{name}".removeprefix(".")
        if isinstance(bound, tuple) and bound != (f"{ROOT}.{module.name}".removesuffix("."), name):
            return self._imported(*bound)
        if isinstance(bound, Definition):
            return bound
        return self.modules.get(own) or module.definitions.get("__getattr__")

    def pairs(self) -> list[Pair]:
        """The name and digest of all that is reached, sorted."""
        namesakes = defaultdict(list)
        for definition in self.found:
            namesakes[definition.name].append(definition)
        return sorted((d.name, _digest(self._written(d, text, namesakes))) for d, text in self.found.items())

    def _written(
        self, definition: Definition, text: Text, namesakes: Mapping[str, Sequence[Definition]] | None = None
    ) -> str:
        """The text in which names are those of what they are bound to; as they stand, without ``namesakes``."""
        words = []
        for part in text.parts:
            if isinstance(part, str):
                words.append(part)
                continue
            bound, used = self._bound(part, text, definition.module) if namesakes is not None else (None, 0)
            rest = part[used:]
            if isinstance(bound, Definition):
                own = part[used - 1] if bound.name == IMPORTED else self._told_apart(bound, namesakes or {})
                words.append(f"own {'.'.join((own, *rest))}")
            elif isinstance(bound, str):
                words.append(f"import {'.'.join((bound, *rest))}")
            else:
                words.append(".".join(part))
        return "".join(f"{word} " for word in words)

    def _told_apart(self, definition: Definition, namesakes: Mapping[str, Sequence[Definition]]) -> str:
        """Its name; of several reached with one name, also the digest of its text, or the module of equal ones."""
        others = [one for one in namesakes.get(definition.name, ()) if one is not definition]
        if not others or definition not in self.found:
            return definition.name
        mine, *theirs = (_digest(self._written(one, self.found[one])) for one in (definition, *others))
        return f"{definition.name}@{definition.module if mine in theirs else mine}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
