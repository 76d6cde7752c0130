"""What a run directory says, read and checked: a missing, truncated or foreign file is one RunError with a way out."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
from jsonschema.exceptions import best_match
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from iterative_retraining.errors import RunError
from iterative_retraining.files import SEAL, file_sha256, state_sha256, unsealed
from iterative_retraining.runs.schemas import DIGEST, SCHEMAS

FIT = "fit.safetensors"
ENDINGS = {"checkpoint": "safetensors", "samples": "npy", "preview": "png"}
RESTORE = "restore it, or start again in another directory"


def _parsed(text: bytes, schema: str) -> Any:
    """``text`` as JSON that keeps the schema of that name, without its seal; every number finite, no key twice.

    Raises ValueError, for a seal of another content too. What earlier code has written has none.
    """

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits} is no finite number")
        return value

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key is there twice")
        return found

    try:
        value = json.loads(text, object_pairs_hook=once, parse_float=number, parse_constant=number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    content = {key: one for key, one in value.items() if key != SEAL} if isinstance(value, dict) else value
    wrong = best_match(_validator(schema).iter_errors(content))
    if wrong is not None:
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in wrong.absolute_path)
        message = wrong.message if len(wrong.message) < 200 else f"{wrong.message[:200]}..."
        raise ValueError(f"{place.removeprefix('.')}: {message}" if place else message)
    known = _validator(schema).schema["properties"]
    for key, one in content.items():
        if key not in known and isinstance(one, str) and re.fullmatch(DIGEST["pattern"], one):
            raise ValueError(f"{key} is no key of it: its seal is called {SEAL}")
    return unsealed(value)


@cache
def _validator(schema: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(SCHEMAS[schema])


def _read_json(file: Path, schema: str) -> dict[str, Any]:
    """The JSON object in ``file``. Raises RunError if it is missing, unreadable or damaged."""
    try:
        return _parsed(file.read_bytes(), schema)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(f"{file} is missing; {RESTORE}") from error
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{file} is damaged ({error}); {RESTORE}") from error


def read_config(path: str | Path) -> dict[str, Any]:
    """``config.json`` of a run directory: its run_id, and its identity by parameter. Raises RunError."""
    return _read_json(Path(path) / "config.json", "config")


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a run directory; one without attempts if it has none yet. Raises RunError."""
    file = Path(path) / "manifest.json"
    return _read_json(file, "manifest") if file.exists() else {"attempts": []}


def named(path: str | Path, file: str, measurement: str = "") -> Path:
    """Where a run directory keeps ``file``, such as ledger.jsonl, of its own or of a later ``measurement`` by name."""
    stem, _, ending = file.partition(".")
    return Path(path) / (f"{stem}-{measurement}.{ending}" if measurement else file)


def read_floor(path: str | Path, measurement: str = "") -> dict[str, Any]:
    """The real-vs-real floor of a run: the metrics' settings, and the values of each over random halvings.

    measurement: the name of a later one, see `iterative_retraining.remeasure`; "" for the run's own.
    Raises RunError if it is missing or damaged.
    """
    return _read_json(named(path, "floor.json", measurement), "floor")


def read_measurement(path: str | Path, measurement: str) -> dict[str, Any]:
    """What made a later measurement of a run: feature space, settings, and every attempt. Raises RunError."""
    return _read_json(named(path, "manifest.json", measurement), "measurement")


def read_ledger(path: str | Path, measurement: str = "") -> list[dict[str, Any]]:
    """The complete generations of a run directory, generation 0 first; a last line without its end does not count.

    measurement: the name of a later one, which has the generations that were kept; "" for the run's own.
    Raises RunError if a complete line does not parse, lacks something or is out of order.
    """
    file = named(path, "ledger.jsonl", measurement)
    try:
        lines = file.read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise RunError(f"cannot read {file}: {error.strerror}") from error
    rows = []
    for number, line in enumerate(lines):
        try:
            row = _parsed(line, "row")
            if row["generation"] != number and not measurement:
                raise ValueError(f"generation {row['generation']} where {number} belongs")
            if any(row["generation"] == other["generation"] for other in rows):
                raise ValueError(f"generation {row['generation']} is there twice")
        except ValueError as error:
            raise RunError(
                f"{file}, line {number + 1} is damaged ({error}); restore it, or cut the file before that line and "
                "start again in another directory with init= this one"
            ) from error
        rows.append(row)
    return sorted(rows, key=lambda row: row["generation"])


