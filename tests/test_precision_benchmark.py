"""The table of benchmarks/precision.py."""

from argparse import Namespace

import numpy as np
import precision
import pytest

from iterative_retraining.models.fitting import PRECISIONS


def one(loss: float, fid: float, seconds: float = 1.0) -> dict:
    return {"losses": [loss] * precision.WINDOWS, "fid": fid, "seconds": seconds}


def test_differences_are_taken_within_a_seed():
    found = {"float32": [one(0.5, 3.0), one(0.3, 1.0)], "bfloat16": [one(0.6, 3.0, 2.0), one(0.4, 1.0, 4.0)]}
    rows = precision.table(found).splitlines()
    assert rows[2].startswith("| loss, images 0/5 to 1/5 | 0.4 | 0.14 | 0.10000 ± ")
    assert rows[2 + precision.WINDOWS] == "| FID | 2 | 1.4 | 0.00000 ± 0.00000 | 0.00 |"
    wide = precision.table({"float32": found["float32"], "bfloat16": [one(0.5, 4.0), one(0.3, 1.0)]})
    # gaps 1 and 0: 0.5 + 12.706 * 0.5 = 6.853, and the spread of 3 and 1 is 1.414
    assert wide.splitlines()[2 + precision.WINDOWS].endswith("| 0.50000 ± 6.35310 | 4.85 |")
    assert "3.00 (2.00 to 4.00) times as long" in rows[-1]


def test_what_is_done_is_not_done_again_and_not_mixed(tmp_path, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(precision, "measured", lambda given, *which: made.append(which) or one(1.0, 2.0))
    monkeypatch.setattr(precision, "floor", lambda given: 0.5)
    given = Namespace(folder=tmp_path, data_dir=None, seeds=[0, 1], samples=10, images=1000)
    precision.main(given)
    precision.main(given)
    assert made == [(name, seed) for seed in (0, 1) for name in PRECISIONS]
    assert "FID of 10 real images: 0.5" in capsys.readouterr().out
    given.images = 2000
    with pytest.raises(SystemExit, match=r"float32-seed0.json is of other parameters, {'images': 1000}; take another"):
        precision.main(given)
    given.images = 639
    with pytest.raises(SystemExit, match="--images 639 is not allowed: at least 640"):
        precision.main(given)


def test_losses_are_kept_of_every_batch_and_do_not_change_the_weights():
    from iterative_retraining.models.edm import EDM
    from iterative_retraining.models.fitting import TrainingConfig
    from iterative_retraining.models.networks.ddpmpp import UNetConfig
    from iterative_retraining.models.training import NetworkModel
    from iterative_retraining.training_set import TrainingSet

    network = UNetConfig(**precision.SHAPE, channels=4, dropout=0.0, augment_labels=0)
    config = TrainingConfig(network=network, n_images_initial=20, n_images_per_retraining=0, batch_size=8)
    data = TrainingSet.of(np.random.default_rng(0).integers(0, 256, (16, 28, 28, 1), dtype=np.uint8))
    recorded, plain = precision.Recorded(EDM(), config), NetworkModel(EDM(), config)
    for model in (recorded, plain):
        model.fit(data, seed=3)
    assert len(recorded.losses) == 3
    assert all(np.array_equal(value, plain.state_dict()[name]) for name, value in recorded.state_dict().items())
