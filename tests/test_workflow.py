"""Commands of workflow/ and the graph: usage, markers, pages that stay, and folders with odd names."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml
from forked import run_module

from iterative_retraining.runs.locks import in_use
from iterative_retraining.runs.reading import read_ledger

from check_book import missing
from conftest import PACKAGE, ROOT, copy_of_project, exit_of, wait_for
from execute import execute

TINY = {
    "description": "tiny",
    "seeds": [0],
    "run": {"dataset": "digits", "model": "gaussian", "n_real": 300, "n_retrain": 1},
    "arms": [{"scheme": "fully_synthetic"}],
    "chapters": {"chapter": {}},
}


def notebook(path: Path, *cells: str) -> Path:
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nb.cells[0].metadata["tags"] = ["parameters"]
    nb.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nb, path)
    return path


ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return run_module("snakemake", *arguments, "--cores", "2", cwd=folder, env=ENVIRONMENT)


def programs(folder: Path) -> list[Path]:
    """The files of a folder that can be started; those of the package by ``python -m``."""
    return [path for path in sorted(folder.rglob("*.py")) if '\nif __name__ == "__main__":' in path.read_text()]


@pytest.mark.parametrize("script", programs(ROOT / "workflow"), ids=lambda path: path.name)
def test_every_script_helps(capsys, script):
    assert exit_of(script, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: ")
    assert exit_of(script) == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_folder_without_locks_is_no_place_for_those_of_gpus(tmp_path, monkeypatch, number):
    def flock(descriptor: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("fcntl.flock", flock)
    before = len(os.listdir("/proc/self/fd"))
    error = exit_of(ROOT / "workflow" / "on_gpu.py", "--locks", str(tmp_path), "--", "true")
    assert (
        error == f"on_gpu: no locks in {tmp_path} ({os.strerror(number)}); choose another folder by --locks or TMPDIR"
    )
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("script", programs(ROOT / "benchmarks"), ids=lambda path: path.stem)
def test_every_benchmark_helps(capsys, script):
    assert exit_of(script, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: ")


@pytest.mark.parametrize("script", programs(PACKAGE), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_helps(capsys, script):
    assert exit_of(script, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: python -m iterative_retraining")


@pytest.mark.parametrize("text", ["{", "3", "{}", '{"run_dir": 3}'])
def test_what_is_no_run_is_refused_before_it_is_killed(capsys, text):
    error = exit_of(PACKAGE / "rehearsal.py", text)
    assert error.startswith(f"error: {text!r} is not allowed: it ")
    assert "\n" not in error


def test_a_profile_of_another_ending_names_those_that_are_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    error = exit_of(ROOT / "workflow" / "plan.py", "profiles/cpu.yaml")
    assert error.startswith("error: there is no profile 'cpu'; in profiles there are: cpu, ")
    assert error.endswith("did you mean 'cpu'?")


def test_a_misspelt_variable_of_make_is_refused():
    alone = {name: value for name, value in os.environ.items() if "MAKE" not in name}  # `make test` may run this

    def make(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=False, env=alone)

    done = make("book", "PROFLE=cpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown variable PROFLE; allowed: PROFILE, PYTHON" in done.stderr
    assert make("-j2", "book", "PROFILE=cpu").returncode == 0


def test_a_failed_chapter_leaves_the_good_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    execute(str(notebook(tmp_path / "good.ipynb", "n = 1", "n")), "page.ipynb", {"n": 2})
    before = (tmp_path / "page.ipynb").read_bytes()
    failing = notebook(tmp_path / "bad.ipynb", "n = 1", "1 / 0")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute(str(failing), "page.ipynb", {"n": 2})
    tolerant = nbformat.read(failing, as_version=4)
    tolerant.cells[1].metadata["tags"] = ["raises-exception"]
    nbformat.write(tolerant, failing)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute(str(failing), "page.ipynb", {"n": 2})
    assert (tmp_path / "page.ipynb").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.ipynb", "good.ipynb", "page.ipynb"]


def test_a_page_with_an_error_is_told_by_check_book(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: page\n")
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "page.html").write_text("<html></html>")
    page = nbformat.read(notebook(tmp_path / "page.ipynb", "1 / 0"), as_version=4)
    assert missing(tmp_path) == []
    page.cells[0].outputs = [nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="division by zero")]
    nbformat.write(page, tmp_path / "page.ipynb")
    assert missing(tmp_path) == ["page: a cell ended in ZeroDivisionError: division by zero"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in a folder of an odd name, with a chapter of one cell and a Python that lies in it too."""
    folder = tmp_path_factory.mktemp("odd") / "a b's é"
    copy_of_project(folder, TINY)
    shutil.copy(folder / "profiles" / "tiny.yml", folder / "profiles" / "quick.yml")  # taken where none is named
    notebook(folder / "notebooks" / "chapter.ipynb", 'scale = ""', "scale")
    return folder


