"""How long each step of a profile took when it was last done, by Snakemake's own records and the ledgers of the runs.

python workflow/times.py quick
"""

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from iterative_retraining.errors import RunError, UserError
from iterative_retraining.runs.reading import read_ledger

RECORDS = Path(".snakemake") / "metadata"
STAGES = ("fit", "sample", "metrics")


@dataclass(frozen=True)
class Step:
    """A job: its rule, its output, and when it began and ended, in seconds."""

    rule: str
    output: Path
    start: float
    end: float

    @property
    def label(self) -> str:
        """What the table calls it."""
        return self.rule if self.rule == "book" else f"{self.rule} {self.output.stem}"


def steps_of(root: Path, records: Path = RECORDS) -> list[Step]:
    """The jobs whose outputs are below ``root``, in the order in which they began.

    Raises RunError for what is no record of Snakemake.
    """
    found = []
    for record in sorted(path for path in records.rglob("*") if path.is_file()):
        try:
            parts = [part.removeprefix("@") for part in record.relative_to(records).parts]
            output = Path(base64.urlsafe_b64decode("".join(parts)).decode())
            job = json.loads(record.read_text(encoding="utf-8"))
            if root in output.parents and job.get("endtime") is not None:
                found.append(Step(job["rule"], output, float(job["starttime"]), float(job["endtime"])))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RunError(f"{record} is no record of Snakemake ({type(error).__name__}: {error})") from error
    return sorted(found, key=lambda step: step.start)


def table(root: Path, steps: Sequence[Step]) -> str:
    """The steps as Markdown; of a run also the seconds of its three stages, by its ledger. Raises RunError."""
    lines = ["| step | seconds | training | sampling | metrics |", "|---|---|---|---|---|"]
    lines += [f"| {step.label} | {step.end - step.start:.0f} | {' | '.join(_stages(root, step))} |" for step in steps]
    total = sum(step.end - step.start for step in steps)
    return "\n".join([*lines, f"| all, one after another | {total:.0f} | | | |"])


def _stages(root: Path, step: Step) -> Iterator[str]:
    rows = read_ledger(root / step.output.name) if step.rule == "run" else []
    for stage in STAGES:
        yield f"{sum(row[f'seconds_{stage}'] for row in rows):.0f}" if rows else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="times.py", description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="the name of a profile, as its folder in runs/ is called")
    root = Path("runs") / parser.parse_args().profile
    try:
        print(table(root, steps_of(root)))
    except UserError as error:
        sys.exit(f"error: {error}")
