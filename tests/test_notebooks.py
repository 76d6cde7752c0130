import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import jupytext
import nbformat
import papermill
import pytest

from iterative_retraining.errors import ConfigError
from iterative_retraining.parameters import check_parameters
from iterative_retraining.runs.reading import read_ledger
from iterative_retraining.status import run_status

from conftest import ROOT, TINY_RUN, untimed

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run_papermill(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    command = [
        str(Path(sys.executable).with_name("papermill")),
        *arguments,
        "--no-progress-bar",
        "--start-timeout",
        "300",
    ]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_paired_py_holds_the_same_cells(notebook):
    def cells(nb):
        return [(c.cell_type, c.source, dict(c.metadata)) for c in nb.cells]

    assert cells(nbformat.read(notebook, as_version=4)) == cells(jupytext.read(notebook.with_suffix(".py")))


def lines_of_work(source: str) -> int:
    """Lines of a cell's statements other than imports."""
    statements = [s for s in ast.parse(source).body if not isinstance(s, ast.Import | ast.ImportFrom)]
    return sum(s.end_lineno - s.lineno + 1 for s in statements)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_short_hold_no_output_and_check_their_parameters(notebook):
    nb = nbformat.read(notebook, as_version=4)
    code = [c for c in nb.cells if c.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code)
    assert sum("solution" not in c.metadata.get("tags", []) for c in code) <= 20  # besides those of exercises
    assert median(lines_of_work(c.source) for c in code) <= 8
    if notebook.stem == "retrain":  # it is run by hand: a parameter that is a word of Python gets its sentence
        assert code.pop(0).source.endswith("\n\nexplain_keywords()")
    assert code[0].metadata.tags == ["parameters"]
    assert all(re.fullmatch(r"\w+ = [^(]*", line) for line in code[0].source.splitlines())  # literals only
    declared = papermill.inspect_notebook(str(notebook))
    checked = re.search(r'check_parameters\(globals\(\), (?:"(.*?)"|names)\)', code[1].source)
    names = checked[1] or "".join(re.findall(r'^    "(.*)"$', code[1].source, re.MULTILINE))
    assert set(names.split()) == set(declared)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_a_notebook_imports_of_the_package_is_there(notebook):
    tree = ast.parse("\n".join(c.source for c in nbformat.read(notebook, 4).cells if c.cell_type == "code"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("iterative_retraining"):
            exec(f"from {node.module} import {', '.join(a.name for a in node.names)}", {})


def test_only_injected_names_are_checked():
    namespace = {"In": ["", "lam = 0.5\nseed = 0", "# Parameters\nlam = 0.1\n", "x = 3"]}
    check_parameters(namespace, "lam seed")
    with pytest.raises(
        ConfigError, match="unknown parameter of this notebook 'lam'; allowed: lamb, seed; did you mean"
    ):
        check_parameters(namespace, "lamb seed")
    check_parameters({}, "lam")


@pytest.mark.parametrize("name", ["lamb", "lambda"])
def test_a_parameter_that_does_not_exist_fails_before_any_compute(tmp_path, name):
    done = run_papermill(str(ROOT / "notebooks" / "retrain.ipynb"), "out.ipynb", "-p", name, "0.5", cwd=tmp_path)
    assert done.returncode != 0
    assert f"ConfigError: unknown parameter of this notebook '{name}'; allowed: dataset, " in done.stderr
    assert "did you mean 'lam'?" in done.stderr
    assert "SyntaxError" not in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["out.ipynb"]


def test_live_progress_is_for_terminals_and_open_kernels(monkeypatch, capsys):
    from iterative_retraining.retrain import GenerationRecord
    from iterative_retraining.runs.progress import ProgressDisplay, is_live

    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert not is_live()
    monkeypatch.setenv("JPY_SESSION_NAME", "retrain.ipynb")
    assert is_live()
    record = GenerationRecord(1, 64, 10, 5, {"fid": 0.25}, 1.0, 2.0, 3.0)
    with ProgressDisplay(4, live=False) as progress:
        progress(1, 32, 64)
        progress.generation_done(record)
    assert capsys.readouterr().out == "generation 1 of 4: fid 0.250 (6.0 s)\n"
    with ProgressDisplay(4, live=True) as progress:
        progress(1, 32, 64)
        progress(1, 64, 64)
        assert (progress.bar.n, progress.bar.total) == (64, 4 * 64)  # as if generations 2 to 4 took as many images
        progress(2, 32, 128)
        assert (progress.bar.n, progress.bar.total) == (64 + 32, 64 + 3 * 128)


def test_tensorboard_gets_every_number_of_a_generation(tmp_path, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from iterative_retraining.retrain import GenerationRecord
    from iterative_retraining.runs.progress import ProgressDisplay, tensorboard_writer

    with ProgressDisplay(4, live=False, log=tensorboard_writer(tmp_path, "run-1")) as progress:
        for t in (0, 1):
            progress.generation_done(GenerationRecord(t, 64, 10, 5, {"fid": 0.25 + t}, 1.0, 2.0, 3.0))
    events = EventAccumulator(str(tmp_path / "run-1")).Reload()
    assert {"fid", "n_images", "seconds_fit"} <= set(events.Tags()["scalars"])
    assert [(e.step, e.value) for e in events.Scalars("fid")] == [(0, 0.25), (1, 1.25)]


def test_tensorboard_that_is_not_installed_is_said(monkeypatch, tmp_path):
    from iterative_retraining.runs.progress import tensorboard_writer

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="needs the package tensorboard: pip install tensorboard"):
        tensorboard_writer(tmp_path, "run-1")


def test_a_kernel_that_is_restarted_in_the_middle_of_a_run_goes_on(tmp_path, monkeypatch):
    """As in Jupyter, which names its session to the kernel: there is a bar then. All cells are run again."""
    from jupyter_client.manager import start_new_kernel

    cells = nbformat.read(ROOT / "notebooks" / "retrain.ipynb", as_version=4).cells[:-1]  # without the figure
    run, said = tmp_path / "run", []

    def notebook(n_retrain: int) -> str:
        changes = {**TINY_RUN, "n_retrain": n_retrain, "run_dir": str(run)}
        given = "\n".join(f"{name} = {value!r}" for name, value in changes.items())
        code = [cell for cell in cells if cell.cell_type == "code"]
        return "\n".join(c.source + f"\n{given}" * (c.metadata.get("tags") == ["parameters"]) for c in code)

    monkeypatch.setenv("JPY_SESSION_NAME", "retrain.ipynb")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    manager, client = start_new_kernel(startup_timeout=300, cwd=str(tmp_path))
    try:
        client.execute(notebook(n_retrain=60))
        while manager.is_alive() and len(read_ledger(run)) < 2:
            time.sleep(0.01)
        manager.restart_kernel()
        client.wait_for_ready(timeout=300)
        before = untimed(run / "ledger.jsonl")
        assert run_status(run).state in ("stopped", "interrupted")  # asked to end, or killed
        reply = client.execute_interactive(notebook(n_retrain=len(before)), timeout=600, output_hook=said.append)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok", reply["content"]
    text = "".join(message["content"].get("text", "") for message in said if message["msg_type"] == "stream")
    assert f"generation {len(before)} of {len(before)}: fid" in text
    assert "img/s" in text
    after = untimed(run / "ledger.jsonl")
    assert (after[:-1], len(after)) == (before, len(before) + 1)
    assert run_status(run).state == "complete"
