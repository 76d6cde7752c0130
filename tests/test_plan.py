"""The plan of a profile, against numbers worked out by hand from ledgers made up here."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from iterative_retraining.datasets import load_dataset
from iterative_retraining.errors import ConfigError
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.runs.reading import read_config
from iterative_retraining.training_set import TrainingSet

from conftest import ROOT, exit_of
from plan import Work, chains, main, makespan, work_left
from profiles import load_profile
from speeds import Kind, measured_speeds

N = 1500  # digits
DRAWN = N + 16
EDM = {
    "description": "tiny",
    "seeds": [0, 1],
    "run": {"n_images_initial": 1000, "n_images_per_retraining": 100, "n_retrain": 4},
    "arms": [{"scheme": "fully_synthetic"}, {"scheme": "mix", "lam": 2.0}],
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project with the profile `tiny`, as the current directory."""
    (tmp_path / "profiles").mkdir()
    monkeypatch.chdir(tmp_path)
    save(EDM)
    return tmp_path


def save(profile: dict) -> Path:
    path = Path("profiles/tiny.yml")
    path.write_text(yaml.safe_dump(profile, sort_keys=False))
    return path


def manifest(identity: dict, attempts: list[tuple[int, dict]]) -> str:
    """Of attempts, each by its first generation and its hardware."""
    here = {"started": "", "git": {"commit": None, "dirty": None}, "python": "", "packages": {}}
    made = [here | {"first_generation": first, "hardware": hardware} for first, hardware in attempts]
    return json.dumps(
        {"run_id": "", "config": identity | {"init": ""}, "n_retrain": 4, "real_sha256": "0" * 64, "attempts": made}
    )


def write_run(
    path: Path,
    *,
    seconds: tuple[float, float, float] = (2.0, 10.0, 1.0),
    n_images: int = 100,
    generations: int = 3,
    device: str = "Some GPU",
    model: str = "edm",
    **options: object,
) -> None:
    """The run directory of a mix with lam = 0.5, every generation as slow as the next."""
    path.mkdir(parents=True)
    resolved = json.loads(json.dumps(resolve_options(model, "digits", options)))
    identity = {"dataset": "digits", "model": model, "scheme": "mix", "lam": 0.5, "seed": 0, "options": resolved}
    fit, sample, metrics = seconds
    row = {
        "n_images": n_images,
        "n_real": N,
        "n_synthetic": 0,
        "checkpoint_sha256": "0" * 64,
        "samples_sha256": "0" * 64,
    }
    row |= {"seconds_fit": fit, "seconds_sample": sample, "seconds_metrics": metrics}
    write = {
        "config.json": json.dumps({"run_id": path.name, "identity": identity | {"init": ""}}),
        "manifest.json": manifest(identity, [(0, {"device": "cuda", "name": device, "threads": 1})]),
        "floor.json": json.dumps({"features": "digits-classifier-64", "n_images": 898}),
        "ledger.jsonl": "".join(json.dumps({"generation": t} | row) + "\n" for t in range(generations)),
    }
    for name, text in write.items():
        (path / name).write_text(text)


