"""How fast runs are: throughputs that ledgers measured, by data set, model and options."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from iterative_retraining.errors import ConfigError
from iterative_retraining.interfaces import Scheme
from iterative_retraining.models import resolve_options
from iterative_retraining.retrain import N_PREVIEW
from iterative_retraining.runs.reading import read_config, read_floor, read_ledger, read_manifest
from iterative_retraining.schemes import build_scheme
from iterative_retraining.selectors import n_candidates

# Options that change what a network learns or samples, but not how long a batch of either takes.
SPEED_NEUTRAL = (
    *("learning_rate", "lr_rampup_images", "ema_halflife_images", "warm_start"),
    *("sigma_data", "p_mean", "p_std", "sigma_min", "sigma_max", "rho", "start_data_std", "tolerance"),
)
N_NAMED = 12  # runs that a source names


class NotMeasuredError(ConfigError):
    """No ledger has measured how fast such a run is."""


@dataclass(frozen=True)
class Kind:
    """What decides how fast a run is; ``options`` are JSON, ``features`` the space of its metrics, "auto" resolved."""

    dataset: str
    model: str
    options: str
    features: str

    @classmethod
    def of(cls, dataset: str, model: str, options: Mapping[str, Any], features: str) -> "Kind":
        """The kind of a run with resolved ``options``."""
        relevant = {k: v for k, v in options.items() if k not in SPEED_NEUTRAL}
        return cls(dataset, model, json.dumps(relevant, sort_keys=True), dataset if features == "auto" else features)

    def __str__(self) -> str:
        defaults = json.loads(json.dumps(resolve_options(self.model, self.dataset, {})))
        own = {key: value for key, value in json.loads(self.options).items() if value != defaults.get(key)}
        options = ", ".join(f"{key} = {value}" for key, value in own.items())
        return f"{self.model} on {self.dataset}" + (f" with {options}" if options else "")


@dataclass(frozen=True)
class Speed:
    """Throughputs, seconds of metrics a generation, and where they come from."""

    images_per_second: float
    samples_per_second: float
    seconds_metrics: float
    source: str


@dataclass(frozen=True)
class _Measured:
    """The generations of a ledger that one device computed: what they amount to, and the seconds that took."""

    kind: Kind
    run: str
    device: str
    generations: int
    images: int
    samples: int
    seconds_fit: float
    seconds_sample: float
    seconds_metrics: float


def n_drawn(n: int, scheme: Scheme, keep_rate: float | None = None) -> int:
    """Samples that a generation draws with ``n`` real data, previews included; ``keep_rate``: of its selector."""
    n_kept = scheme.n_samples(n)
    return max(n, n_kept if keep_rate is None else n_candidates(n_kept, keep_rate)) + N_PREVIEW


def measured_speeds(
    kinds: Iterable[Kind], folders: Sequence[Path], device: str = "", seconds_metrics: float | None = None
) -> dict[Kind, Speed]:
    """The speed of each of ``kinds``: medians over the run directories in ``folders``, of what each did in all its
    generations; for the metrics, of any model, unless ``seconds_metrics`` is given.

    Raises NotMeasuredError if something was not measured on a device whose name has ``device`` in it, ConfigError if it
    was on several.
    """
    found = [
        one for path in _run_directories(folders) for one in _measured(path) if device.lower() in one.device.lower()
    ]
    speeds, missing = {}, []
    for kind in dict.fromkeys(kinds):
        of_kind = [m for m in found if _equally_fast(m.kind, kind)]
        of_space = [m for m in found if m.kind.dataset == kind.dataset and _same_space(m.kind, kind)]
        if not any(m.images for m in of_kind):
            missing.append(str(kind))
        elif seconds_metrics is None and not of_space:
            missing.append(f"the metrics with features {kind.features} on {kind.dataset}")
        else:
            metrics = seconds_metrics
            if metrics is None:
                metrics = median(m.seconds_metrics / m.generations for m in of_space)
                _refuse_several(of_kind + of_space)
            _refuse_several(of_kind)
            images = median(m.images / m.seconds_fit for m in of_kind if m.images)
            samples = median(m.samples / m.seconds_sample for m in of_kind)
            speeds[kind] = Speed(images, samples, metrics, _source(of_kind))
    if missing:
        where = ", ".join(map(str, folders)) or "results or runs/*"
        on = f" on a device with {device!r} in its name" if device else ""
        raise NotMeasuredError(
            f"no ledger in {where} measured{on}: {'; '.join(dict.fromkeys(missing))}. Give --images-per-second and "
            "--samples-per-second (and --metrics-seconds), a card of the table by --device, such as a100, or run a "
            "short profile of it first"
        )
    return speeds


def _run_directories(folders: Sequence[Path]) -> list[Path]:
    """The run directories in ``folders`` with a generation and a floor, the first of each run id."""
    paths = [ledger.parent for folder in folders for ledger in sorted(folder.glob("*/ledger.jsonl"))]
    by_id = {read_config(path)["run_id"]: path for path in reversed(paths) if (path / "floor.json").is_file()}
    return sorted(path for path in by_id.values() if read_ledger(path))


def _measured(path: Path) -> Iterator[_Measured]:
    """What each device did of a run: a generation counts for the attempt that made it."""
    identity, rows = read_config(path)["identity"], read_ledger(path)
    kind = Kind.of(*(identity[key] for key in ("dataset", "model", "options")), read_floor(path)["features"])
    scheme = build_scheme(identity["scheme"], identity["lam"], identity.get("scheme_options"))
    drawn = n_drawn(rows[0]["n_real"], scheme, identity.get("keep_rate"))
    devices = ["an unknown device"] * len(rows)
    for attempt in read_manifest(path)["attempts"]:
        hardware, later = attempt["hardware"], devices[attempt["first_generation"] :]
        threads = f", {hardware['threads']} thread(s)" if hardware["device"] == "cpu" else ""
        devices[attempt["first_generation"] :] = [hardware["name"] + threads] * len(later)
    for device in dict.fromkeys(devices):
        own = [row for row, of_row in zip(rows, devices, strict=True) if of_row == device]
        n_images = sum(row["n_images"] for row in own)
        seconds = [sum(row[f"seconds_{stage}"] for row in own) for stage in ("fit", "sample", "metrics")]
        yield _Measured(kind, path.name, device, len(own), n_images, len(own) * drawn, *seconds)


def _equally_fast(a: Kind, b: Kind) -> bool:
    """But for the metrics."""
    return (a.dataset, a.model, a.options) == (b.dataset, b.model, b.options)


def _same_space(measured: Kind, wanted: Kind) -> bool:
    """Whether the space that a floor names, e.g. fashion-mnist-classifier-64, is what a run's ``features`` asks for."""
    return measured.features.replace("_", "-").startswith(wanted.features.replace("_", "-"))


def _source(measured: Sequence[_Measured]) -> str:
    runs = list(dict.fromkeys(m.run for m in measured))
    others = f" and {len(runs) - N_NAMED} other runs" if len(runs) > N_NAMED else ""
    n_generations = sum(m.generations for m in measured)
    return f"measured: {n_generations} generations on {measured[0].device}: {', '.join(runs[:N_NAMED])}{others}"


def _refuse_several(measured: Sequence[_Measured]) -> None:
    devices = sorted({m.device for m in measured})
    if len(devices) > 1:
        raise ConfigError(
            f"the ledgers come from several devices ({'; '.join(devices)}), whose median says nothing of any; choose "
            "one by --device, or folders by --results"
        )
