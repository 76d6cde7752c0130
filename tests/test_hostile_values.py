"""Every parameter of a run is handed what nobody should hand it: it is refused by name, in an instant and without a
trace, or the run opens."""

import math
import resource
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iterative_retraining.__main__ import NAMES
from iterative_retraining.errors import ConfigError, UserError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.models import MODELS
from iterative_retraining.schemes import SCHEMES, scheme_defaults
from iterative_retraining.selectors import SELECTORS, selector_defaults

SMALL = {"dataset": "digits", "model": "gaussian", "n_real": 40, "n_retrain": 1, "device": "cpu", "run_dir": "run"}
NUMBERS = [-1, 0, 1, 3, 7, 0.5, 1.5, 5e-324, 10**9, 1e9, 2**63, 1e300, 1.7e308, math.inf, -math.inf, math.nan]
NUMBERS += [10**400, -(10**400), 10**5000, np.float32(0.5), np.int64(3), np.float64("nan"), np.array(3), 1j]
TEXTS = ["text", "", " ", "x" * 100_000, "9" * 5000, "\0", "a/\0", "\ud800", b"x", "..", "/", "/dev/null", "/proc/x"]
TEXTS += ["cuda:²", "cuda:" + "9" * 5000, "cpu:0"]
LISTS = [[], (), [1], (1,), [[1]], [[]], [0], [-1], [True], [1.5], ["a"], [10**9], [10**9] * 3, list(range(10_000))]
OTHERS = [{}, {"zzz": 1}, {1: 2}, None, True, False, object, np.array([1, 2]), np.bool_(True)]
VALUES = st.one_of(
    *map(st.sampled_from, (NUMBERS, TEXTS, LISTS, OTHERS)), st.integers(), st.floats(), st.text(max_size=20)
)
MEMORY = 3 * 2**30  # that a test may take beside what it has, in bytes of addresses


def of_models() -> list[tuple[dict, str, str]]:
    """Every option of every model with every network, as (parameters beside it, where it stands, its name)."""
    return [
        ({"model": model, "model_options": {"network": network} if network else {}}, "model_options", option)
        for model, family in MODELS.items()
        for network in family.networks or ("",)
        for option in family.defaults(network)
    ]


def of_schemes() -> list[tuple[dict, str, str]]:
    """Every option of every scheme, and lam with each."""
    options = [
        ({"scheme": scheme}, "scheme_options", option) for scheme in SCHEMES for option in scheme_defaults(scheme)
    ]
    return options + [({"scheme": scheme}, "", "lam") for scheme in SCHEMES]


@contextmanager
def little_memory():
    """Whatever is allocated beyond MEMORY raises MemoryError, or torch's error of the same meaning."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty current directory, for runs whose floor costs nothing where it can be measured at all."""
    floor = ImageMetrics.floor
    cheap = lambda self, real, *, seed: floor(self, real, seed=seed, n_splits=1)  # noqa: E731
    monkeypatch.setattr(ImageMetrics, "floor", cheap)
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    open_experiment(**SMALL).run.close()  # what is imported at the first opening is no cost of a refusal
    shutil.rmtree("run")
    return tmp_path / "inside"


def check(folder: Path, beside: dict, where: str, name: str, value: object) -> None:
    """Opens the experiment, or it is refused as it should be."""
    parameters = {**SMALL, **beside}
    parameters |= {where: {**parameters.get(where, {}), name: value}} if where else {name: value}
    names = [name, *(map(str, value) if isinstance(value, dict) else ())]  # of a mapping, an unknown key will do
    outside = sorted(folder.parent.iterdir())
    start, refused = time.process_time(), None
    try:
        with little_memory():
            experiment = open_experiment(**parameters)
    except UserError as error:
        refused = str(error)
    if refused is None:
        experiment.run.close()
        shutil.rmtree(experiment.run.path)
        shutil.rmtree("runs", ignore_errors=True)
    else:
        assert time.process_time() - start < 1
        assert any(one in refused for one in names), refused
        assert len(refused) < 1500
        assert list(folder.iterdir()) == []
    assert sorted(folder.parent.iterdir()) == outside
    assert not Path("/.lock").exists()


common = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@common
@given(name=st.sampled_from(NAMES), value=VALUES)
def test_a_parameter_is_refused_by_name_or_the_run_opens(folder, name, value):
    check(folder, {}, "", name, value)


@common
@given(case=st.sampled_from(of_models()), value=VALUES)
def test_an_option_of_a_model_is_refused_by_name_or_the_run_opens(folder, case, value):
    check(folder, *case, value)


@settings(common, max_examples=60)
@given(case=st.sampled_from(of_schemes()), value=VALUES)
def test_an_option_of_a_scheme_is_refused_by_name_or_the_run_opens(folder, case, value):
    check(folder, *case, value)


