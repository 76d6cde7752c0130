"""What runs say of a claim: the arms that a contract names, one number of every seed, and verdicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from iterative_retraining.errors import ConfigError
from iterative_retraining.studies.report.arms import has_selector
from iterative_retraining.studies.report.comparisons import levels, slope

HOLDS, FAILS, UNDECIDED = "holds here", "fails here", "undecided"
NOT_TESTABLE, NOT_RUN, RUN_FAILED = "not testable here", "not run yet", "a run failed"
VERDICTS = (
    FAILS,
    UNDECIDED,
    HOLDS,
    RUN_FAILED,
    NOT_RUN,
    NOT_TESTABLE,
)  # in the order of the chapter: what failed stands first
# Mean and slope over the second half; first and last generation, and the change from the one to the other.
STATISTICS = ("level", "slope", "first", "last", "change", "relative_change")


@dataclass(frozen=True)
class Finding:
    """What runs say of a claim: one of VERDICTS, the numbers behind it in words, and the runs that were looked at."""

    verdict: str
    why: str
    run_ids: tuple[str, ...] = ()


class Arms:
    """The arms of a table of runs (`read_evidence`), by what selects them.

    It remembers which runs were looked at, and which of them failed.

    about: ``runs`` of a claim: ``where``, what all its arms have in common, and the least number of seeds.
    """

    def __init__(self, rows: pd.DataFrame, about: Mapping[str, Any]) -> None:
        failed = rows.failed.notna() if "failed" in rows else pd.Series(False, rows.index)
        self.rows, self.failed_rows = rows[~failed], rows[failed]
        self.where, self.min_seeds = about.get("where", {}), about["min_seeds"]
        self.looked_at: set[str] = set()
        self.failed: dict[str, str] = {}

    def of(self, arm: Mapping[str, Any]) -> pd.DataFrame:
        """The rows of an arm. A column that no run has selects none."""
        found, failed = self._selected(self.rows, arm), self._selected(self.failed_rows, arm)
        twice = found.groupby("seed").run_id.nunique() if len(found) else pd.Series(dtype=int)
        if (twice > 1).any():
            ids = ", ".join(sorted(found[found.seed == twice.idxmax()].run_id.unique()))
            raise ConfigError(f"the arm {dict(arm)} selects several runs of one seed: {ids}; say what tells them apart")
        self.looked_at |= set(found.run_id) if len(found) else set()
        self.failed |= dict(zip(failed.run_id, failed.failed, strict=True)) if len(failed) else {}
        return found

    def _selected(self, rows: pd.DataFrame, arm: Mapping[str, Any]) -> pd.DataFrame:
        """The rows that an arm asks for; one that names no selector or rare class has none."""
        asked = {**self.where, **arm}
        rows = rows if "selector" in asked else rows[~has_selector(rows)]
        if "rare_class" in rows and "rare_class" not in asked:
            rows = rows[rows.rare_class.isna()]
        for name, value in asked.items():
            rows = rows[rows[name] == value] if name in rows else rows[:0]
        return rows

    def too_few(self, why: str) -> Finding:
        """There are not enough runs: because some failed, if some did."""
        failed = "".join(f"; failed: {run_id} ({message})" for run_id, message in self.failed.items())
        return Finding(
            RUN_FAILED if failed else NOT_RUN, why + failed, tuple(sorted(self.looked_at | set(self.failed)))
        )

    def per_seed(self, arm: Mapping[str, Any], metric: str, of: str) -> pd.Series:
        """A statistic of an arm by seed, see STATISTICS; empty if the metric was not measured."""
        rows = self.of(arm)
        if not len(rows) or metric not in rows or rows[metric].isna().any():
            return pd.Series(dtype=float)
        if of == "level":
            return levels(rows, [metric]).set_index("seed")[metric]
        return pd.Series({seed: _statistic(own, metric, of) for seed, own in rows.groupby("seed")})


def _statistic(rows: pd.DataFrame, metric: str, of: str) -> float:
    if of == "slope":
        return slope(rows, metric)
    values = rows.set_index("generation")[metric].sort_index()
    first, last = float(values.iloc[0]), float(values.iloc[-1])
    return {"first": first, "last": last, "change": last - first}.get(of, last / first - 1)
