"""Graphics cards by name, for a plan on a card that nobody has measured yet: data sheets, and a share of them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from iterative_retraining.datasets import DATASETS
from iterative_retraining.errors import ConfigError
from iterative_retraining.models import MODELS, resolve_options
from iterative_retraining.models.family import NetworkFamily
from iterative_retraining.models.memory import USABLE, images_that_fit, training_bytes
from iterative_retraining.studies.report.costs import retraining_cost

from speeds import Kind, Speed

SHARE = 0.25  # of the peak that training and sampling reach: assumed, as in chapter 06; measured runs take its place
ADAPTIVE = 140  # evaluations a sample of a solver that chooses its steps: assumed
METRICS_SECONDS = 0.004  # a sample: 165 to 220 s of host work were measured for 50 000 of them


@dataclass(frozen=True)
class Card:
    """A card: its memory in GB, and its peak FLOP/s by data sheet, without sparsity: of float32, which a run takes
    whole (no TF32), and of bfloat16, 0 where it has none."""

    title: str
    memory: int
    float32: float
    bfloat16: float


CARDS = {
    "t4": Card("Tesla T4", 16, 8.1e12, 0),
    "v100": Card("Tesla V100 32 GB", 32, 15.7e12, 0),
    "rtx3090": Card("GeForce RTX 3090", 24, 35.6e12, 71e12),
    "rtx4090": Card("GeForce RTX 4090", 24, 82.6e12, 165e12),
    "a6000": Card("RTX A6000", 48, 38.7e12, 155e12),
    "l40s": Card("L40S", 48, 91.6e12, 362e12),
    "a100-40gb": Card("A100 40 GB", 40, 19.5e12, 312e12),
    "a100": Card("A100 80 GB", 80, 19.5e12, 312e12),
    "h100": Card("H100 SXM", 80, 66.9e12, 989e12),
    "h200": Card("H200 SXM", 141, 66.9e12, 989e12),
}


def memory_table(kinds: Iterable[Kind], card: Card) -> str:
    """What training takes of the memory of a card: a whole batch at once, counted without computing (see
    `iterative_retraining.models.memory`), and how many images at a time fit; of the models that can be counted."""
    lines = [f"| memory, of {card.memory} GB | a batch at once, GB | images at a time, of a batch |", "|---|---|---|"]
    for kind in kinds:
        data, options = DATASETS[kind.dataset], resolve_options(kind.model, kind.dataset, json.loads(kind.options))
        if not isinstance(MODELS[kind.model], NetworkFamily):
            continue
        process, training = MODELS[kind.model].configured(data.shape, options)
        if getattr(training.network, "eager", False):
            continue
        needed, n = training_bytes(process, training) / 1e9, training.batch_size
        at_once = images_that_fit(process, training, n, USABLE * card.memory * 1e9)
        lines.append(f"| {kind} | {needed:.1f} | {at_once} of {n} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def find_card(name: str) -> Card | None:
    """The card of a name such as "a100" or "RTX 4090"; None for a name that is not in the table."""
    return CARDS.get(name.lower().replace(" ", "").replace("geforce", ""))


def tabled_speed(kind: Kind, card: Card) -> Speed:
    """How fast a kind of run should be on a card: `SHARE` of its peak. Raises ConfigError for one without a network."""
    data, options = DATASETS[kind.dataset], json.loads(kind.options)
    try:
        sizes = {"size": data.shape[0], "colours": data.shape[2]}
        cost = retraining_cost(kind.dataset, kind.model, options, **sizes, n_images=1, n_samples=1)
    except AttributeError as error:  # no network, no process
        raise ConfigError(f"there is no table of speeds for {kind}: it has no network; leave --device out") from error
    half = options.get("precision") == "bfloat16"
    if half and not card.bfloat16:
        raise ConfigError(f"{card.title} has no bfloat16; set precision: float32, or plan for another card")
    peak, precision = (card.bfloat16, "bfloat16") if half else (card.float32, "float32")
    rate, evaluations = SHARE * peak, cost.n_evaluations or ADAPTIVE
    assumed = "" if cost.n_evaluations else f", {ADAPTIVE} evaluations a sample assumed"
    return Speed(
        images_per_second=rate / cost.fit_flops,
        samples_per_second=rate / (evaluations * cost.forward_flops),
        seconds_metrics=METRICS_SECONDS * data.counts["train"],
        source=f"tabled, not measured: {SHARE:.0%} of {peak / 1e12:.3g} TFLOP/s ({card.title}, {precision}){assumed}",
    )