def test_runs_and_chapters_work_in_a_folder_with_a_space_and_an_apostrophe(project):
    done = snakemake(project, "sweep", "runs/tiny/chapters/chapter.ipynb", "--config", "profile=tiny")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [len(read_ledger(p.parent)) for p in sorted((project / "runs" / "tiny").glob("*/ledger.jsonl"))] == [2, 1]
    page = nbformat.read(project / "runs" / "tiny" / "chapters" / "chapter.ipynb", as_version=4)
    assert page.cells[-1].outputs[0].data["text/plain"] == "'tiny'"


def test_a_run_whose_directory_was_deleted_is_run_again_and_a_killed_snakemake_is_unlocked(project):
    """kill -9 leaves the graph locked and its run running: as README says, --unlock, and the same command."""
    (arm,) = (project / "runs" / "tiny").glob("digits-gaussian-fully_synthetic-*")
    shutil.rmtree(arm)
    assert (project / "runs" / "tiny" / "complete" / arm.name).is_file()
    command = [sys.executable, "-m", "snakemake", "sweep", "--cores", "2", "--config", "profile=tiny"]
    with open(project / "sweep.txt", "w") as said:
        sweep = subprocess.Popen(command, cwd=project, env=ENVIRONMENT, stdout=said, stderr=said)
    wait_for(sweep, lambda: in_use(arm))
    sweep.kill()
    assert sweep.wait() == -signal.SIGKILL
    locked = snakemake(project, "sweep", "--config", "profile=tiny")
    assert locked.returncode != 0
    assert "--unlock" in locked.stdout + locked.stderr
    while in_use(arm):  # the run that it had started goes on by itself
        time.sleep(0.01)
    unlocked = run_module("snakemake", "--unlock", cwd=project, env=ENVIRONMENT)
    assert unlocked.returncode == 0, unlocked.stderr
    before = (arm / "ledger.jsonl").read_bytes()
    done = snakemake(project, "sweep", "--config", "profile=tiny")
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(read_ledger(arm)) == 2
    assert (arm / "ledger.jsonl").read_bytes() == before


def test_on_a_file_system_that_counts_whole_seconds_nothing_is_done_twice(project):
    for path in [*project.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            os.utime(path, (int(path.stat().st_atime), int(path.stat().st_mtime)))
    assert "Nothing to be done" in snakemake(project, "sweep", "--config", "profile=tiny").stderr


def test_a_run_on_several_gpus_is_started_by_torchrun(project):
    profile = TINY | {"resources": {"gpus_per_run": 2}}
    (project / "profiles" / "several.yml").write_text(yaml.safe_dump(profile))
    shown = snakemake(project, "sweep", "-n", "-p", "--config", "profile=several", "device=cuda")
    assert shown.returncode == 0, shown.stderr[-2000:]
    text = " ".join((shown.stdout + shown.stderr).replace("'", "").split())
    assert "workflow/on_gpu.py --gpus 2 --per-gpu 1 -- " in text
    assert "-m torch.distributed.run --standalone --nproc-per-node 2 -m iterative_retraining -p dataset" in text
    assert "gpu=2" in text
    one = snakemake(project, "sweep", "-n", "-p", "--config", "profile=several", "device=cpu")
    assert "papermill notebooks/retrain.ipynb" in one.stdout + one.stderr


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "profle=tiny",
            "unknown --config key 'profle'; allowed: profile, device, runs_per_gpu, remeasure, rehearsal; did you mean "
            "'profile'?",
        ),
        ("profile=tini", "there is no profile 'tini'; in "),
        ("device=gpu", "--config device=gpu is not allowed; allowed: auto, cpu, cuda, cuda:N"),
        ("rehearsal=maybe", "--config rehearsal=maybe is not allowed: it is true or false"),
        ("runs_per_gpu=0", "--config runs_per_gpu=0 is not allowed"),
    ],
)
def test_config_of_the_graph_is_checked(project, config, message):
    default = [] if config.startswith("prof") else ["profile=tiny"]
    done = snakemake(project, "-n", "--config", config, *default)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_every_interpolated_path_is_quoted():
    """Only numbers stand without :q in a shell line, and settings of the memory, which are the Snakefile's own."""
    import re

    text = (ROOT / "Snakefile").read_text()
    shells = re.findall(r"shell:\n((?:\s+\".*\n)+)", text)
    assert len(shells) == 4
    bare = {name for shell in shells for name in re.findall(r"(?<!\{)\{([^{}:]+)\}(?!\})", shell)}
    assert bare == {"threads", "memory"}


def test_the_profile_file_of_the_tests_is_one(project):
    assert yaml.safe_load((project / "profiles" / "tiny.yml").read_text()) == TINY
