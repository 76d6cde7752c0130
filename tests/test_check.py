"""What --check says of files, disk, memory and cards: all that is missing at once."""

import shutil
from pathlib import Path

import pytest

from iterative_retraining.devices import Gpu
from iterative_retraining.errors import ConfigError

import check as checking
from conftest import ROOT
from plan import main
from test_plan import EDM, save


@pytest.fixture
def project(tmp_path, monkeypatch) -> None:
    """A project with the profile `tiny` as the current directory."""
    (tmp_path / "profiles").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "listed_gpus", list)
    monkeypatch.setattr(checking, "_available_memory", lambda: 64_000)
    save(EDM)


def said(arguments: list[str]) -> str:
    with pytest.raises(ConfigError) as refused:
        main([*arguments, "--check"])
    return str(refused.value)


def test_a_preset_names_all_that_is_missing_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "profiles", "profiles")
    monkeypatch.setattr(checking, "listed_gpus", list)
    monkeypatch.setattr(checking, "_available_memory", lambda: 64_000)
    monkeypatch.setattr(checking.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**12, 0, 10**12))
    lines = [line for line in said(["paper/edm-cifar10", "--device", "a100"]).splitlines() if "MISSING" in line]
    wanted = [
        "data: cifar10 in data: cifar10 is looked for in data, which is not there; set data_dir to",
        "features: inception-legacy_pytorch data/weights/pt_inception-2015-12-05-6726825d.pth: Inception weights",
        "weights: data/weights/edm-cifar10-32x32-uncond-vp.pkl: init = ",
        "GPU: none here, nvidia-smi lists none (PyTorch ",
    ]
    assert len(lines) == len(wanted)
    assert all(line.startswith(f"- MISSING: {words}") for line, words in zip(lines, wanted, strict=True))
    assert "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained/edm-cifar10-32x32-uncond-vp.pkl" in lines[2]


def test_a_profile_that_brings_all_can_start(project):
    report = main(["tiny", "--check"])
    assert report.startswith("## tiny can start here")
    assert "data: digits in its library" in report
    assert "GPU: none here" in report  # the CPU will do where no card is asked for


def test_a_file_of_another_kind_and_a_full_disk_are_named_together(project, monkeypatch):
    Path("weights.pkl").write_bytes(b"<!DOCTYPE html>")
    save(EDM | {"run": EDM["run"] | {"init": "weights.pkl"}, "resources": {"mem_mb": 64_000}})
    monkeypatch.setattr(checking.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 0))
    monkeypatch.setattr(checking, "_available_memory", lambda: 8_000)
    report = said(["tiny"])
    assert "3 of 6 things are missing" in report
    assert "no pickle of an EDM network (UnpicklingError): it seems to be an HTML page" in report
    assert "MISSING: disk: " in report
    assert "0.0 GB are free" in report
    assert "MISSING: memory: a run may take 64000 MB (resources: mem_mb), 8000 MB are free" in report


@pytest.mark.parametrize(
    ("asked", "why", "missing"),
    [
        ("a100", "", "GPU asked for: A100 80 GB, and here: NVIDIA H100 80GB HBM3, 81559 MB, driver 580.65"),
        ("h100", "", None),
        ("h100", "its driver is old", "GPU: its driver is old"),
    ],
)
def test_the_card_that_is_asked_for_has_to_be_there_and_to_work(project, monkeypatch, asked, why, missing):
    monkeypatch.setattr(checking, "listed_gpus", lambda: [Gpu("NVIDIA H100 80GB HBM3", 81559, "580.65", 9.0)])
    monkeypatch.setattr(checking, "why_no_gpu", lambda: why)
    arguments = ["tiny", "--device", asked]
    if missing is None:
        assert "GPU asked for: H100 SXM" in main([*arguments, "--check"])
    else:
        assert f"MISSING: {missing}" in said(arguments)
