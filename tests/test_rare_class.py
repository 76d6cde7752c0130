"""Biased real data: of one class only a share is there."""

import numpy as np
import pytest

from iterative_retraining import RunConfig, load_dataset, open_experiment
from iterative_retraining.errors import ConfigError
from iterative_retraining.remeasure import Asked, remeasure

from conftest import untimed

SMALL = {"dataset": "digits", "model": "gaussian", "scheme": "fully_synthetic", "n_retrain": 1}


def test_the_first_of_the_class_stay_and_all_others(tmp_path):
    images, labels = load_dataset("digits")
    one = open_experiment(**SMALL, rare_class=8, rare_share=0.1, run_dir=tmp_path / "run")
    n_class = int((labels == 8).sum())
    kept = np.flatnonzero((labels != 8) | (np.cumsum(labels == 8) <= n_class // 10))
    np.testing.assert_array_equal(one.real, images[kept])
    assert len(kept) == 1500 - n_class + n_class // 10
    first, second = one.records()
    one.run.close()
    assert (first.n_real, second.n_synthetic) == (len(kept), len(kept))
    assert first.metrics["rarest_class"] < 0.2
    assert [row["n_real"] for row in remeasure(tmp_path / "run", Asked(settings={"k": 2}))] == [len(kept), 0]
    assert untimed(tmp_path / "run" / "ledger.jsonl")[0]["n_real"] == len(kept)


def test_it_is_of_the_run_s_identity_and_without_it_the_id_is_what_it_was():
    plain, rare = RunConfig(model="gaussian"), RunConfig(model="gaussian", rare_class=8, rare_share=0.25)
    assert not {"rare_class", "rare_share"} & plain.identity().keys()
    assert plain.run_id == RunConfig(model="gaussian", rare_share=0.5).run_id
    assert rare.run_id.startswith("digits-gaussian-mix-lam0.5-rare8x0.25-seed0-")
    both = RunConfig(model="gaussian", rare_class=0, selector="density")
    assert both.run_id.startswith("digits-gaussian-mix-lam0.5-rare0x0.1-density-keep0.5-seed0-")
    given = {key: value for key, value in rare.identity().items() if value is not None}
    assert RunConfig(**given).run_id == rare.run_id


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rare_class": 10}, "rare_class = 10 .* none is left"),
        ({"rare_class": 3, "rare_share": 0.001}, "rare_class = 3 with rare_share = 0.001 .* none is left"),
        ({"rare_class": -2}, "rare_class = -2 is not allowed"),
        ({"rare_class": 0.5}, "rare_class = 0.5 is not allowed"),
        ({"rare_class": 0, "rare_share": 0}, "rare_share = 0 is not allowed"),
        ({"rare_class": 0, "rare_share": 1.5}, "rare_share = 1.5 is not allowed"),
        ({"rare_class": 0, "dataset": "ffhq64"}, "ffhq64 has no classes"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        open_experiment(**{**SMALL, **given}, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
