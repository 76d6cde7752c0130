"""Every file that the package reads, truncated and with bytes flipped: the reader's own error, or the right value."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iterative_retraining.errors import UserError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs import reading
from iterative_retraining.runs.results import read_previews, read_runs
from iterative_retraining.status import run_status

from conftest import ROOT
from profiles import load_profile

N_CASES = 500
PROFILE = "description: tiny\nseeds: [0]\nrun: {model: gaussian, n_retrain: 1}\narms:\n  - {scheme: mix, lam: 0.5}\n"
BINARY = {  # what is known again by a digest: any change is refused
    "checkpoint-0001.safetensors": reading.read_state,
    "samples-0001.npy": reading.read_samples,
}
TEXT = {
    "config.json": reading.read_config,
    "manifest.json": reading.read_manifest,
    "floor.json": reading.read_floor,
    "ledger.jsonl": reading.read_ledger,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run, and a profile beside it."""
    folder = tmp_path_factory.mktemp("readers")
    experiment = open_experiment(model="gaussian", n_retrain=1, run_dir=folder / "run")
    list(experiment.records())
    experiment.run.close()
    (folder / "tiny.yml").write_text(PROFILE)
    return folder


def damaged(content: bytes, rng: random.Random) -> bytes:
    """``content`` cut, or with up to four of its bytes changed."""
    if rng.random() < 0.4:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def same(a: object, b: object) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b


def use(run: Path) -> None:
    """All that reads a run directory."""
    run_status(run)
    for read in (lambda: read_runs([run]), lambda: read_previews(run), lambda: open_run(run)):
        try:
            read()
        except UserError:
            continue


def open_run(run: Path) -> None:
    from iterative_retraining.config import RunConfig
    from iterative_retraining.runs.directory import Run

    Run(run, RunConfig(model="gaussian")).close()


def test_every_damaged_file_is_refused_by_its_reader_or_read_right(whole, tmp_path):
    rng, refused, named = random.Random(0), 0, 0
    names = [*BINARY, *TEXT, "preview-0001.png", "tiny.yml"]
    run = tmp_path / "run"
    shutil.copytree(whole / "run", run)
    for number in range(N_CASES):
        name = names[number % len(names)]
        source = whole / name if name == "tiny.yml" else whole / "run" / name
        content = damaged(source.read_bytes(), rng)
        target = tmp_path / name if name == "tiny.yml" else run / name
        target.write_bytes(content)
        read: Callable[[], object] = {
            "tiny.yml": lambda target=target: load_profile(target),
            "preview-0001.png": lambda target=target: reading.read_strip(target),
        }.get(name, lambda name=name: (BINARY | TEXT)[name](run))
        try:
            value = read()
        except UserError as error:
            refused += 1
            named += str(target) in str(error)
        else:
            if name in BINARY or name in ("config.json", "manifest.json", "floor.json"):
                assert same(value, (BINARY | TEXT)[name](whole / "run"))
            elif name == "ledger.jsonl":  # where the end of a line is hit, it does not count
                assert value == reading.read_ledger(whole / "run")[: len(value)]
        if name != "tiny.yml":
            use(run)
            shutil.copyfile(source, target)
    assert N_CASES / 2 < refused == named


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("config.json", '"seed": 0', '"seed": "0"', r"config.json is damaged \(identity.seed: '0' is not of type"),
        ("config.json", '"seed": 0', '"seed": 0, "seed": 1', r"config.json is damaged \(a key is there twice\)"),
        ("manifest.json", '"attempts": [', '"attempts": 3, "b": [', r"manifest.json is damaged \(attempts: 3 is not"),
        ("manifest.json", '"threads"', '"threats"', r"'threads' is a required property"),
        ("floor.json", '"features"', '"feature"', r"floor.json is damaged \('features' is a required property"),
        (
            "ledger.jsonl",
            '"samples_sha256"',
            '"samples"',
            r"jsonl, line 1 is damaged \('samples_sha256' is a",
        ),
        (
            "ledger.jsonl",
            '"fid": ',
            '"fid": 1e999, "f": ',
            r"line 1 is damaged \(1e999 is no finite number",
        ),
        ("ledger.jsonl", '"generation": 1', '"generation": 2', r"line 2 is damaged \(content_sha256 is of another"),
        ("ledger.jsonl", '"fid": ', '"fid": 1', r"line 1 is damaged \(content_sha256 is of another content\)"),
        ("config.json", '"seed": 0', '"seed": 1', r"config.json is damaged \(content_sha256 is of another content\)"),
        ("manifest.json", '"n_retrain": 1', '"n_retrain": 2', r"manifest.json is damaged \(content_sha256 is of"),
    ],
)
def test_messages_name_file_and_place(whole, tmp_path, name, old, new, message):
    text = (whole / "run" / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        TEXT[name](tmp_path)


def test_published_runs_are_read(tmp_path):
    for path in sorted((ROOT / "results").glob("*/")):
        manifest, rows = reading.read_manifest(path), reading.read_ledger(path)
        assert len(rows) == manifest["n_retrain"] + 1
        reading.check_whole(path, rows, manifest)
        assert reading.read_config(path)["run_id"] == path.name
        assert reading.read_floor(path)["n_images"] > 0


@pytest.mark.parametrize("name", TEXT)
def test_every_digit_that_changes_is_noticed(whole, tmp_path, name):
    content, right = (whole / "run" / name).read_bytes(), TEXT[name](whole / "run")
    rng, refused = random.Random(0), 0
    places = [place for place, byte in enumerate(content) if chr(byte).isdigit()]
    for place in rng.sample(places, min(60, len(places))):
        changed = bytearray(content)
        changed[place] = ord("0") + (changed[place] - ord("0") + rng.randint(1, 9)) % 10
        (tmp_path / name).write_bytes(changed)
        try:
            found = TEXT[name](tmp_path)
        except UserError:
            refused += 1
        else:
            assert found == right  # as in 0.50 for 0.5
    assert refused > 50


@pytest.mark.parametrize("name", TEXT)
def test_what_earlier_code_wrote_without_a_seal_is_read(whole, tmp_path, name):
    lines = (whole / "run" / name).read_text().splitlines() if name == "ledger.jsonl" else None
    texts = lines or [(whole / "run" / name).read_text()]
    bare = [{k: v for k, v in json.loads(text).items() if k != "content_sha256"} for text in texts]
    assert [len(json.loads(text)) - len(one) for text, one in zip(texts, bare, strict=True)] == [1] * len(bare)
    (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in bare))
    assert TEXT[name](tmp_path) == TEXT[name](whole / "run")


def test_nesting_without_end_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="nested too deeply"):
        reading.read_config(tmp_path)
    (tmp_path / "ledger.jsonl").write_text(json.dumps({}) + "\n")
    with pytest.raises(UserError, match="line 1 is damaged"):
        reading.read_ledger(tmp_path)
