"""The errors that a user can mend: each message names the value, what is allowed and the way out."""

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


class UserError(Exception):
    """What every command line prints as one line, without a traceback."""


class ConfigError(UserError, ValueError):
    """A parameter is not allowed."""


class DataError(UserError, RuntimeError):
    """The files of a data set are missing or damaged."""


class RunError(UserError, RuntimeError):
    """A run directory cannot be used or written."""


class WeightsError(UserError, RuntimeError):
    """Weights of a feature network are missing, damaged or of another network."""


class PretrainedError(UserError, RuntimeError):
    """Weights to start from are missing, damaged, hostile, or of a network that this package does not have."""


class NonFiniteLossError(UserError, FloatingPointError):
    """A training loss was NaN or infinite; the message names the step and the last finite loss."""


LONGEST = 200  # characters of a value in a message


def shown(value: object) -> str:
    """``value`` as a message shows it, cut where it is long; its type alone where it cannot be written."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # as of an int of more than 4300 digits, or a list that holds itself too deep
        return f"<{type(value).__name__}>"
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}... ({len(text)} characters)"


def refuse_unknown(kind: str, given: Iterable[object], allowed: Collection[str], *, of: str = "") -> None:
    """Raises ConfigError at the first of ``given`` that is not among ``allowed``; ``kind`` says what they are, ``of``
    whose."""
    for value in given:
        if not isinstance(value, str) or value not in allowed:
            close = difflib.get_close_matches(value, allowed, n=1) if isinstance(value, str) else ()
            hint = f"; did you mean {close[0]!r}?" if close else ""
            what = f"{kind} {shown(value)}" + (f" of {of}" if of else "")
            raise ConfigError(f"unknown {what}; allowed: {', '.join(allowed) or 'none'}{hint}")


def find(kind: str, name: str, registry: Mapping[str, Entry]) -> Entry:
    """The entry called ``name``. Raises ConfigError for a name that the registry does not have."""
    refuse_unknown(kind, [name], list(registry))
    return registry[name]
