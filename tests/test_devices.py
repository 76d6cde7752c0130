"""Why PyTorch cannot use a card, by pretended drivers and builds; what nvidia-smi prints is read as it prints it."""

import os
import re
import stat

import pytest
import torch

from iterative_retraining import config, devices
from iterative_retraining.config import check_device
from iterative_retraining.devices import Gpu, listed_gpus, why_no_gpu
from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs import progress
from iterative_retraining.runs.progress import opening_lines

H100 = Gpu("NVIDIA H100 80GB HBM3", 81559, "580.65.06", 9.0)


@pytest.fixture
def torch_of(monkeypatch):
    """A build of PyTorch for CUDA 13.0, which can or cannot start it."""

    def build(works: bool, cuda: str | None = "13.0", architectures: tuple[str, ...] = ("sm_75", "sm_90a")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: works)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: list(architectures))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return build


def test_a_card_that_works_needs_no_words(torch_of):
    torch_of(True)
    assert why_no_gpu([H100]) == why_no_gpu([]) == ""


@pytest.mark.parametrize(
    ("gpu", "build", "words"),
    [
        (H100, {"cuda": None}, "is built without CUDA; README.md, An older driver, says what to install"),
        (
            Gpu("Old", 16000, "535.129.03", 8.0),
            {},
            "its driver is 535.129.03, and .* needs 580 or newer; README",
        ),
        (Gpu("Old", 16000, "470.42", 7.0), {"cuda": "12.6"}, "its driver is 470.42, and PyTorch .* needs 525 or newer"),
        (Gpu("P100", 16000, "580.65", 6.0), {"works": True}, "its compute capability is 6.0, .* needs 7.5 or more"),
        (H100, {}, r"PyTorch cannot start CUDA; python -c 'import torch; torch\.cuda\.init\(\)' says why"),
    ],
)
def test_what_keeps_torch_from_a_card_is_one_sentence(torch_of, gpu, build, words):
    torch_of(**{"works": False} | build)
    assert re.search(words, why_no_gpu([gpu]))
    assert why_no_gpu([gpu]).startswith(f"{gpu.name} is not used: ")


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_card_is_said_to_be_hidden(torch_of, monkeypatch, hidden):
    torch_of(False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert why_no_gpu([H100]).endswith(f"CUDA_VISIBLE_DEVICES = {hidden!r} hides it; unset that")


def test_auto_takes_no_card_whose_kernels_the_build_lacks(torch_of, monkeypatch):
    torch_of(True)
    monkeypatch.setattr(devices, "listed_gpus", lambda: [H100])
    assert check_device("auto") == "cuda"
    monkeypatch.setattr(devices, "listed_gpus", lambda: [Gpu("P100", 16000, "580.65", 6.0)])
    assert check_device("auto") == "cpu"
    assert config.why_no_gpu().startswith("P100 is not used")


SMI = """#!/bin/sh
case "$1" in *compute_cap*) {first} ;; esac
echo 'Tesla V100-SXM2-32GB, 32510, 470.57.02'
"""


@pytest.mark.parametrize(
    ("first", "capability"),
    [("echo 'Tesla V100-SXM2-32GB, 32510, 470.57.02, 7.0'; exit 0", 7.0), ("exit 2", 0.0)],
)
def test_what_nvidia_smi_prints_is_read(tmp_path, monkeypatch, first, capability):
    path = tmp_path / "nvidia-smi"
    path.write_text(SMI.format(first=first))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert listed_gpus() == [Gpu("Tesla V100-SXM2-32GB", 32510, "470.57.02", capability)]
    path.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed: no communication with the driver'\nexit 9\n")
    assert listed_gpus() == []
    path.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert listed_gpus() == []


def test_a_run_says_which_device_it_took_and_why_not_the_card(tmp_path, monkeypatch):
    run = open_experiment(model="gaussian", n_retrain=1, device="cpu", run_dir=tmp_path / "run").run
    device = next(line for line in opening_lines(run, 1).splitlines() if line.startswith("device "))
    assert re.fullmatch(r"device cpu: .+, \d+ thread\(s\)", device)
    monkeypatch.setattr(progress, "why_no_gpu", lambda: "H100 is not used: its driver is old")
    assert "note: H100 is not used: its driver is old" in opening_lines(run, 1).splitlines()
    assert not any(line.startswith("device ") for line in opening_lines(run, -1).splitlines())  # nothing is left to do
