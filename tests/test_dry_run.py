"""Every preset of the paper from files in the published layouts: benchmarks/dry_run.py with small networks.

The zips of CIFAR-10 and FFHQ-64 have tests of their own; here patches of photographs stand in for them.
"""

import pytest

from iterative_retraining.rehearsal import rehearsal_of

import dry_run

DDPMPP = {"channels": 8, "multipliers": [1, 2], "blocks_per_level": 1, "attention_resolutions": []}
UNET = {"channels": 32, "multipliers": [1, 2], "blocks_per_level": 1, "attention_resolutions": []}
SMALL = {"edm-ffhq64": DDPMPP, "otcfm-cifar10": UNET, "ddpm-cifar10": UNET}  # edm-cifar10: tests/test_rehearsal.py


@pytest.mark.parametrize("preset", SMALL)
def test_a_preset_trains_samples_and_measures(preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    parameters = dry_run.arms_of(preset, SMALL[preset])["as intended"]
    dry_run.write_weights(parameters)
    missing = rehearsal_of(parameters, tmp_path).missing
    assert len(missing) == 2, missing  # the data, and the file of Inception
    step, sample, fid = map(float, dry_run.dry(parameters, tmp_path).split("|"))
    assert min(step, sample) > 0
    assert fid > 0