def of_selectors() -> list[tuple[dict, str, str]]:
    """Every option of every selector, and the keep rate with each."""
    options = [
        ({"selector": name}, "selector_options", option) for name in SELECTORS for option in selector_defaults(name)
    ]
    return options + [({"selector": name}, "", "keep_rate") for name in SELECTORS]


@settings(common, max_examples=60)
@given(case=st.sampled_from(of_selectors()), value=VALUES)
def test_an_option_of_a_selector_is_refused_by_name_or_the_run_opens(folder, case, value):
    check(folder, *case, value)


NETWORK_MODELS = [("edm", "ddpmpp"), ("edm", "adm"), ("edm", "diffusers"), ("ddpm", "ddpmpp"), ("spline_flow", "")]


@pytest.mark.parametrize(("model", "network"), NETWORK_MODELS)
def test_no_option_of_a_thousand_million_is_built(folder, model, network):
    beside = {"model": model, "model_options": {"network": network} if network else {}}
    for option in MODELS[model].defaults(network):
        check(folder, beside, "model_options", option, 10**9)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("edm", {"channels": 10**9}, r"channels = 1000000000 is not allowed: it must be at most 8192"),
        ("edm", {"multipliers": [1, 1000]}, r"channels = 16 is not allowed with multipliers = \(1, 1000\)"),
        ("edm", {"blocks_per_level": 1000}, r"blocks_per_level = 1000 is not allowed: it must be at most 64"),
        ("edm", {"augment_labels": -1}, r"augment_labels = -1 is not allowed"),
        ("edm", {"augment_labels": 5, "augment_probability": 0.1}, r"set augment_labels = 9"),
        ("edm", {"n_steps": 10**9}, r"n_steps = 1000000000 is not allowed: it must be at most 100000"),
        ("edm", {"rho": 1e-300}, r"rho = 1e-300 is not allowed with sigma_min = 0.002 and sigma_max = 80.0"),
        ("edm", {"rho": 1e300}, r"rho = 1e\+300 is not allowed"),
        ("edm", {"sigma_max": math.inf}, r"sigma_max = inf is not allowed: it must be a finite number"),
        ("edm", {"network": ""}, r"unknown network ''; allowed: ddpmpp, adm, diffusers"),
        ("ddpm", {"beta_first": 2.0}, r"beta_first = 2.0 is not allowed: it must be below 1"),
        ("spline_flow", {"n_transforms": 10**6}, r"n_transforms = 1000000, .* is not allowed: a flow has at most"),
        ("spline_flow", {"width": 10**6}, r"width = 1000000, .* is not allowed: a flow has at most"),
    ],
)
def test_what_no_network_and_no_sampler_can_be_is_said(folder, model, options, message):
    with pytest.raises(ConfigError, match=message):
        open_experiment(**{**SMALL, "model": model, "model_options": options})
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_real": 1}, "n_real = 1 is not allowed: half of them are too few"),
        ({"n_real": 11}, r"n_real = 11 is not allowed: half of them are too few .*; take more"),
        ({"lam": 1e300}, r"lam = 1e\+300 is not allowed: .*at most 1e\+09"),
        ({"lam": math.nan, "scheme": "fully_synthetic"}, "lam = nan is not allowed"),
        ({"seed": 10**5000}, "seed = <int> is not allowed"),
        ({"model_options": []}, r"model_options = \[\] is not allowed: it maps names of options to values"),
        ({"run_dir": "x" * 1000}, "run_dir = .* is not allowed: the name is too long"),
        ({"device": "cuda:²"}, "unknown device 'cuda:²'; allowed: auto, cpu, cuda, cuda:N"),
    ],
)
def test_what_no_run_can_have_is_said_before_anything_is_made(folder, parameters, message):
    with pytest.raises(ConfigError, match=message):
        open_experiment(**{**SMALL, **parameters})
    assert list(folder.iterdir()) == []


def test_a_folder_of_other_things_is_left_as_it_was(folder):
    (folder / "own.txt").write_text("mine")
    with pytest.raises(UserError, match=r"run_dir"):
        open_experiment(**{**SMALL, "run_dir": str(folder)})
    assert [path.name for path in folder.iterdir()] == ["own.txt"]


def test_numbers_that_mean_the_same_are_one_run_whatever_their_type(folder):
    ids = set()
    for n_blocks in (3, np.int64(3)):
        run = open_experiment(**{**SMALL, "scheme": "fresh", "scheme_options": {"n_blocks": n_blocks}}).run
        ids.add(run.config.run_id)
        run.close()
    assert len(ids) == 1
