"""The same text is the same value at every door: -p and -f of the command line, a profile, papermill."""

import base64
import json
import math
import signal
import subprocess
import sys

import pytest
import yaml
from forked import start_module
from test_notebooks import run_papermill

from iterative_retraining import yaml_door
from iterative_retraining.__main__ import parameters
from iterative_retraining.errors import ConfigError
from iterative_retraining.parameters import check_parameters, load_yaml, parse_value
from iterative_retraining.runs.reading import read_ledger

from conftest import PACKAGE, ROOT, TINY_RUN, exit_of, wait_for

VALUES = [
    ("010", 10),
    ("0o10", 8),
    ("0x1F", 31),
    ("100_000", 100_000),
    ("-3", -3),
    ("1e-3", 0.001),
    (".5", 0.5),
    ("1_000.5", 1000.5),
    ("1:30", "1:30"),
    ("yes", "yes"),
    ("true", True),
    ("null", None),
    ("2020-01-01", "2020-01-01"),
    ('{"channels": 8}', {"channels": 8}),
    ("{channels: 010, a: [1e-3, yes]}", {"channels": 10, "a": [0.001, "yes"]}),
    ('"010"', "010"),
]


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_value_is_the_same_by_command_line_file_and_papermill(tmp_path, text, value):
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)
    assert load_yaml(f"value: {text} # a comment")[0] == {"value": value}
    (tmp_path / "params.yml").write_text(f"lam: {text}\n")
    assert parameters(["-f", str(tmp_path / "params.yml")]) == parameters(["-p", "lam", text]) == {"lam": value}
    from papermill.cli import _resolve_type

    handed = _resolve_type(text)  # what papermill -p makes of it
    namespace = {"In": ["lam = 0.5", f"# Parameters\nlam = {handed!r}\n"], "lam": handed}
    check_parameters(namespace, "lam")
    assert namespace["lam"] == value


@pytest.mark.parametrize("text", ["x #1", "a: 1", "", "*a", "&a", "!x", "@x", "| x", "- 1", "# x", "a,b"])
def test_other_text_is_itself(text):
    assert parse_value(text) == text


@pytest.mark.parametrize("text", ["[1", "{a: 1", '"x', "{a: 1, a: 2}", "[1] 2", "{[1]: 2}", "9" * 5000])
def test_what_does_not_end_well_is_refused_with_the_form_that_works(text):
    with pytest.raises(ConfigError, match=r"is not allowed \(.*\); write lists and mappings as JSON"):
        parse_value(text)


def test_text_stays_text_where_the_default_is_text():
    source = '# Parameters\nrun_dir = "010"\nfeatures = "\\"auto\\""\nmodel_options = "{\\"a\\": 1}"\n'
    namespace = {"In": ['run_dir = ""\nfeatures = "auto"\nmodel_options = {}', source]}
    namespace |= {"run_dir": "010", "features": '"auto"', "model_options": '{"a": 1}'}
    check_parameters(namespace, "run_dir features model_options")
    assert (namespace["run_dir"], namespace["features"], namespace["model_options"]) == ("010", "auto", {"a": 1})


def test_a_number_where_a_folder_belongs_is_refused_with_the_form_that_works():
    namespace = {"In": ['run_dir = ""', "# Parameters\nrun_dir = 2024\n"], "run_dir": 2024}
    with pytest.raises(ConfigError, match=r"""run_dir = 2024 .* it is text, which is written -p run_dir '"2024"'$"""):
        check_parameters(namespace, "run_dir")
    namespace = {"In": ['run_dir = ""', "# Parameters\nrun_dir = '\"2024\"'\n"], "run_dir": '"2024"'}
    check_parameters(namespace, "run_dir")
    assert namespace["run_dir"] == parameters(["-p", "run_dir", '"2024"'])["run_dir"] == "2024"


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    (tmp_path / "params.yml").write_text("lam: 1\nseed: 0\nlam: 2\n")
    with pytest.raises(ConfigError, match=r"cannot read .*params.yml: line 3: key 'lam' is there twice"):
        parameters(["-f", str(tmp_path / "params.yml")])


YAML_1_1 = [("010", 10), ("1:30", "1:30"), ("yes", "yes"), ("0b11", "0b11"), ("[1, 010]", 10), ("{a: on}", "on")]


@pytest.mark.parametrize(("text", "meant"), YAML_1_1)
@pytest.mark.parametrize("option", ["-f", "-y", "-b"])
def test_what_papermill_reads_as_yaml_1_1_is_refused_with_what_to_write(tmp_path, monkeypatch, text, meant, option):
    (tmp_path / "params.yml").write_text(f"seed: {text}\n")
    content = f"{{seed: {text}}}"
    value = {"-f": "params.yml", "-y": content, "-b": base64.b64encode(content.encode()).decode()}[option]
    words = ["python3", "/bin/papermill", "in.ipynb", "out.ipynb", "-p", "lam", "1", option, value, "--no-progress-bar"]
    monkeypatch.setattr(yaml_door, "_parent", lambda: (words, tmp_path))
    read = yaml.safe_load(text)
    namespace = {"In": ["seed = 0\nlam = 0.5", f"# Parameters\nlam = 1\nseed = {read!r}\n"], "seed": read, "lam": 1}
    with pytest.raises(ConfigError, match=rf"^seed\S* = .* is what papermill reads, .* reads {meant!r}, .* write .*or"):
        check_parameters(namespace, "seed lam")
    words[words.index("lam")] = "seed"  # -p comes after them, and counts
    check_parameters(namespace | {"seed": 1}, "seed lam")


