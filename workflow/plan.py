"""What is left of a profile, and what that costs, before anything starts: runs, images, samples, hours, disk.

    python workflow/plan.py cpu
    python workflow/plan.py paper/edm-cifar10 --device a100
    python workflow/plan.py paper/edm-cifar10 --check
    python workflow/plan.py profiles/mine.yml --gpus 3 --images-per-second 9000 --samples-per-second 150

Times come from throughputs: those that ledgers of the same data set, model and options measured, those given here, or
for a named card those of a table. Neither data nor weights have to be there; --check says what is missing here.
"""

import argparse
import heapq
import json
import math
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from iterative_retraining.config import RunConfig
from iterative_retraining.datasets import DATASETS
from iterative_retraining.errors import ConfigError, UserError
from iterative_retraining.models import build_model
from iterative_retraining.retrain import N_PREVIEW
from iterative_retraining.runs.origin import init_identity
from iterative_retraining.runs.reading import read_ledger
from iterative_retraining.schemes import set_size

from cards import CARDS, Card, find_card, memory_table, tabled_speed
from check import check
from profiles import PlannedRun, Profile, load_profile
from speeds import Kind, NotMeasuredError, Speed, measured_speeds, n_drawn

NOT_THERE = " is not there"  # ends what names weights without a file


@dataclass(frozen=True)
class Work:
    """What is left of a run. ``samples`` counts previews too; ``disk``: bytes that the finished run keeps."""

    run_id: str
    init: str | None
    kind: Kind
    generations: int
    images: int
    samples: int
    disk: int

    def seconds(self, speed: Speed) -> float:
        """Device time."""
        fit, sample = self.images / speed.images_per_second, self.samples / speed.samples_per_second
        return fit + sample + self.generations * speed.seconds_metrics


def work_left(profile: Profile, root: Path) -> list[Work]:
    """The runs of a profile that are not complete, ``root`` being the folder of its run directories."""
    left = []
    for run in profile.runs.values():
        n_complete = len(read_ledger(root / run.run_id))
        if n_complete <= run.parameters["n_retrain"]:
            left.append(_work(run, n_complete))
    return left


def _work(run: PlannedRun, n_complete: int) -> Work:
    """What is left of ``run`` after ``n_complete`` generations. Raises ConfigError for options that no model takes."""
    config, n_retrain = run.config, run.parameters["n_retrain"]
    data, n = DATASETS[config.dataset], config.n_real or DATASETS[config.dataset].counts["train"]
    try:
        state = _state_bytes(config.model, tuple(data.shape), json.dumps(config.identity()["options"]))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{run.run_id}: {error}") from error
    scheme, left = config.built_scheme, range(n_complete, n_retrain + 1)
    keep_rate = config.keep_rate if config.selector else None
    drawn, history = n_drawn(n, scheme, keep_rate), scheme.history_length or math.inf
    weights = {0, n_retrain, *range(0, n_retrain + 1, run.parameters.get("keep_every") or n_retrain + 1)}
    every = run.parameters.get("keep_samples", 1)
    sampled = [t for t in range(n_retrain + 1) if n_retrain - t < history or (every and t % every == 0)]
    kept = len(sampled) * (drawn - N_PREVIEW) + (n_retrain + 1) * N_PREVIEW  # as if PNG saved nothing
    return Work(
        run_id=run.run_id,
        init=run.init,
        kind=Kind.of(config.dataset, config.model, config.options, run.parameters.get("features", "auto")),
        generations=len(left),
        images=sum(_images_of_fit(config, t, n) for t in left),
        samples=len(left) * drawn,
        disk=len(weights) * state + kept * math.prod(data.shape),
    )


def _images_of_fit(config: RunConfig, generation: int, n: int) -> int:
    """Images that the fit of a generation shows to the model, with ``n`` real data; none where theta_0 is loaded."""
    if generation == 0 and config.init:
        return 0
    if not config.family.trains_in_batches:  # sees every datum once
        return set_size(config.built_scheme, n, generation)
    from_scratch = generation == 0 or not config.options["warm_start"]
    return config.n_images_initial if from_scratch else config.n_images_per_retraining


