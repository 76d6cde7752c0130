import json

import numpy as np
import pytest

from iterative_retraining.config import RunConfig, check_device
from iterative_retraining.errors import ConfigError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs.origin import init_identity

BAD = [
    ({"lam": -0.5}, r"lam = -0.5 is not allowed"),
    ({"lam": float("nan")}, r"lam = nan is not allowed"),
    ({"lam": float("inf")}, r"'fully_synthetic'"),
    ({"lam": "half"}, r"lam = 'half' is not allowed"),
    ({"lam": True}, r"lam = True is not allowed"),
    (
        {"dataset": "digit"},
        r"unknown dataset 'digit'; allowed: digits, .*; did you mean 'digits'\?",
    ),
    ({"model": "gan"}, r"unknown model 'gan'; allowed: edm, flow_matching, ddpm, spline_flow, gaussian"),
    ({"scheme": "fully-synthetic"}, r"did you mean 'fully_synthetic'\?"),
    ({"seed": -1}, r"seed = -1 is not allowed"),
    ({"seed": 1.5}, r"seed = 1.5 is not allowed"),
    ({"n_images_initial": -1}, r"n_images_initial = -1 is not allowed"),
    ({"n_images_per_retraining": "many"}, r"n_images_per_retraining = 'many'"),
]
MORE_BAD = [
    ({"n_retrain": -1}, r"n_retrain = -1 is not allowed: it counts retrainings, a whole number >= 0"),
    ({"n_retrain": 2.5}, r"n_retrain = 2.5"),
    ({"device": "gpu"}, r"unknown device 'gpu'; allowed: auto, cpu, cuda, cuda:N"),
    ({"device": "cuda:99"}, r"device 'cuda:99' is not there: this machine has \d+ CUDA devices"),
    ({"model_options": {"chanels": 3}}, r"unknown option 'chanels' of model 'edm'; allowed: .*channels"),
    ({"model_options": {"channels": 3}}, r"channels = 3 is not allowed"),
    ({"model_options": {"multipliers": [1, 1, 1, 1, 1]}}, r"cannot be halved"),
    ({"model_options": {"learning_rate": "fast"}}, r"learning_rate"),
    ({"init": "nowhere"}, r"init = 'nowhere' is no run directory and no file"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_bad_parameters_are_refused_by_name(change, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**change)


@pytest.mark.parametrize(("change", "message"), BAD + MORE_BAD)
def test_nothing_is_written_for_a_bad_parameter(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        open_experiment(**{"n_retrain": 1, "run_dir": tmp_path / "run", **change})
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_parameter_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown parameter .lambd.; allowed: .*did you mean .lam."):
        open_experiment(n_retrain=1, lambd=0.5, run_dir=tmp_path / "run")


def test_hash_depends_on_what_decides_the_numbers_and_on_nothing_else():
    base = RunConfig()
    assert base.hash == RunConfig(lam=0.5, options={"channels": 16}).hash
    different = [
        {"lam": 0.6},
        {"seed": 1},
        {"scheme": "fully_synthetic"},
        {"options": {"n_steps": 9}},
        {"model": "gaussian"},
    ]
    hashes = {RunConfig(**change).hash for change in different} | {base.hash}
    assert len(hashes) == 6
    assert RunConfig(lam=1).hash == RunConfig(lam=1.0).hash
    assert RunConfig(scheme="fully_synthetic", lam=0.1).hash == RunConfig(scheme="fully_synthetic", lam=0.9).hash
    assert RunConfig(init="x@0", n_images_initial=1).hash == RunConfig(init="x@0", n_images_initial=2).hash
    from_scratch = {"init": "x@0", "options": {"warm_start": False}}  # every refit then has the budget of theta_0
    assert RunConfig(**from_scratch, n_images_initial=1).hash != RunConfig(**from_scratch, n_images_initial=2).hash


def test_run_id_reads_and_ends_in_the_hash():
    config = RunConfig(lam=0.5, seed=3)
    assert config.run_id == f"digits-edm-mix-lam0.5-seed3-{config.hash}"


def test_identity_is_plain_json_with_every_option():
    identity = RunConfig().identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["options"]["sigma_max"] == 80.0


def test_values_that_mean_the_same_are_one_run():
    assert (
        RunConfig(options={"dropout": 0, "learning_rate": 1}).hash
        == RunConfig(options={"dropout": 0.0, "learning_rate": 1.0}).hash
    )
    assert RunConfig(options={"multipliers": [1, 2]}).hash == RunConfig(options={"multipliers": (1, np.int64(2))}).hash
    assert RunConfig(seed=np.int64(3), lam=np.float32(0.5)).hash == RunConfig(seed=3, lam=0.5).hash
    assert RunConfig(n_images_initial=1e5).n_images_initial == 100_000


def test_device_auto_is_what_is_there():
    import torch

    assert check_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert check_device("cpu") == "cpu"


def test_init_of_a_run_without_a_complete_generation_is_refused(tmp_path):
    config = {"run_id": "x", "identity": RunConfig().identity()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="no complete generation yet"):
        init_identity(tmp_path)
