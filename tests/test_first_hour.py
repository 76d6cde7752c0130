"""benchmarks/first_hour.sh: in order, each success once, on after a failure, GPU steps skipped where there is none."""

import os
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "first_hour.sh"


def run(*arguments: str, path: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture
def tools(tmp_path) -> Path:
    """A folder of programs for PATH, in which nvidia-smi lists no GPU."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    (folder / "nvidia-smi").chmod(0o755)
    return folder


def test_steps_are_done_once_and_a_failure_stops_nothing(tmp_path, tools):
    out, seen = tmp_path / "out put", tmp_path / "seen"
    lines = [
        f"first\tcpu\t1\techo first >> '{seen}'; echo a result",
        f"broken\tcpu\t1\techo broken >> '{seen}'; [ -e '{tmp_path}/mended' ] || {{ echo the reason >&2; exit 4; }}",
        f"card\tgpu\t1\techo card >> '{seen}'",
        f"last\tcpu\t1\techo last >> '{seen}'; cat",
    ]
    (tmp_path / "steps").write_text("\n".join(lines) + "\n")
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    asked = ["--steps", str(tmp_path / "steps"), str(out)]
    assert run("--dry-run", *asked, path=path).stdout.count("skipped: no GPU here") == 1
    assert not out.exists()

    done = run(*asked, path=path)
    assert (done.returncode, seen.read_text().split()) == (1, ["first", "broken", "last"])
    report = (out / "report.md").read_text()
    for row in (
        "| first | done | ",
        "| broken | failed, exit status 4 | ",
        "| card | skipped: no GPU | ",
        "| last | done",
    ):
        assert row in report, row
    assert "a result" in report
    assert "the reason" in report
    assert "the reason" in done.stderr

    (tmp_path / "mended").touch()
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho 0\n")
    assert run(*asked, path=path).returncode == 0
    assert seen.read_text().split() == ["first", "broken", "last", "broken", "card"]
    assert "failed" not in (out / "report.md").read_text().split("##")[0]


def test_every_default_step_names_files_that_are_here(tools):
    done = run("--dry-run", path=f"{tools}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0
    names = [line.split(",")[0] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert names[:4] == ["machine", "card", "check", "tests"]
    assert names[-1] == "fashion"
    words = done.stdout.replace("'", " ").split()
    assert all((ROOT / word).is_file() for word in words if word.startswith("benchmarks/"))
    profiles = [word.removeprefix("profile=") for word in words if word.startswith("profile=")]
    assert len(profiles) == 5
    assert all((ROOT / "profiles" / f"{profile}.yml").is_file() for profile in profiles)


def test_an_unknown_option_is_refused(tools):
    done = run("--dryrun", path=os.environ["PATH"])
    assert (done.returncode, done.stderr) == (2, "error: unknown option --dryrun; see --help\n")
