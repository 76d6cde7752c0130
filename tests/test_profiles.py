import math
from pathlib import Path

import papermill
import pytest
import yaml

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import ConfigError
from iterative_retraining.models import build_model
from iterative_retraining.models.paths import SAMPLER_OPTIONS
from iterative_retraining.runs.origin import init_identity
from iterative_retraining.studies.report.protocol import PUBLISHED, Retraining

from conftest import ROOT
from execute import execute
from profiles import RUN_KEYS, load_profile

TINY = {
    "description": "tiny",
    "seeds": [0],
    "run": {"dataset": "digits", "model": "gaussian", "n_retrain": 2},
    "arms": [{"scheme": "fully_synthetic"}, {"scheme": "mix", "lam": 0.5}],
    "chapters": {"01_gaussian_warmup": {"n_chains": 200, "n_generations": 60}, "05_images": {}},
}


def written(tmp_path: Path, profile: dict) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(profile, sort_keys=False))
    return path


def with_arms(*arms: dict, **run: object) -> dict:
    return TINY | {"run": TINY["run"] | run, "arms": list(arms)}


RESULTS = ROOT / "results"
STUDIES = [
    "digits_ablations",
    "digits_controls",
    "digits_edm",
    "digits_families",
    "digits_filters",
    "digits_filters_flow",
    "digits_long",
    "digits_otcfm",
    "digits_rare",
    "fashion14",
]


@pytest.mark.parametrize("name", ["quick", "cpu", "fashion", "fashion_cpu", *STUDIES])
def test_committed_profiles_plan_every_arm_of_every_seed(name):
    profile = load_profile(ROOT / "profiles" / f"{name}.yml")
    text = yaml.safe_load((ROOT / "profiles" / f"{name}.yml").read_text())
    grids = [math.prod(len(value) for value in arm.values() if isinstance(value, list)) for arm in text["arms"]]
    assert len(profile.arms) == len(text["seeds"]) * sum(grids)
    kinds = {
        (run.config.model, repr({k: v for k, v in run.config.options.items() if k not in SAMPLER_OPTIONS}))
        for run in profile.runs.values()
    }  # each has its theta_0
    assert len(profile.runs) == len(profile.arms) + len(text["seeds"]) * len(kinds)
    for run in profile.runs.values():
        assert run.init is None or profile.runs[run.init].parameters["seed"] == run.parameters["seed"]


def test_published_results_are_complete_runs_of_the_profiles_for_a_cpu():
    """By the readable part of their names: its hash is of the code that published them."""
    published = [(p.parent.name[:-11], len(p.read_text().splitlines())) for p in RESULTS.glob("*/ledger.jsonl")]
    profiles = [load_profile(ROOT / "profiles" / f"{name}.yml") for name in ("fashion_cpu", *STUDIES)]
    planned = {(arm[:-11], p.runs[arm].parameters["n_retrain"] + 1) for p in profiles for arm in p.arms}
    assert published
    assert set(published) <= planned


def test_a_profile_may_set_what_the_notebook_of_a_run_takes_and_nothing_else():
    parameters = set(papermill.inspect_notebook(str(ROOT / "notebooks" / "retrain.ipynb")))
    assert parameters - set(RUN_KEYS) == {"seed", "device", "run_dir", "rehearsal"}
    assert set(RUN_KEYS) <= parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm": []}, r"unknown key 'arm'; allowed: .*did you mean 'arms'"),
        ({"arms": [{"scheme": "mix", "lamb": 1}]}, r"unknown key of an arm 'lamb'; .*did you mean 'lam'"),
        ({"arms": [{"scheme": "mix", "lam": -1}]}, r"lam = -1 is not allowed"),
        ({"arms": []}, r"arms = \[\] is not allowed: it is a list of at least one"),
        ({"arms": ["mix"]}, r"arms\[0\] = 'mix' is not allowed: a mapping"),
        ({"arms": [None]}, r"arms\[0\] = None is not allowed: a mapping"),
        ({"arms": [{"data_dir": 3}]}, r"data_dir = 3 is not allowed: it is a path, as text"),
        ({"arms": [{"keep_every": -1}]}, r"keep_every = -1 is not allowed"),
        ({"arms": [{"model_options": 3}]}, r"model_options = 3 is not allowed: it maps options to values"),
        ({"run": {"dataset": "digits"}}, r"key 'n_retrain' is missing, in the arm and in 'run'"),
        ({"run": {"n_retrain": 1, "batch": 3}}, r"unknown key of 'run' 'batch'"),
        ({"run": [1]}, r"run = \[1\] is not allowed: a mapping"),
        ({"seeds": [-1]}, r"seed = -1 is not allowed"),
        ({"seeds": [0, 1, 0]}, r"seed = 0 is there twice"),
        ({"seeds": [True]}, r"seed = True is not allowed"),
        ({"seeds": 3}, r"seeds = 3 is not allowed: it is a list of at least one"),
        ({"seeds": None}, r"seeds = None is not allowed"),
        ({"description": 3}, r"description = 3 is not allowed: it is text"),
        ({"chapters": {"metrics": 3}}, r"chapters.metrics = 3 is not allowed: a mapping"),
        ({"resources": {"threads": 0}}, r"threads = 0 is not allowed: threads of a run, a whole number >= 1"),
        ({"resources": {"mem": 8}}, r"unknown key of 'resources' 'mem'; .*did you mean 'mem_mb'"),
        ({"device": "cuda"}, r"unknown key 'device'"),
    ],
)
def test_bad_profiles_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=rf"tiny\.yml, line \d+: .*{message}"):
        load_profile(written(tmp_path, TINY | change))


