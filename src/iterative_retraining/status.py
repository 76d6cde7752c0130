"""The state of every run, from its directory alone: complete, running, stopped, failed or interrupted; stale or not.

python -m iterative_retraining.status runs/cpu/* results/*
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from iterative_retraining.errors import RunError, UserError
from iterative_retraining.runs.locks import in_use
from iterative_retraining.runs.provenance import sources_here
from iterative_retraining.runs.reading import check_whole, read_config, read_ledger, read_manifest
from iterative_retraining.runs.source import changed, source_sha256

REPRODUCED = "reproduced to "
STALE = "stale: "
EARLIER = "earlier code"
N_CHANGED = 3  # of the definitions that have changed, so many are named


@dataclass(frozen=True)
class RunStatus:
    """What a run directory says of itself."""

    run_id: str
    state: str
    """complete, running (its lock is held), stopped (SIGTERM, Ctrl-C), failed, interrupted (killed) or damaged."""
    generations: int
    wanted: int
    """0 if nothing says how many."""
    attempts: int
    code: str
    """current; "stale: ...", if definitions that decide its numbers have changed since, with how many and which;
    "earlier code", if an attempt did not record them; "reproduced to K", if the code here has not made it but came to
    the same weights and values up to generation K (`iterative_retraining.reproduce`); unknown, without an attempt."""
    hours: float
    """Wall time of the complete generations, fit, samples and metrics."""
    device: str
    commit: str
    message: str
    """What ended the last attempt, if it did not complete."""


def run_status(path: str | Path) -> RunStatus:
    """The status of the run directory ``path``. Raises RunError if it is none."""
    path, message = Path(path), ""
    if not (path / "config.json").exists():
        raise RunError(f"{path} is no run directory: it has no config.json")
    run_id, manifest, rows, code = path.name, {"attempts": []}, [], "unknown"
    try:
        run_id, manifest = read_config(path)["run_id"], read_manifest(path)
        rows = read_ledger(path)
        check_whole(path, rows, manifest)
        state, code = _state(path, len(rows), manifest), _code(manifest)
    except UserError as error:
        state, message = "damaged", str(error)
    attempts = manifest["attempts"]
    wanted = manifest["n_retrain"] + 1 if attempts else 0
    if state in ("stopped", "failed"):
        message = attempts[-1]["message"]
    seconds = sum(value for row in rows for key, value in row.items() if key.startswith("seconds_"))
    commits = sorted({str(a["git"]["commit"])[:7] + ("+" if a["git"]["dirty"] else "") for a in attempts})
    devices = sorted({a["hardware"]["name"] for a in attempts})
    found = (code, seconds / 3600, ", ".join(devices), ", ".join(commits), message)
    return RunStatus(run_id, state, len(rows), wanted, len(attempts), *found)


def _state(path: Path, n_complete: int, manifest: Mapping[str, Any]) -> str:
    if in_use(path):
        return "running"
    if not manifest["attempts"]:
        return "interrupted"  # killed before it said what it was to do
    if n_complete > manifest["n_retrain"]:
        return "complete"
    outcome = manifest["attempts"][-1].get("outcome", "interrupted")
    return outcome if outcome != "complete" else "interrupted"  # it was extended, and then killed at once


def _code(manifest: Mapping[str, Any]) -> str:
    made_by, kept = {attempt.get("source_sha256") for attempt in manifest["attempts"]}, manifest.get("sources", {})
    if not made_by:
        return "unknown"
    here = sources_here(manifest)
    if made_by == {source_sha256(here)}:
        return "current"
    again = [r["generations"] for r in manifest.get("reproduced", []) if r["source_sha256"] == source_sha256(here)]
    if again:
        return f"{REPRODUCED}{max(again)}"
    if made_by - kept.keys():
        return EARLIER
    names = list(dict.fromkeys(name for source in sorted(made_by) for name in changed(kept[source], here)))
    named = ", ".join(names[:N_CHANGED]) + (", ..." if len(names) > N_CHANGED else "")
    return f"{STALE}{len(names)} definition{'s' * (len(names) != 1)} changed ({named})"


def status_table(paths: Iterable[str | Path]) -> pd.DataFrame:
    """One row a run directory of ``paths``, by run id, damaged ones too; what is no run directory is left out."""
    rows = [asdict(run_status(path)) for path in map(Path, paths) if (path / "config.json").exists()]
    return pd.DataFrame(rows, columns=list(RunStatus.__dataclass_fields__)).sort_values("run_id", ignore_index=True)


def markdown(table: pd.DataFrame) -> str:
    """`status_table` as a Markdown table."""
    lines = [
        "| run | state | generations | attempts | code | hours | device | commit | last message |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in table.itertuples():
        cells = (f"`{r.run_id}`", r.state, f"{r.generations} of {r.wanted}", r.attempts, r.code, f"{r.hours:.2f}")
        lines.append(f"| {' | '.join(map(str, cells))} | {r.device} | {r.commit} | {r.message.replace('|', '/')} |")
    return "\n".join(lines)


def stale_note(paths: Iterable[str | Path]) -> str:
    """A sentence on how many of the runs at ``paths`` were made by other code than is here and what has changed since,
    one on those of earlier code, and one on those that came out the same with the code here; "" if there are none."""
    found = [run_status(path) for path in paths]
    stale = [status for status in found if status.code.startswith(STALE)]
    earlier = [status for status in found if status.code == EARLIER]
    again = [int(status.code.removeprefix(REPRODUCED)) for status in found if status.code.startswith(REPRODUCED)]
    sentences = []
    if stale:
        changes = Counter(status.code.removeprefix(STALE) for status in stale)
        what = "; ".join(f"{number} of them: `{change}`" for change, number in changes.most_common())
        sentences.append(
            f"**{len(stale)} of these {len(found)} runs are stale**: code that decides their numbers has changed since "
            f"({what})."
        )
    if earlier:
        sentences.append(
            f"**{len(earlier)} of these {len(found)} runs were made by earlier code** and are to be replaced."
        )
    if again:
        sentences.append(
            f"{len(again)} of these {len(found)} runs are from before the code that is here, and came out the same, "
            f"bit for bit, when it ran them again up to generation {min(again)}."
        )
    return " ".join(sentences)


def main(arguments: Sequence[str] | None = None) -> str:
    """The table that the command line asks for. Raises RunError if there is no run directory to tell of."""
    parser = argparse.ArgumentParser(prog="python -m iterative_retraining.status", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories; by default those in runs/*")
    given = parser.parse_args(arguments).runs
    gone = [str(path) for path in given if not path.exists()]
    if gone:
        raise RunError(f"{', '.join(gone)}: nothing is there")
    table = status_table(given or sorted(Path("runs").glob("*/*")))
    if table.empty:
        raise RunError(f"no run directory in {', '.join(map(str, given)) or 'runs/*'}: none has a config.json")
    return table.to_string(index=False)


if __name__ == "__main__":
    try:
        print(main())
    except UserError as error:
        sys.exit(f"error: {error}")
