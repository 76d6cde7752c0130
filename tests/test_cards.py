"""Plans on cards of the table: by their data sheets where nothing was measured on them."""

from pathlib import Path

import pytest

from iterative_retraining.errors import ConfigError

from conftest import ROOT
from plan import main
from test_plan import EDM, cells, save, write_run


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project as the current directory."""
    (tmp_path / "profiles").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_preset_is_planned_on_a_card_without_data_weights_or_speeds(monkeypatch):
    monkeypatch.chdir(ROOT)
    report = main(["paper/edm-cifar10", "--device", "a100", "--results", "profiles"])  # no ledger is there
    forward = 42.4e9  # of DDPM++ for CIFAR-10
    rows = [line.split("|") for line in report.splitlines() if "tabled, not measured" in line]
    images, samples, metrics = map(float, rows[0][2:5])
    assert len(rows) == 2  # as published, as intended
    assert images == pytest.approx(0.25 * 19.5e12 / (3 * forward), rel=0.01)
    assert samples == pytest.approx(0.25 * 19.5e12 / (35 * forward), rel=0.01)
    assert metrics == 200
    assert [float(rows[1][i]) / float(rows[0][i]) for i in (2, 3, 4)] == pytest.approx([16, 16, 1], rel=0.01)
    assert [row[5].strip() for row in rows] == [
        f"tabled, not measured: 25% of {peak} TFLOP/s (A100 80 GB, {name})"
        for peak, name in (("19.5", "float32"), ("312", "bfloat16"))
    ]
    runs, generations, trained, drawn, hours, _ = (cell.replace(" ", "") for cell in cells(report, "all"))
    assert (runs, generations, trained) == ("12", "252", str(12 * 20 * 10**6))
    seconds = (int(trained) / images + int(drawn) / samples) * (1 + 1 / 16) / 2 + 252 * metrics
    assert float(hours) == pytest.approx(seconds / 3600, rel=0.01)
    assert "Before a run: edm-cifar10-32x32-uncond-vp.pkl is not there; --check says what else is missing." in report
    memory = [line.split("|") for line in report.splitlines() if line.endswith(" of 256 |")]
    assert [row[3].strip() for row in memory] == ["256 of 256"] * 2
    float32, bfloat16 = (float(row[2]) for row in memory)
    assert 30 < float32 < 34  # 31 GB, counted by hooks on saved tensors
    assert 15 < bfloat16 < 19
    faster = main(["paper/edm-cifar10", "--device", "H100", "--results", "profiles"])
    assert float(cells(faster, "all")[4]) < float(hours)


def test_what_was_measured_stands_before_what_is_tabled(project):
    write_run(project / "results" / "a", device="NVIDIA H100 80GB HBM3")
    save(EDM | {"arms": [{"model": ["edm", "ddpm"]}]})
    report = main(["tiny", "--device", "h100"])
    assert "measured: 3 generations on NVIDIA H100 80GB HBM3: a" in report
    assert cells(report, "edm on digits, features digits")[0] == "50"
    tabled = cells(report, "ddpm on digits, features digits")[3]
    assert tabled == "tabled, not measured: 25% of 66.9 TFLOP/s (H100 SXM, float32)"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ({"model": "gaussian"}, "no table of speeds for gaussian on digits: it has no network"),
        ({"model_options": {"precision": "bfloat16"}}, "Tesla V100 32 GB has no bfloat16; set precision: float32"),
    ],
)
def test_what_a_card_cannot_do_is_said(project, run, message):
    save(EDM | {"run": EDM["run"] | run})
    with pytest.raises(ConfigError, match=message):
        main(["tiny", "--device", "V100"])