def test_a_list_in_an_arm_is_a_grid(tmp_path):
    grid = {"model": ["edm", "gaussian"], "scheme": "mix", "lam": [0.0, 0.5, 1.0]}
    profile = load_profile(written(tmp_path, with_arms(grid) | {"seeds": [0, 1]}))
    arms = [profile.runs[arm].parameters for arm in profile.arms]
    wanted = [(s, m, lam) for s in (0, 1) for m in ("edm", "gaussian") for lam in (0.0, 0.5, 1.0)]
    assert [(a["seed"], a["model"], a["lam"]) for a in arms] == wanted
    apart = [{"model": m, "scheme": "mix", "lam": lam} for _, m, lam in wanted[:6]]
    assert profile == load_profile(written(tmp_path, with_arms(*apart) | {"seeds": [0, 1]}))


def test_theta_0_is_that_of_the_arm(tmp_path):
    arms = [{"model": m, "scheme": s} for m in ("edm", "gaussian") for s in ("fully_synthetic", "mix")]
    profile = load_profile(written(tmp_path, with_arms(*arms)))
    starts = [run for run in profile.runs.values() if not run.init]
    assert [run.parameters["model"] for run in starts] == ["edm", "gaussian"]
    assert all((r.parameters["lam"], r.parameters["n_retrain"]) == (0.0, 0) for r in starts)
    for arm in profile.arms:
        start = profile.runs[profile.runs[arm].init]
        assert start.parameters["model"] == profile.runs[arm].parameters["model"]


def test_arms_that_train_theta_0_alike_share_it(tmp_path):
    """The budget of a retraining does not count for theta_0, how weights are trained does."""
    shared = load_profile(written(tmp_path, with_arms({"n_images_per_retraining": [10, 20]}, model="edm")))
    assert len(shared.runs) - len(shared.arms) == 1
    sampler = {"model_options": {"solver": "heun", "n_steps": 9}}
    by_sampler = load_profile(written(tmp_path, with_arms({}, sampler, model="edm")))
    (theta_0,) = [run for run in by_sampler.runs.values() if run.run_id not in by_sampler.arms]
    assert theta_0.run_id == next(iter(shared.runs))  # the sampler does not count either
    assert {by_sampler.runs[arm].init for arm in by_sampler.arms} == {theta_0.run_id}
    assert by_sampler.runs[by_sampler.arms[1]].config.options["solver"] == "heun"
    rates = {"model_options": [{"learning_rate": 0.1}, {"learning_rate": 0.2}]}
    assert len(load_profile(written(tmp_path, with_arms(rates, model="edm"))).runs) == 4


def test_an_arm_with_weights_of_its_own_starts_from_them(tmp_path):
    (tmp_path / "weights.pkl").write_bytes(b"weights")
    arms = [{"scheme": ["fully_synthetic", "mix"], "init": str(tmp_path / "weights.pkl")}, {"lam": 1.0}]
    profile = load_profile(written(tmp_path, with_arms(*arms, model="edm") | {"seeds": [0, 1]}))
    given = [run for run in profile.runs.values() if "init" in run.parameters]
    assert [run.init for run in given] == [None] * 4
    assert {run.config.init for run in given} == {init_identity(tmp_path / "weights.pkl")}
    assert len(profile.arms) == 6
    assert len(profile.runs) == 6 + 2  # the last arm has its theta_0, one of each seed


def test_init_of_all_arms_may_be_taken_back_by_one(tmp_path):
    (tmp_path / "weights.pkl").write_bytes(b"weights")
    arms = with_arms({"lam": 0.5}, {"lam": 0.5, "init": ""}, model="edm", init=str(tmp_path / "weights.pkl"))
    profile = load_profile(written(tmp_path, arms))
    assert [bool(profile.runs[arm].init) for arm in profile.arms] == [False, True]


def test_weights_decide_what_a_run_is_called_and_where_they_lie_does_not(tmp_path):
    names = []
    for folder, content in (("a", b"weights"), ("b", b"weights"), ("c", b"others")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "weights.pkl").write_bytes(content)
        init = str(tmp_path / folder / "weights.pkl")
        names.append(load_profile(written(tmp_path, with_arms({"lam": 0.5}, model="edm", init=init))).arms)
    assert names[0] == names[1] != names[2]


