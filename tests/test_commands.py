"""Every command that README, CONTRIBUTING and the book write is typed here as it stands, in a shell, in a clone.

What would be long is short in the clone: its profiles `quick` and `cpu` are tiny, and so are the budgets that a run has
by default. What would install, test or take a GPU is only told what it would do; Slurm and what stands in `ELSEWHERE`
have tests of their own.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement

from iterative_retraining.__main__ import parameters
from iterative_retraining.config import RunConfig
from iterative_retraining.parameters import load_yaml

from conftest import ROOT, untimed
from profiles import load_profile

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BIN = Path(sys.executable).parent
WRITTEN_IN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
PROGRAMS = "make|snakemake|papermill|python|jupyter-book|torchrun|pip|conda|git|pytest|pre-commit|\\.ci"
TINY = {
    "description": "tiny",
    "seeds": [0],
    "run": {"dataset": "digits", "model": "gaussian", "n_real": 300, "n_retrain": 2},
    "arms": [{"scheme": "fully_synthetic"}, {"scheme": "mix", "lam": 0.5}],
    "chapters": {"01_gaussian_warmup": {"n_chains": 200, "n_generations": 60}, "05_images": {}},
}
CPU = {key: TINY[key] for key in ("description", "seeds", "run")} | {"arms": TINY["arms"][:1]}
BUDGETS = [("= 180_000", "= 640"), ("= 36_000", "= 320")]
LOOPS = [("n_loops, last = 200, 50", "n_loops, last = 20, 50")]
SHORT = {  # by file of the clone: what is replaced, and by what
    "src/iterative_retraining/config.py": [*BUDGETS, ("n_real: int = 0", "n_real: int = 100")],
    "src/iterative_retraining/metrics/model_loss.py": [("N_EVALUATIONS = 6_000", "N_EVALUATIONS = 1")],
    "src/iterative_retraining/__main__.py": [('{"n_retrain": 5}', '{"n_retrain": 1}')],
    "book/api.md": [("%% package reference\n", "")],  # it is in the book of test_book.py
    "notebooks/01_gaussian_warmup.ipynb": LOOPS,
    "notebooks/01_gaussian_warmup.py": LOOPS,
    "notebooks/retrain.ipynb": [*BUDGETS, ("n_real = 0", "n_real = 100"), ("n_retrain = 5", "n_retrain = 1")],
    "notebooks/retrain.py": [*BUDGETS, ("n_real = 0", "n_real = 100"), ("n_retrain = 5", "n_retrain = 1")],
}
PRETENDED = ("pip", "conda", "pytest")  # say how they were called, and do nothing


def commands(text: str) -> list[str]:
    """The commands of the ``bash`` blocks of a Markdown text, and those in its sentences, each on one line."""
    found: list[str] = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        block = re.sub(r"\\\n\s*", "", block)
        block = re.sub(r"^for .*?^done$", _one_line, block, flags=re.MULTILINE | re.DOTALL)
        found += [re.sub(r"(^|\s+)#.*", "", line) for line in block.splitlines()]
    sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found += [
        code
        for code in re.findall(r"`([^`\n]+)`", sentences)
        if re.match(rf"({PROGRAMS})\b.* \S+ |make \w|snakemake --", code)
    ]
    return [line for line in dict.fromkeys(found) if line]


def _one_line(loop: re.Match) -> str:
    return re.sub(r";?\n\s*", "; ", loop[0]).replace("do; ", "do ")


def options(text: str) -> list[str]:
    """What sentences say of single parameters, as ``-p seed 3``."""
    return re.findall(r"`(-[py] [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def sources() -> list[str]:
    """The texts with commands: Markdown files, and the Markdown cells of notebooks."""
    notebooks = [nbformat.read(path, as_version=4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    cells = [cell.source for nb in notebooks for cell in nb.cells if cell.cell_type == "markdown"]
    return [path.read_text() for path in WRITTEN_IN] + cells


@dataclass(frozen=True)
class Way:
    """How a command is typed: as it stands, or with ``added``; in ``folder`` of the clone; after others; with values
    ``instead`` of placeholders. It ends with exit status 0, or, where it ``says`` why not, with another."""

    added: str = ""
    after: tuple[str, ...] = ()
    says: str = ""
    folder: str = "."
    prints: str = ""
    instead: Mapping[str, str] = field(default_factory=dict)


PLAIN, DRY = Way(), Way(added=" -n")
GAUSSIAN = Way(added=" -p model gaussian")  # starts sooner than the network that others train
SWEEP = "snakemake sweep --cores all --config profile=cpu"
PUBLISH = "make publish PROFILE=cpu"
THETA0 = "papermill notebooks/retrain.ipynb out.ipynb -p n_retrain 0 -p run_dir theta0"
REMEASURED = 'snakemake remeasured --cores all --config profile=cpu remeasure="--k 10"'
BY_HAND = "python -m iterative_retraining -p lam 0.5"
NO_WEIGHTS = Way(says="data/weights/edm-cifar10-32x32-uncond-vp.pkl")
AFTER_PUBLISHING = Way(after=(PUBLISH,), prints="generation 1: equal")
TYPED = {
    "git clone REPOSITORY iterative-retraining": Way(folder="../again", instead={"REPOSITORY": str(ROOT)}),
    "cd iterative-retraining": Way(folder=".."),
    "source .venv/bin/activate": PLAIN,
    "make setup": PLAIN,
    "make book": Way(prints="The book is at "),
    "make read": DRY,
    "make pdf": DRY,
    "papermill notebooks/retrain.ipynb out.ipynb -p lam 0.5 -p seed 3": PLAIN,
    "papermill notebooks/01_gaussian_warmup.ipynb out.ipynb -p n 200 -p n_chains 2000": Way(
        added=" -p n_chains 50 -p n_generations 60"
    ),
    "make test": Way(prints="pytest --numprocesses auto --dist loadfile"),
    "make lint": PLAIN,
    "make notebooks": PLAIN,
    "make publish": DRY,
    "make publish PROFILE=fashion_cpu": DRY,
    "pre-commit install": PLAIN,
    "pytest tests/test_schemes.py": Way(prints="pytest tests/test_schemes.py"),
    "pytest -m gpu": Way(prints="pytest -m gpu"),
    "conda env create -f environment.yml": Way(prints="conda env create -f environment.yml"),
    "pip install diffusers": Way(prints="pip install diffusers"),
    "pip install torchcfm": Way(prints="pip install torchcfm"),
    "pip install tensorboard": Way(prints="pip install tensorboard"),
    "pip install jupyterlab": Way(prints="pip install jupyterlab"),
    "pip install --force-reinstall torch==2.14.1 torchvision==0.29.1 "
    "--index-url https://download.pytorch.org/whl/cu126": Way(prints="pip install --force-reinstall torch"),
    "pip install 'snakemake-executor-plugin-slurm>=2.0'": Way(
        prints="pip install snakemake-executor-plugin-slurm>=2.0"
    ),
    "papermill notebooks/retrain.ipynb out.ipynb -p lam 0.5 -p seed 3 -p run_dir somewhere": GAUSSIAN,
    "papermill notebooks/retrain.ipynb out.ipynb -p scheme mix -p lam 0.5 -p seed 3 -p run_dir my-run": GAUSSIAN,
    "papermill notebooks/retrain.ipynb out.ipynb -p scheme fully_synthetic -p seed 3 -p run_dir my-other-run": GAUSSIAN,
    THETA0: GAUSSIAN,
    "papermill notebooks/retrain.ipynb out.ipynb -p init theta0 -p lam 1.0 -p run_dir with-theta0": Way(
        added=GAUSSIAN.added, after=(THETA0,)
    ),
    "papermill notebooks/retrain.ipynb out.ipynb -p features inception-legacy_pytorch "
    "-p features_weights /path/to/pt_inception-2015-12-05-6726825d.pth": Way(
        says="/path/to/pt_inception-2015-12-05-6726825d.pth"
    ),
    "for lam in 0.1 0.5 1.0; do papermill notebooks/retrain.ipynb out-$lam.ipynb -f params.yml "
    "-p lam $lam -p init theta0 -p run_dir runs/lam-$lam; done": Way(
        after=(THETA0,), instead={"init theta0": "init theta0 -p model gaussian"}
    ),
    BY_HAND: PLAIN,
    "python -m iterative_retraining.status runs/manual/*": Way(after=(BY_HAND,), prints="complete"),
    "snakemake -n sweep --config profile=cpu": PLAIN,
    "snakemake -n --config profile=cpu": PLAIN,
    "snakemake --cores all --config profile=cpu": DRY,
    SWEEP: PLAIN,
    "snakemake --unlock": PLAIN,
    "python workflow/plan.py cpu": Way(after=(SWEEP,)),
    "python -m iterative_retraining.status runs/cpu/*": Way(after=(SWEEP,), prints="complete"),
    PUBLISH: Way(after=(SWEEP,)),
    REMEASURED: Way(after=(SWEEP,)),
    "python -m iterative_retraining.reproduce results/*": AFTER_PUBLISHING,
    "python -m iterative_retraining.reproduce results/* --generations 1": AFTER_PUBLISHING,
    "python -m iterative_retraining.reproduce results/* --generations K": Way(
        after=(PUBLISH,), instead={"K": "2"}, prints="generation 2: equal"
    ),
    "snakemake sweep --cores all --resources gpu=4 --config profile=cpu device=cuda": Way(after=(PUBLISH,)),
    "snakemake sweep --cores all --resources gpu=8 --config profile=cpu device=cuda runs_per_gpu=2": Way(
        after=(PUBLISH,)
    ),
    "python workflow/on_gpu.py --per-gpu 2 -- papermill notebooks/retrain.ipynb ...": Way(prints="on GPU 0"),
    "snakemake sweep --workflow-profile workflow/slurm --config profile=cpu": DRY,
    "snakemake sweep --workflow-profile workflow/slurm --default-resources slurm_partition=gpu slurm_account=lab "
    "--config profile=cpu device=cuda": DRY,
    "snakemake -n sweep --config profile=paper/edm-cifar10": NO_WEIGHTS,
    "snakemake sweep --cores all --resources gpu=4 --config profile=paper/edm-cifar10 device=cuda": NO_WEIGHTS,
    "snakemake sweep --workflow-profile workflow/slurm --config profile=paper/edm-cifar10 device=cuda": NO_WEIGHTS,
    "python workflow/plan.py paper/edm-cifar10 --device a100": PLAIN,
    "python workflow/plan.py paper/edm-cifar10 --check": Way(says="things are missing"),
    "python -m iterative_retraining.compare runs/digits_edm/digits-*": Way(
        after=(PUBLISH,), instead={"digits_edm": "cpu"}, says="and an interval takes two"
    ),
    "python -m iterative_retraining.archive iterative-retraining.zip": Way(after=(PUBLISH,)),
}
ELSEWHERE = {  # the file of tests/ that does what they say
    "jupyter-book build book -n -W": "test_book.py",
    "make published-book": "test_book.py",
    "torchrun --nproc-per-node 4 -m iterative_retraining -f params.yml": "test_team.py",
    "torchrun --nproc-per-node 4 -m iterative_retraining -f params.yml -p lam 0.5 -p run_dir somewhere": "test_team.py",
    "python -m iterative_retraining --rehearsal": "test_rehearsal.py",
    "python benchmarks/memory.py --device cuda": "test_memory.py",
    "python -m iterative_retraining.studies.toy2d": "test_plane_study.py",
    "python benchmarks/going_back.py runs/digits_edm/digits-edm-fully_synthetic-seed*": "test_going_back.py",
    "python -m iterative_retraining -f params.yml --rehearsal": "test_rehearsal.py",
    "snakemake sweep --cores all --config profile=paper/edm-cifar10 rehearsal=true": "test_rehearsal.py",
    "python -m iterative_retraining.remeasure": "test_remeasure.py",
    "python -m iterative_retraining.remeasure runs/cpu/* --k 10": "test_remeasure.py",
    "python -m iterative_retraining.remeasure somewhere --features inception-clean "
    "--features-weights inception-2015-12-05.pt": "test_remeasure.py",
}


@dataclass
class Clone:
    """A clone of the project and what was typed in it."""

    path: Path
    done: dict[str, subprocess.CompletedProcess] = field(default_factory=dict)

    def type(self, command: str, way: Way) -> subprocess.CompletedProcess:
        """Types a command, and before it what it needs, each once."""
        for other in way.after:
            self.type(other, TYPED[other])
        if command not in self.done:
            line = command + way.added
            for word, value in way.instead.items():
                line = re.sub(rf"\b{word}\b", lambda _, value=value: value, line)
            folder = self.path / way.folder
            folder.mkdir(exist_ok=True)
            self.done[command] = self.shell(line, folder)
        return self.done[command]

    def shell(self, line: str, folder: Path | None = None) -> subprocess.CompletedProcess:
        """A line typed after ``source .venv/bin/activate``; where it names GPUs, four of them are pretended."""
        first = [self.path / "pretended"] if "cuda" in line or "on_gpu" in line else []
        path = os.pathsep.join(map(str, [*first, self.path / ".venv" / "bin", BIN, os.environ["PATH"]]))
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(self.path / "src"), "OMP_NUM_THREADS": "1"}
        environment |= {"TMPDIR": str(self.path / "elsewhere"), "CUDA_VISIBLE_DEVICES": "0,1,2,3" if first else ""}
        words = ["bash", "-c", line]
        return subprocess.run(
            words, cwd=folder or self.path, env=environment, capture_output=True, text=True, check=False
        )


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    """What is committed, with what has changed since; small budgets and profiles; a .venv that is this one."""
    path = tmp_path_factory.mktemp("typed") / "iterative-retraining"
    git("clone", "--quiet", str(ROOT), str(path))
    for name in git("ls-files", "--modified", "--others", "--exclude-standard", "-z").split("\0"):
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name, follow_symlinks=False)
    for name, changes in SHORT.items():
        text = (path / name).read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (path / name).write_text(text)
    for name, profile in (("quick", TINY), ("cpu", CPU)):
        (path / "profiles" / f"{name}.yml").write_text(yaml.safe_dump(profile, sort_keys=False))
    _, *others = sorted((path / "results").glob("fashion_mnist-*/"))  # of earlier code: told and passed over
    for old in [*others, *(path / "results").glob("digits-*/")]:
        shutil.rmtree(old)
    built = path / "book" / "_build" / "html"
    for folder in (built, path / "elsewhere"):
        folder.mkdir(parents=True)
    (built / "index.html").write_text("<html></html>")
    for folder in (path, path / "elsewhere"):
        (folder / "params.yml").write_text("n_retrain: 1\n")
    for name in PRETENDED:
        program(path / ".venv" / "bin" / name, f'echo {name} "$@"')
    (path / ".venv" / "bin" / "activate").write_text("")
    (path / ".venv" / ".installed").touch()
    program(path / "pretended" / "papermill", 'echo "$@" on GPU $CUDA_VISIBLE_DEVICES')
    return Clone(path)


def test_every_command_that_is_written_is_typed_here():
    written = {command for text in sources() for command in commands(text)}
    assert written == TYPED.keys() | ELSEWHERE.keys()
    assert all((ROOT / "tests" / name).is_file() for name in ELSEWHERE.values())


def test_every_parameter_that_is_written_is_one():
    found = [words for text in sources() for words in options(text)]
    assert len(found) > 5
    for text in found:
        option, *words = shlex.split(text)
        values = parameters([option, *words]) if option == "-p" else load_yaml(*words)[0]
        values = {"options" if name == "model_options" else name: value for name, value in values.items()}
        if "network" in values.get("options", {}):
            values["model"] = "flow_matching"  # the row of the table says so
        RunConfig(**{name: value for name, value in values.items() if name in RunConfig.__dataclass_fields__})


@pytest.mark.parametrize("command", TYPED)
def test_a_command_works_as_it_is_written(clone, command):
    way = TYPED[command]
    done = clone.type(command, way)
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == bool(way.says), said[-3000:]
    assert way.says in said
    assert way.prints in said
    if "retrain.ipynb out.ipynb" in command and not way.says:  # a line a generation, no bar, and a figure
        page = (clone.path / "out.ipynb").read_text()
        assert "generation 0 of " in page
        assert "image/png" in page
        assert "img/s" not in page
        assert "Warning" not in page
    if command.startswith("pip install") and "jupyterlab" not in command and "--" not in command:
        extras = {Requirement(one).name for one in PROJECT["optional-dependencies"]["dev"]}
        assert Requirement(shlex.split(command)[-1]).name in extras


def test_the_book_that_make_book_makes_has_its_runs(clone):
    clone.type("make book", PLAIN)
    arms = load_profile(clone.path / "profiles" / "quick.yml").arms
    ledgers = [untimed(clone.path / "runs" / "quick" / arm / "ledger.jsonl") for arm in arms]
    assert [len(rows) for rows in ledgers] == [3, 3]
    assert ledgers[0][0] == ledgers[1][0]  # one theta_0
    page = (clone.path / "runs/quick/book/_build/html/chapters/05_images.html").read_text()
    assert all(arm in page for arm in arms)
    assert "quick: tiny" in page
    clone.shell("git checkout book/_static/card.png")  # which `make publish` has drawn anew
    again = clone.shell("make book")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stderr + again.stdout


def test_runs_on_gpus_each_have_one(clone):
    command = "snakemake sweep --cores all --resources gpu=4 --config profile=cpu device=cuda"
    clone.type(command, TYPED[command])
    runs = load_profile(clone.path / "profiles" / "cpu.yml").runs
    logs = [(clone.path / "runs" / "cpu" / "logs" / f"{run}.txt").read_text() for run in runs]
    assert len(logs) == 2
    assert all(re.search(r" on GPU [0-3]$", log) for log in logs)


def test_a_measurement_whose_ledger_is_gone_is_made_again(clone):
    clone.type(REMEASURED, TYPED[REMEASURED])
    look = f"{REMEASURED} -n --rerun-triggers mtime"  # the device of the runs is another since some were pretended
    assert "Nothing to be done" in clone.shell(look).stdout
    ledgers = sorted((clone.path / "runs" / "cpu").glob("*/ledger-*k10.jsonl"))
    assert [len(untimed(ledger)) for ledger in ledgers] == [3]
    ledgers[0].unlink()
    assert re.search(r"remeasure +1\b", clone.shell(look).stdout)


def test_another_arm_runs_alone_and_finished_runs_are_untouched(clone):
    clone.type("make book", PLAIN)
    runs, profile = clone.path / "runs" / "quick", clone.path / "profiles" / "quick.yml"
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/ledger.jsonl")}
    profile.write_text(yaml.safe_dump(TINY | {"arms": [*TINY["arms"], {"scheme": "mix", "lam": 0.1}]}))
    done = clone.shell("snakemake sweep --cores all --config profile=quick")
    profile.write_text(yaml.safe_dump(TINY))
    assert done.returncode == 0, done.stderr[-3000:]
    after = {path: path.stat().st_mtime_ns for path in runs.glob("*/ledger.jsonl")}
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_a_sweep_from_given_weights_trains_no_theta_0(clone):
    """And a profile may lie in a folder: its runs are in runs/<its own name>."""
    clone.type("make book", PLAIN)
    theta_0 = next(iter(load_profile(clone.path / "profiles" / "quick.yml").runs))
    start = clone.path / "runs" / "quick" / theta_0
    given = CPU | {"run": CPU["run"] | {"init": start.relative_to(clone.path).as_posix()}}
    (clone.path / "profiles" / "own").mkdir()
    (clone.path / "profiles" / "own" / "given.yml").write_text(yaml.safe_dump(given))
    done = clone.shell("snakemake sweep --cores all --config profile=own/given")
    assert done.returncode == 0, done.stderr[-3000:]
    (ledger,) = (clone.path / "runs" / "given").glob("*/ledger.jsonl")
    rows = untimed(ledger)
    assert rows[0]["n_images"] == 0
    assert rows[0]["samples_sha256"] == untimed(start / "ledger.jsonl")[0]["samples_sha256"]