@cache
def _state_bytes(model: str, item_shape: tuple[int, ...], options: str) -> int:
    built = build_model(model, item_shape, json.loads(options), n_images_initial=0, n_images_per_retraining=0)
    return built.state_bytes(item_shape)


def chains(left: Sequence[Work], seconds: Mapping[str, float]) -> list[list[str]]:
    """For every run that waits for no other: itself and the longest arm that waits for it, by run id."""
    ids, arms = {work.run_id for work in left}, defaultdict(list)
    for work in left:
        arms[work.init].append(work.run_id)
    return [[w.run_id, *sorted(arms[w.run_id], key=seconds.get)[-1:]] for w in left if w.init not in ids]


def makespan(left: Sequence[Work], seconds: Mapping[str, float], n_devices: int) -> float:
    """Seconds until all is done if a free device always takes the run that can start and has the longest chain."""
    ready = [(-sum(map(seconds.get, chain)), chain[0]) for chain in chains(left, seconds)]
    heapq.heapify(ready)
    started, waiting = {run_id for _, run_id in ready}, defaultdict(list)
    for work in left:
        if work.run_id not in started:
            waiting[work.init].append((-seconds[work.run_id], work.run_id))
    running, now = [], 0.0
    while ready or running:
        while ready and len(running) < n_devices:
            run_id = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + seconds[run_id], run_id))
        now, run_id = heapq.heappop(running)
        for arm in waiting[run_id]:
            heapq.heappush(ready, arm)
    return now


def report(profile: Profile, left: Sequence[Work], speeds: Mapping[Kind, Speed] | str, gpus: Sequence[int]) -> str:
    """The plan as Markdown; ``speeds`` is the reason why where none are known, and the plan then has no times."""
    done = f"{len(profile.runs) - len(left)} of {len(profile.runs)} runs are complete and left out."
    if not left:
        return f"## Plan of {profile.name}\n\n{done} Nothing is left to do."
    if isinstance(speeds, str):
        table = _cost_table(left, dict.fromkeys((work.run_id for work in left), math.nan), profile.arms)
        return "\n\n".join([f"## Plan of {profile.name}", done, table, f"Times are not known: {speeds}."])
    seconds = {work.run_id: work.seconds(speeds[work.kind]) for work in left}
    longest = max(chains(left, seconds), key=lambda chain: sum(map(seconds.get, chain)))
    hours = _number(sum(map(seconds.get, longest)) / 3600)
    days = [f"| {k} | {_number(makespan(left, seconds, k) / 86400)} |" for k in gpus]
    paragraphs = [
        f"## Plan of {profile.name}",
        done,
        _cost_table(left, seconds, profile.arms),
        "\n".join(["| devices, a run on each | days |", "|---|---|", *days]),
        f"The longest chain cannot be split: {hours} hours for {', then '.join(longest)}.",
        _speed_table(speeds),
        "Not counted: the start of a run, its real-vs-real floor, chapters.",
    ]
    return "\n\n".join(paragraphs)