def test_weights_that_are_not_there_are_one_error_with_line_and_address(tmp_path):
    path = tmp_path / "tiny.yml"
    missing = tmp_path / "edm-cifar10-32x32-uncond-vp.pkl"
    path.write_text(f"description: x\nseeds: [0]\nrun:\n  n_retrain: 1\n  init: {missing}\narms:\n  - {{lam: 0.5}}\n")
    with pytest.raises(ConfigError) as refused:
        load_profile(path)
    assert str(refused.value) == (
        f"{path}, line 5: init = '{missing}' is no run directory and no file of weights: nothing is there; it comes "
        f"from {PUBLISHED['edm-cifar10'].weights_url}: download it to that place, or set init to where it is"
    )


PRESETS = sorted((ROOT / "profiles" / "paper").glob("*.yml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_presets_say_as_published_what_the_published_flags_are(preset):
    text, flags = yaml.safe_load(preset.read_text()), PUBLISHED[preset.stem]
    published, intended = ({**text["run"], **arm} for arm in text["arms"][::2])
    assert Retraining.of(published) == flags.retraining
    assert Path(published["init"]).name == flags.weights
    for one in (published, intended):
        assert one["n_images_per_retraining"] == 20 * flags.n_real
        assert one["n_retrain"] == 20
    meant = Retraining.of(intended)
    assert (meant.mean_rate, meant.latents, meant.next_start) == (1.0, "fresh", "ema")
    assert [one["model_options"]["precision"] for one in (published, intended)] == ["float32", "bfloat16"]
    assert meant.old_share == pytest.approx(0.001, rel=0.03)
    assert meant.keep_optimizer


@pytest.mark.parametrize("preset", PRESETS, ids=lambda p: p.stem)
def test_presets_are_planned_whole_where_the_weights_are(preset, tmp_path):
    text, flags = preset.read_text(), PUBLISHED[preset.stem]
    (tmp_path / flags.weights).write_bytes(b"weights")
    path = tmp_path / preset.name
    path.write_text(text.replace(f"data/weights/{flags.weights}", str(tmp_path / flags.weights)))
    profile = load_profile(path)
    wanted = ["fully_synthetic", 0.0, 0.01, 0.1, 0.5, 1.0] * 2
    runs = [profile.runs[arm] for arm in profile.arms]
    assert [r.parameters["lam"] if r.config.scheme == "mix" else r.config.scheme for r in runs] == wanted
    assert len(profile.runs) == len(runs)
    for run in runs:
        config: RunConfig = run.config
        budgets = {"n_images_initial": 0, "n_images_per_retraining": config.n_images_per_retraining}
        shape = (flags.resolution, flags.resolution, 3)
        assert build_model(config.model, shape, config.options, **budgets).config.network.resolution == shape[0]


def test_resources_have_one_thread_unless_they_are_given(tmp_path):
    assert load_profile(written(tmp_path, TINY)).resources == {"threads": 1}
    given = {"threads": 2, "mem_mb": 8000, "runtime": 60}
    assert load_profile(written(tmp_path, TINY | {"resources": given})).resources == given


def test_a_profile_may_choose_the_feature_space_without_changing_what_its_runs_are_called(tmp_path):
    plain = load_profile(written(tmp_path, TINY))
    beside = {"features": "inception-clean", "features_weights": "inception.pt", "data_dir": "data"}
    chosen = load_profile(written(tmp_path, TINY | {"run": TINY["run"] | beside}))
    assert list(chosen.runs) == list(plain.runs)
    assert all(beside.items() <= run.parameters.items() for run in chosen.runs.values())
    with pytest.raises(ConfigError, match=r"unknown features 'inception'; allowed: auto, .*; did you mean 'inception-"):
        load_profile(written(tmp_path, TINY | {"run": TINY["run"] | {"features": "inception"}}))


def test_a_profile_that_is_not_there_names_those_that_are():
    there = (
        "cpu, digits_ablations, digits_controls, digits_edm, digits_families, digits_filters, digits_filters_flow, "
        "digits_long, digits_otcfm, digits_rare, fashion, fashion14, fashion_cpu, paper/ddpm-cifar10, "
        "paper/edm-cifar10, paper/edm-ffhq64, paper/otcfm-cifar10, quick"
    )
    with pytest.raises(ConfigError, match=rf"no profile 'quik'; .* there are: {there}; did you mean 'quick'\?$"):
        load_profile(ROOT / "profiles" / "quik.yml")


def test_a_chapters_unknown_parameter_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no parameter 'n_chain'"):
        execute(str(ROOT / "notebooks" / "01_gaussian_warmup.ipynb"), str(tmp_path / "page.ipynb"), {"n_chain": 3})
    assert list(tmp_path.iterdir()) == []
