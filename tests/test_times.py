"""The table of times, from records in Snakemake's layout and from those that Snakemake itself leaves."""

import json
import shutil
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from iterative_retraining.errors import RunError

from conftest import ROOT
from test_workflow import snakemake
from times import steps_of, table

ROWS = [{"seconds_fit": 2.0, "seconds_sample": 3.0, "seconds_metrics": 1.0}] * 2


def record(folder: Path, output: str, rule: str, start: float, end: float | None) -> None:
    """As Snakemake's persistence writes one: the path in base64, cut into folders where it is long."""
    name = urlsafe_b64encode(output.encode()).decode()
    parts = [name[i : i + 254] for i in range(0, len(name), 254)]
    path = folder.joinpath(*[f"@{part}" for part in parts[:-1]], parts[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"rule": rule, "starttime": start, "endtime": end}))


def test_steps_are_those_of_the_profile_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr("times.read_ledger", lambda path: ROWS if path == Path("runs/p/long") else [])
    record(tmp_path, "runs/p/book/_build/html/index.html", "book", 130.0, 142.4)
    record(tmp_path, "runs/p/chapters/05_images.ipynb", "chapter", 120.0, 130.0)
    record(tmp_path, "runs/p/complete/long", "run", 100.0, 115.0)
    record(tmp_path, f"runs/p/complete/{'x' * 300}", "run", 90.0, 91.0)
    record(tmp_path, "runs/other/complete/b", "run", 0.0, 50.0)
    record(tmp_path, "runs/p/complete/killed", "run", 0.0, None)
    lines = table(Path("runs/p"), steps_of(Path("runs/p"), tmp_path)).splitlines()[2:]
    assert lines == [
        f"| run {'x' * 300} | 1 |  |  |  |",
        "| run long | 15 | 4 | 6 | 2 |",
        "| chapter 05_images | 10 |  |  |  |",
        "| book | 12 |  |  |  |",
        "| all, one after another | 38 | | | |",
    ]
    (tmp_path / "damaged").write_text("{")
    with pytest.raises(RunError, match="damaged is no record of Snakemake"):
        steps_of(Path("runs/p"), tmp_path)


def test_records_that_snakemake_leaves_are_read(tmp_path):
    (tmp_path / "Snakefile").write_text(
        'rule chapter:\n    output: "runs/p/chapters/a.ipynb"\n    shell: "touch {output}"\n'
    )
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stderr
    (step,) = steps_of(Path("runs/p"), tmp_path / ".snakemake" / "metadata")
    assert (step.rule, step.label) == ("chapter", "chapter a")
    assert 0 <= step.end - step.start < 60
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    command = [sys.executable, "workflow/times.py", "p"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[2].startswith("| chapter a | ")
