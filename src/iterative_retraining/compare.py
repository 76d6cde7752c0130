"""Do runs agree with those published? For every metric, the published interval of one more seed, and the run's value.

python -m iterative_retraining.compare runs/digits_edm/digits-edm-*

A published run counts if it differs from yours by its seed alone. Of its last generation that both have, the value of
one more seed lies within mean ± t sqrt(1 + 1/n) s of n published seeds 95 times of 100: of many some lie outside.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from iterative_retraining.errors import RunError, UserError
from iterative_retraining.metrics import label_of
from iterative_retraining.runs.reading import read_config, read_ledger

NOT_COMPARED = ("generation", "n_images", "n_real", "n_synthetic", "kid_standard_error")


@dataclass(frozen=True)
class Placed:
    """A value of a run beside the 95 % prediction interval of the published seeds."""

    metric: str
    value: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the value lies in the interval."""
        return self.low <= self.value <= self.high


def prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where one more draw of the Gaussian that ``values`` (two or more) are from lies 95 times of 100, by Student."""
    n, mean, s = len(values), np.mean(values), np.std(values, ddof=1)
    half = stats.t.ppf(0.975, n - 1) * s * np.sqrt(1 + 1 / n)
    return float(mean - half), float(mean + half)


def siblings(run: Path, published: Sequence[Path]) -> list[Path]:
    """The published runs that differ from ``run`` by their seed alone; a start of another seed is of that seed too."""

    def told(path: Path) -> dict[str, Any]:
        identity = read_config(path)["identity"]
        return {key: value for key, value in identity.items() if key not in ("seed", "init")}

    own, own_seed = told(run), read_config(run)["identity"]["seed"]
    return [path for path in published if told(path) == own and read_config(path)["identity"]["seed"] != own_seed]


def placed(run: Path, others: Sequence[Path]) -> tuple[int, list[Placed]]:
    """The last generation that all have, and every metric of it. Raises RunError for fewer than two ``others``."""
    if len(others) < 2:
        raise RunError(
            f"{run}: {len(others)} published run(s) differ from it by their seed alone, and an interval takes two; "
            "published are the run ids in results/, made by the profiles in profiles/"
        )
    own, ledgers = read_ledger(run), [read_ledger(other) for other in others]
    last = min(map(len, (own, *ledgers))) - 1
    if last < 0:
        raise RunError(f"{run} holds no complete generation yet")
    rows = [ledger[last] for ledger in ledgers]
    names = [name for name in own[last] if _counts(name, own[last]) and all(name in row for row in rows)]
    return last, [Placed(n, own[last][n], *prediction_interval([row[n] for row in rows])) for n in names]


def _counts(name: str, row: Mapping[str, Any]) -> bool:
    return name not in NOT_COMPARED and not name.startswith("seconds_") and isinstance(row[name], int | float)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0: a value outside is no error, one of twenty is to be expected."""
    doc = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m iterative_retraining.compare", description=__doc__, formatter_class=doc
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run directories")
    parser.add_argument(
        "--published", type=Path, default=Path("results"), help="the folder of published runs (results)"
    )
    given = parser.parse_args(arguments)
    published = sorted(path.parent for path in given.published.glob("*/ledger.jsonl"))
    if not published:
        raise RunError(f"{given.published} holds no published runs; set --published to a folder that does")
    runs = [path for path in given.runs if (path / "config.json").is_file()]
    if not runs:
        raise RunError(f"no run directory among {', '.join(map(str, given.runs))}: none has a config.json")
    for run in runs:
        others = siblings(run, published)
        generation, values = placed(run, others)
        n_inside = sum(one.inside for one in values)
        print(f"{run.name}, generation {generation}, {len(others)} published seeds: {n_inside} of {len(values)} inside")
        for one in values:
            where = "inside" if one.inside else "OUTSIDE"
            print(f"  {label_of(one.metric)}: {one.value:.4g}, {where} {one.low:.4g} to {one.high:.4g}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