def cells(report: str, start: str) -> list[str]:
    """The cells of the table row that starts with ``start``."""
    line = next(line for line in report.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def state_bytes(model: str) -> int:
    options = {"n_images_initial": 0, "n_images_per_retraining": 0}
    built = build_model(model, (8, 8, 1), resolve_options(model, "digits", {}), **options)
    state = built.fit(TrainingSet.of(load_dataset("digits")[0][:100]), seed=0).state_dict()
    return sum(array.nbytes for array in state.values())


def test_a_plan_counts_what_is_left_by_hand(project):
    write_run(project / "results" / "a", seconds=(2.0, 10.0, 1.0))  # 50 images / s
    write_run(project / "runs" / "x" / "b", seconds=(1.0, 5.0, 2.0))  # 100
    write_run(project / "runs" / "y" / "c", seconds=(0.5, 20.0, 3.0))  # 200
    report = main(["tiny", "--gpus", "1", "2"])
    images, samples, metrics = 100, DRAWN / 10, 2.0  # the medians
    assert "0 of 6 runs are complete" in report
    assert "9 generations on Some GPU: a, b, c" in report
    assert cells(report, "edm on digits, features digits")[:3] == ["100", f"{DRAWN / 10:.0f}", "2"]
    start = 1000 / images + DRAWN / samples + metrics
    short = 400 / images + 5 * DRAWN / samples + 5 * metrics
    long = 400 / images + 5 * (2 * N + 16) / samples + 5 * metrics
    found = cells(report, "edm on digits: theta_0")
    assert found[:5] == ["2", "2", "2 000", f"{2 * DRAWN:,}".replace(",", " "), f"{2 * start / 3600:.3g}"]
    disk = state_bytes("edm") + 64 * DRAWN
    assert float(found[5]) == pytest.approx(2 * disk / 1e6, rel=0.005)
    found = cells(report, "edm on digits: arms")
    drawn = 10 * DRAWN + 10 * (2 * N + 16)
    assert found[:5] == ["4", "20", "1 600", f"{drawn:,}".replace(",", " "), f"{2 * (short + long) / 3600:.3g}"]
    disk = 8 * state_bytes("edm") + 5 * 2 * 64 * (N + 2 * N) + 4 * 64 * 5 * 16
    assert float(found[5]) == pytest.approx(disk / 1e6, rel=0.005)
    assert cells(report, "all")[0] == "6"
    assert cells(report, "1") == [f"{2 * (start + short + long) / 86400:.3g}"]
    assert cells(report, "2") == [f"{(start + short + long) / 86400:.3g}"]
    chain = f"{(start + long) / 3600:.3g} hours for digits-edm-mix-lam0-seed"
    assert f"The longest chain cannot be split: {chain}" in report


def test_complete_runs_are_left_out_and_begun_ones_count_what_is_left(project):
    write_run(project / "results" / "a")
    profile = load_profile("profiles/tiny.yml")
    start, synthetic, mix = list(profile.runs)[:3]
    write_run(project / "runs" / "tiny" / start, generations=1)
    write_run(project / "runs" / "tiny" / synthetic, generations=5)
    write_run(project / "runs" / "tiny" / mix, generations=2)
    left = work_left(profile, project / "runs" / "tiny")
    assert [work.run_id for work in left] == list(profile.runs)[2:]
    assert (left[0].generations, left[0].images) == (3, 300)
    assert (left[-1].generations, left[-1].images) == (5, 400)
    assert "2 of 6 runs are complete" in main(["tiny"])


def test_a_marker_hides_neither_that_a_run_was_extended_nor_that_it_was_deleted(project):
    profile = load_profile("profiles/tiny.yml")
    extended, deleted = list(profile.runs)[1:3]
    write_run(project / "runs" / "tiny" / extended, generations=3)
    (project / "runs" / "tiny" / "complete").mkdir()
    for run in (extended, deleted):
        (project / "runs" / "tiny" / "complete" / run).touch()
    assert {extended, deleted} <= {work.run_id for work in work_left(profile, project / "runs" / "tiny")}


def test_a_complete_profile_needs_no_throughput(project):
    for run_id, run in load_profile("profiles/tiny.yml").runs.items():
        write_run(project / "runs" / "tiny" / run_id, generations=run.parameters["n_retrain"] + 1)
    assert main(["tiny"]).endswith("6 of 6 runs are complete and left out. Nothing is left to do.")


def test_a_gaussian_sees_every_datum_once(project):
    path = save(EDM | {"run": {"model": "gaussian", "n_retrain": 2}})
    start, synthetic, mix = work_left(load_profile(path), project / "runs")[:3]
    assert (start.images, synthetic.images, mix.images) == (N, 2 * N, 2 * 3 * N)
    assert start.disk == 8 * (64 + 64 * 64) + 64 * DRAWN


def test_a_run_from_given_weights_is_an_arm_whose_generation_0_costs_no_training(project):
    Path("weights.pkl").write_bytes(b"weights")
    path = save(EDM | {"seeds": [0], "run": EDM["run"] | {"init": "weights.pkl"}})
    left = work_left(load_profile(path), project)
    assert [work.images for work in left] == [400, 400]
    assert [work.generations for work in left] == [5, 5]
    assert chains(left, dict.fromkeys((work.run_id for work in left), 1.0)) == [[work.run_id] for work in left]
    report = main(["tiny", "--images-per-second", "50", "--samples-per-second", "10"])
    assert cells(report, "edm on digits: arms")[0] == "2"
    assert "theta_0" not in report


def test_keep_every_keeps_more_weights(project):
    path = save(EDM | {"run": EDM["run"] | {"n_retrain": 7}})
    few = work_left(load_profile(path), project)[1].disk
    path = save(EDM | {"run": EDM["run"] | {"n_retrain": 7, "keep_every": 3}})
    assert work_left(load_profile(path), project)[1].disk - few == 2 * state_bytes("edm")  # those of 3 and 6


def test_what_no_ledger_measured_is_one_error_with_the_way_out(project):
    options = {"model": ["edm", "ddpm"], "model_options": [{}, {"channels": 8}]}
    save(EDM | {"arms": [options]})
    write_run(project / "results" / "a", learning_rate=0.5)
    with pytest.raises(ConfigError) as refused:
        main(["tiny", "--results", "results"])
    assert str(refused.value) == (
        "no ledger in results measured: edm on digits with channels = 8; ddpm on digits; ddpm on digits with "
        "channels = 8. Give --images-per-second and --samples-per-second (and --metrics-seconds), a card of "
        "the table by --device, such as a100, or run a short profile of it first"
    )
    report = main(["tiny"])  # asked for no folder: the work is planned all the same, without times
    assert f"Times are not known: {refused.value}." in report
    assert cells(report, "all")[4] == "–"


def test_the_metrics_count_in_their_own_feature_space(project):
    write_run(project / "results" / "a")
    save(EDM | {"run": EDM["run"] | {"features": "dinov2", "features_weights": "w"}})
    with pytest.raises(ConfigError, match="measured: the metrics with features dinov2 on digits"):
        main(["tiny", "--results", "results"])
    assert cells(main(["tiny", "--metrics-seconds", "7"]), "edm on digits, features dinov2")[2] == "7"


def test_given_throughputs_need_no_ledger(project):
    report = main(["tiny", "--images-per-second", "50", "--samples-per-second", "10"])
    assert cells(report, "edm on digits: theta_0")[4] == f"{2 * (1000 / 50 + DRAWN / 10) / 3600:.3g}"
    assert "given; metrics not counted, --metrics-seconds adds them" in report


def test_a_median_over_several_devices_is_refused_until_one_is_chosen(project):
    write_run(project / "results" / "a", device="Some GPU")
    write_run(project / "results" / "b", device="Another", seconds=(1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match=r"several devices \(Another; Some GPU\).*choose one by --device"):
        main(["tiny"])
    assert cells(main(["tiny", "--device", "Another"]), "edm on digits, features digits")[0] == "100"
    with pytest.raises(ConfigError, match=r"on a device with 'Z9' in its name.*Cards of the table: t4, v100"):
        main(["tiny", "--device", "Z9"])


def test_a_run_that_moved_counts_for_each_device(tmp_path):
    write_run(tmp_path / "a", generations=4)
    attempts = [(t, {"device": "cpu", "name": name, "threads": 2}) for t, name in ((0, "slow"), (3, "fast"))]
    (tmp_path / "a" / "manifest.json").write_text(manifest(read_config(tmp_path / "a")["identity"], attempts))
    kind = Kind.of("digits", "edm", resolve_options("edm", "digits", {}), "auto")
    sources = [measured_speeds([kind], [tmp_path], device)[kind].source for device in ("slow", "fast")]
    words = "generations on"
    assert sources == [f"measured: 3 {words} slow, 2 thread(s): a", f"measured: 1 {words} fast, 2 thread(s): a"]


def test_n_real_counts(project):
    path = save(EDM | {"run": EDM["run"] | {"n_real": 200}})
    start, synthetic, mix = work_left(load_profile(path), project)[:3]
    assert (start.samples, synthetic.samples, mix.samples) == (216, 5 * 216, 5 * (2 * 200 + 16))


def jobs(*lengths: tuple[str, str | None, float]) -> tuple[list[Work], dict[str, float]]:
    kind = Kind.of("digits", "gaussian", {}, "auto")
    return [Work(name, init, kind, 1, 1, 1, 1) for name, init, _ in lengths], {name: s for name, _, s in lengths}


def test_a_schedule_by_hand():
    left, seconds = jobs(
        ("a", None, 2), ("a1", "a", 3), ("a2", "a", 5), ("b", None, 1), ("b1", "b", 4), ("c1", "gone", 1)
    )
    assert chains(left, seconds) == [["a", "a2"], ["b", "b1"], ["c1"]]
    assert makespan(left, seconds, 1) == 16
    assert makespan(left, seconds, 2) == 8  # a, a2, c1 on one, b, b1, a1 on the other
    assert makespan(left, seconds, 8) == 7  # the longest chain


def test_a_schedule_is_never_shorter_than_its_bounds():
    rng = np.random.default_rng(0)
    for _ in range(50):
        names = [(f"s{i}", None, rng.uniform(1, 9)) for i in range(3)]
        names += [(f"{s}-{j}", s, rng.uniform(1, 9)) for s, *_ in names for j in range(4)]
        left, seconds = jobs(*names)
        total, longest = sum(seconds.values()), max(sum(map(seconds.get, c)) for c in chains(left, seconds))
        for k in (1, 2, 4, 8):
            bound = max(total / k, longest)
            assert bound - 1e-9 <= makespan(left, seconds, k) <= total / k + longest + 1e-9


def test_the_committed_profile_is_planned(monkeypatch):
    monkeypatch.chdir(ROOT)
    report = main(["cpu"])
    for model in ("edm", "flow_matching"):
        assert cells(report, f"{model} on digits: arms")[0] == "15"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "--results", "results"], "error: no ledger in results measured: edm on digits. Give --images"),
        (["tinny"], "error: there is no profile 'tinny'; in profiles there are: tiny"),
        (["tiny", "--gpus", "0"], "argument --gpus: invalid int > 0 value: '0'"),
        (["tiny", "--images-per-second", "3"], "--images-per-second and --samples-per-second belong together"),
        (["tiny", "--images-per-second", "nan"], "invalid float > 0 value: 'nan'"),
    ],
)
def test_the_command_line_says_what_is_wrong_without_a_traceback(project, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("COLUMNS", "200")
    error = exit_of(ROOT / "workflow" / "plan.py", *arguments)
    assert error == 2 or isinstance(error, str)
    assert message in f"{capsys.readouterr().err}{error}"