def test_what_papermill_reads_as_text_and_every_other_door_as_a_number_is_the_number(tmp_path, monkeypatch):
    content = "{n_real: 1e3, model_options: {learning_rate: 1e-3, multipliers: [1, 2], sigma_max: .inf, network: a}}"
    read = yaml.safe_load(content)
    assert read["model_options"]["learning_rate"] == "1e-3"
    monkeypatch.setattr(yaml_door, "_parent", lambda: (["papermill", "in", "out", "-y", content], tmp_path))
    source = f"# Parameters\nn_real = {read['n_real']!r}\nmodel_options = {read['model_options']!r}"
    namespace = {"In": ["n_real = 0\nmodel_options = {}", source.replace("inf", "1e999")], **read}
    check_parameters(namespace, "n_real model_options")
    options = {"learning_rate": 0.001, "multipliers": [1, 2], "sigma_max": math.inf, "network": "a"}
    assert (namespace["n_real"], namespace["model_options"]) == (1000.0, options)


def test_a_key_that_is_there_twice_is_refused_by_papermill_too(tmp_path, monkeypatch):
    monkeypatch.setattr(yaml_door, "_parent", lambda: (["papermill", "in", "out", "-y", "{lam: 1, lam: 2}"], tmp_path))
    with pytest.raises(ConfigError, match=r"cannot read the parameters .* of -y: line 1: key 'lam' is there twice"):
        check_parameters({"In": ["lam = 0.5", "# Parameters\nlam = 2\n"], "lam": 2}, "lam")


def test_papermill_takes_json_for_a_mapping_and_reads_numbers_as_we_do_from_any_directory(tmp_path):
    """With the spline flow: tests/test_commands.py runs the notebook with its default."""
    small = "{n_real: 40, n_images_initial: 64, n_images_per_retraining: 64, n_retrain: 1, checkpoint_images: 1e3}"
    (tmp_path / "params.yml").write_text(small)
    options = json.dumps({"n_transforms": 1, "width": 32, "learning_rate": 1e-3})
    arguments = (
        "-f",
        "params.yml",
        "-p",
        "model",
        "spline_flow",
        "-p",
        "model_options",
        options,
        "-p",
        "run_dir",
        "run",
    )
    done = run_papermill(str(ROOT / "notebooks" / "retrain.ipynb"), "out.ipynb", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    identity = json.loads((tmp_path / "run" / "config.json").read_text())["identity"]
    assert (identity["options"]["width"], identity["options"]["learning_rate"]) == (32, 0.001)
    assert [(row["n_real"], row["n_synthetic"]) for row in read_ledger(tmp_path / "run")] == [(40, 0), (40, 20)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "lamda", "0.5"], "error: unknown parameter 'lamda'; allowed: .*did you mean 'lam'?"),
        (["-p", "lambda", "0.5"], "error: unknown parameter 'lambda'; allowed: .*did you mean 'lam'?"),
        (["-p", "seed", "x #1"], "error: seed = 'x #1' is not allowed"),
        (["-p", "model_options", "{"], "error: the value { is not allowed"),
        (["-p", "tensorboard_dir", "3"], "error: tensorboard_dir = 3 is not allowed: it is text, which is written"),
        (["-p", "run_dir", "010"], "error: run_dir = 010 is not allowed: .* -p run_dir '\"010\"'"),
        (["-p", "lam", "-1"], "error: lam = -1 is not allowed"),
        (["-f", "nowhere.yml"], "error: cannot read nowhere.yml: [Errno 2] No such file"),
    ],
)
def test_a_bad_command_line_ends_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    error = exit_of(PACKAGE / "__main__.py", *arguments)
    start, _, end = message.partition(".*")
    assert error.startswith(start)
    assert error.endswith(end)
    assert "\n" not in error
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_command_line_ends_in_one_line_of_standard_error(tmp_path):
    command = [sys.executable, "-m", "iterative_retraining", "-p", "lamda", "0.5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: unknown parameter 'lamda'; allowed: ")


def test_an_error_inside_is_not_taken_for_an_unknown_name(monkeypatch):
    from iterative_retraining import __main__

    def fails(**parameters):
        raise TypeError("inside")

    monkeypatch.setattr(__main__, "open_experiment", fails)
    with pytest.raises(TypeError, match=r"^inside$"):
        __main__.main([])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_says_what_it_does_before_it_trains_and_a_signal_ends_it_in_one_line(tmp_path, number, status):
    tiny = {**TINY_RUN, "n_retrain": 50, "run_dir": "run", "tensorboard_dir": "logs"}
    (tmp_path / "params.yml").write_text(json.dumps(tiny))
    process = start_module("iterative_retraining", "-f", "params.yml", cwd=tmp_path)
    wait_for(process, lambda: "\n" in process.said("stdout"))
    first = process.said("stdout").splitlines(keepends=True)[0]
    assert first.startswith("run digits-edm-fully_synthetic-seed0-")
    assert first.endswith(" in run: 0 of 51 generations are complete\n")
    wait_for(process, lambda: bool(read_ledger(tmp_path / "run")))
    process.send_signal(number)
    _, error = process.communicate()
    assert process.returncode == status
    assert error.count("\n") == 1
    assert "generations are kept, and the same command goes on" in error
    assert list((tmp_path / "logs").glob("digits-edm-*/events*"))