def _cost_table(left: Sequence[Work], seconds: Mapping[str, float], arms: Collection[str]) -> str:
    groups = defaultdict(list)
    for work in left:
        groups[f"{work.kind}: {'arms' if work.run_id in arms else 'theta_0'}"].append(work)
    lines = [
        "| left to do | runs | generations | images to train on | samples to draw | device-hours | disk, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, works in [*groups.items(), ("all", left)]:
        counts = [len(works), *(sum(getattr(w, of) for w in works) for of in ("generations", "images", "samples"))]
        hours, disk = sum(seconds[w.run_id] for w in works) / 3600, sum(w.disk for w in works) / 1e6
        lines.append(f"| {label} | {' | '.join(map(_number, (*counts, hours, disk)))} |")
    return "\n".join(lines)


def _speed_table(speeds: Mapping[Kind, Speed]) -> str:
    lines = ["| speed | images / s | samples / s | metrics, s a generation | from |", "|---|---|---|---|---|"]
    for kind, speed in speeds.items():
        numbers = (speed.images_per_second, speed.samples_per_second, speed.seconds_metrics)
        cells = " | ".join(map(_number, numbers))
        lines.append(f"| {kind}, features {kind.features} | {cells} | {speed.source} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Whole from 1 000 on, else with three digits; a dash where it is not known."""
    if math.isnan(value):
        return "–"
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:.3g}"


def main(arguments: Sequence[str]) -> str:
    """The plan that the command line asks for. Raises ConfigError or RunError."""
    parser = argparse.ArgumentParser(prog="plan.py", description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="a name in profiles/, or a file")
    parser.add_argument("--gpus", type=_positive(int), nargs="+", default=[1, 2, 4, 8], metavar="K", help="devices")
    parser.add_argument("--images-per-second", type=_positive(float), metavar="X", help="training, of every model")
    parser.add_argument("--samples-per-second", type=_positive(float), metavar="Y", help="sampling, of every model")
    parser.add_argument("--metrics-seconds", type=_positive(float), metavar="Z", help="of a generation")
    parser.add_argument("--results", type=Path, nargs="+", metavar="DIR", help="folders of runs: results runs/*")
    cards = f"a card of the table ({', '.join(CARDS)}), or runs on devices with this in their name alone"
    parser.add_argument("--device", default="", metavar="NAME", help=cards)
    parser.add_argument("--check", action="store_true", help="what is missing here: files, disk, memory, driver")
    given = parser.parse_args(arguments)
    if (given.images_per_second is None) != (given.samples_per_second is None):
        parser.error("--images-per-second and --samples-per-second belong together")
    is_file = given.profile.endswith((".yml", ".yaml"))
    path = given.profile if is_file else Path("profiles") / f"{given.profile}.yml"
    profile = load_profile(path, identity=there_or_not)
    left = work_left(profile, Path("runs") / profile.name)
    if given.check:
        return check(profile, sum(work.disk for work in left), given.device)
    kinds = list(dict.fromkeys(work.kind for work in left))
    if given.images_per_second is None:
        speeds = _known_speeds(kinds, given)
    else:
        source = "given" if given.metrics_seconds else "given; metrics not counted, --metrics-seconds adds them"
        speed = Speed(given.images_per_second, given.samples_per_second, given.metrics_seconds or 0.0, source)
        speeds = dict.fromkeys(kinds, speed)
    missing = sorted({run.start for run in profile.runs.values() if run.start.endswith(NOT_THERE)})
    note = f"Before a run: {', '.join(missing)}; --check says what else is missing." if missing else ""
    card = find_card(given.device)
    memory = memory_table(kinds, card) if card else ""
    return "\n\n".join(filter(None, [report(profile, left, speeds, given.gpus), memory, note]))


def there_or_not(init: str) -> str:
    """What names the weights of a run, see `init_identity`; where nothing is there yet, words that say so. Such a run
    has another id than it will have, and is planned whole."""
    return init_identity(init) if Path(init).exists() else f"{Path(init).name}{NOT_THERE}"


def _known_speeds(kinds: Iterable[Kind], given: argparse.Namespace) -> Mapping[Kind, Speed] | str:
    """Measured speeds, or for a named card those of the table where none are; the reason why if there are neither."""
    folders = given.results or [Path("results"), *sorted(p for p in Path("runs").glob("*") if p.is_dir())]
    card = find_card(given.device)
    if card is not None:
        return {kind: _measured_or_tabled(kind, folders, given, card) for kind in kinds}
    try:
        return measured_speeds(kinds, folders, given.device, given.metrics_seconds)
    except NotMeasuredError as error:
        if given.device:
            raise NotMeasuredError(f"{error}. Cards of the table: {', '.join(CARDS)}") from error
        if given.results:  # asked for by name
            raise
        return str(error)


def _measured_or_tabled(kind: Kind, folders: Sequence[Path], given: argparse.Namespace, card: Card) -> Speed:
    try:
        return measured_speeds([kind], folders, given.device, given.metrics_seconds)[kind]
    except NotMeasuredError:
        return tabled_speed(kind, card)


def _positive(number: type) -> type:
    def positive(text: str) -> float:
        value = number(text)
        if not 0 < value < math.inf:
            raise ValueError(text)
        return value

    positive.__name__ = f"{number.__name__} > 0"  # what argparse calls it in its message
    return positive


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