def check_whole(path: Path, rows: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> None:
    """Raises RunError if the manifest is of another run, or if the ledger has fewer generations than other files of the
    run directory prove.

    A kill leaves no such thing: the manifest is there before the first line, and the weights of generation t after
    line t - 1. To compute those generations again would overwrite them.
    """
    if rows and not manifest["attempts"]:
        raise RunError(
            f"{path / 'manifest.json'} is missing, which says what made its {len(rows)} generations; {RESTORE}"
        )
    if manifest["attempts"] and manifest["config"] != read_config(path)["identity"]:
        raise RunError(f"{path / 'manifest.json'} is of another configuration than config.json beside it; {RESTORE}")
    proven = [0]
    for attempt in manifest["attempts"]:
        proven += [attempt["first_generation"], attempt.get("last_generation", -1) + 1]
    for file in path.iterdir():
        found = re.fullmatch(rf"({'|'.join(ENDINGS)})-(\d+)\.\w+", file.name)
        proven += [int(found[2])] if found else []
    if max(proven) > len(rows):
        raise RunError(
            f"{path / 'ledger.jsonl'} holds {len(rows)} complete generations and there were {max(proven)} or more; "
            f"{RESTORE}"
        )


def file_of(path: Path, kind: str, generation: int) -> Path:
    """Where a run directory keeps "checkpoint", "samples" or "preview" of a generation."""
    return path / f"{kind}-{generation:04d}.{ENDINGS[kind]}"


def check_file(path: Path, kind: str, row: Mapping[str, Any]) -> Path:
    """The file of a complete generation. Raises RunError unless its bytes are those that its ledger line names."""
    file = file_of(path, kind, row["generation"])
    try:
        whole = file_sha256(file) == row[f"{kind}_sha256"]
    except OSError:
        whole = False
    if not whole:
        raise RunError(
            f"{file} is {'damaged' if file.is_file() else 'missing'}, and nothing can go on from generation "
            f"{row['generation']} without it; {RESTORE}"
        )
    return file


def read_state(path: str | Path) -> dict[str, np.ndarray]:
    """The weights of the last complete generation of a run directory. Raises RunError if they are damaged."""
    rows = read_ledger(path)
    if not rows:
        raise RunError(f"{path} holds no complete generation yet")
    return load_file(check_file(Path(path), "checkpoint", rows[-1]))


def state_of(path: Path, row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights of a generation. Raises RunError if they are no longer kept, or damaged."""
    file = file_of(path, "checkpoint", row["generation"])
    if not file.is_file():
        raise RunError(f"{file} is missing: the weights of generation {row['generation']} are no longer kept")
    return load_file(check_file(path, "checkpoint", row))


def read_fit(path: Path, seed: int) -> dict[str, np.ndarray] | None:
    """The checkpoint within the fit of this seed, if one is there and whole: else that fit begins at its beginning."""
    try:
        with safe_open(path / FIT, "np") as stored:
            about = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None
    whole = about == {"seed": str(seed), "sha256": state_sha256(state)}
    return state if whole else None


def read_samples(path: str | Path) -> np.ndarray:
    """The samples of the last complete generation, memory-mapped. Raises RunError if they are damaged."""
    rows = read_ledger(path)
    if not rows:
        raise RunError(f"{path} holds no complete generation yet")
    return samples_of(Path(path), rows[-1])


def samples_of(path: Path, row: Mapping[str, Any]) -> np.ndarray:
    """The samples of a generation, memory-mapped. Raises RunError if they are no longer kept, or damaged."""
    file = file_of(path, "samples", row["generation"])
    if not file.is_file():
        raise RunError(f"{file} is missing: the samples of generation {row['generation']} are no longer kept")
    return np.load(check_file(path, "samples", row), mmap_mode="r", allow_pickle=False)


def read_strip(file: Path) -> np.ndarray:
    """The preview images of a PNG side by side, uint8 (H, N W[, C]). Raises RunError if it is missing or damaged."""
    try:
        with Image.open(file) as picture:
            return np.asarray(picture)
    except Exception as error:  # of a broken PNG, Pillow passes on whatever zlib, struct and its own parser raise
        raise RunError(f"{file} is {'damaged' if file.is_file() else 'missing'} ({error}); restore it") from error
