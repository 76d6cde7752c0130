import json
import shutil
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest
import torch

from iterative_retraining.config import RunConfig
from iterative_retraining.errors import ConfigError, RunError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.files import sealed
from iterative_retraining.metrics import ImageMetrics
from iterative_retraining.models.gaussian import Gaussian
from iterative_retraining.reproduce import Comparison, main, read_published_run
from iterative_retraining.runs.directory import write_json
from iterative_retraining.runs.provenance import add_reproduced, read_manifest, sources_here
from iterative_retraining.runs.publishing import publish
from iterative_retraining.runs.source import source_sha256
from iterative_retraining.status import run_status, stale_note

from conftest import TINY_EDM


@pytest.fixture(scope="module", autouse=True)
def _short_floors() -> Iterator[None]:
    """Floors of one halving: no test here is about them, and they take the most time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageMetrics, "floor", partialmethod(ImageMetrics.floor, n_splits=1))
        yield


def finish(path: Path, **parameters) -> Path:
    experiment = open_experiment(run_dir=path, **parameters)
    for _ in experiment.records():
        pass
    experiment.run.close()
    return path


def copies(published: list[Path], results: Path) -> list[Path]:
    shutil.copytree(published[0].parent, results)
    return [results / run.name for run in published]


@pytest.fixture(scope="module")
def a_gaussian(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("gaussian")
    return publish([finish(folder / "run", model="gaussian", n_real=300, n_retrain=2)], folder / "results")


@pytest.fixture
def gaussian(a_gaussian, tmp_path) -> Path:
    """A published run of the Gaussian that trained its theta_0 itself."""
    return copies(a_gaussian, tmp_path / "gaussian")[0]


def published_arms(folder: Path, start: dict, *arms: dict) -> list[Path]:
    """Runs that start from the theta_0 that ``start`` trains, which is not published."""
    theta_0 = finish(folder / "theta_0", **start, scheme="mix", lam=0.0, n_retrain=0)
    runs = [finish(folder / str(k), **start, **arm, init=str(theta_0)) for k, arm in enumerate(arms)]
    shutil.rmtree(theta_0)
    return publish(runs, folder / "results")


def change_manifest(run: Path, **changes) -> bytes:
    write_json(run / "manifest.json", read_manifest(run) | changes)
    return (run / "manifest.json").read_bytes()


def of_other_code(run: Path, source: dict) -> None:
    """As if earlier code had made the run: ``source`` is what its attempts recorded."""
    manifest = read_manifest(run)
    del manifest["sources"], manifest["measured"]
    write_json(run / "manifest.json", manifest)
    attempts = [{k: v for k, v in a.items() if k != "source_sha256"} | source for a in read_manifest(run)["attempts"]]
    change_manifest(run, attempts=attempts)


def change_ledger(run: Path, generation: int, **changes) -> dict:
    lines = (run / "ledger.jsonl").read_text().splitlines()
    row = json.loads(lines[generation])
    lines[generation] = json.dumps(sealed(row | changes))
    (run / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    return row


@pytest.mark.parametrize("source", [{"source_sha256": "0" * 64}, {}])
def test_what_comes_out_the_same_is_reproduced(gaussian, capsys, source):
    of_other_code(gaussian, source)
    assert run_status(gaussian).code == "earlier code"
    assert main([str(gaussian)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{gaussian.name}, generation {t}: equal" for t in (0, 1)]
    (entry,) = read_manifest(gaussian)["reproduced"]
    here = source_sha256(sources_here(read_manifest(gaussian)))
    assert (entry["generations"], entry["source_sha256"]) == (1, here)
    assert entry["hardware"] == read_manifest(gaussian)["attempts"][0]["hardware"]
    assert {"when", "git", "packages"} <= set(entry)
    assert run_status(gaussian).code == "reproduced to 1"
    note = stale_note([gaussian])
    assert "stale" not in note
    assert "1 of these 1 runs are from before" in note
    assert note.endswith("up to generation 1.")


def test_what_is_only_measured_since_is_no_code_of_the_published_run(gaussian):
    measured = read_manifest(gaussian)["measured"]
    of_other_code(gaussian, {"source_sha256": "0" * 64})
    change_manifest(gaussian, measured=measured | {"metrics": measured["metrics"][:-2]})
    assert main([str(gaussian)]) == 0
    assert read_manifest(gaussian)["measured"]["metrics"] == measured["metrics"][:-2]
    assert run_status(gaussian).code == "reproduced to 1"


def test_a_run_made_again_by_code_that_has_changed_since_proves_nothing(gaussian, tmp_path):
    again = finish(tmp_path / "again", model="gaussian", n_real=300, n_retrain=2)
    attempts = [attempt | {"source_sha256": "0" * 64} for attempt in read_manifest(again)["attempts"]]
    change_manifest(again, attempts=attempts)
    before = (gaussian / "manifest.json").read_bytes()
    with pytest.raises(RunError, match=r"the code has changed since .*again was begun; remove it"):
        add_reproduced(gaussian, again, 2)
    assert (gaussian / "manifest.json").read_bytes() == before


def test_a_run_reproduced_by_code_that_has_changed_since_is_stale_again(gaussian):
    before = read_manifest(gaussian)
    (pairs,) = before["sources"].values()
    of_other_code(gaussian, {"source_sha256": "0" * 64})
    reproduced = [{"generations": 2, "source_sha256": "1" * 64}]
    change_manifest(
        gaussian, measured=before["measured"], reproduced=reproduced, sources={"0" * 64: [*pairs, ["lost", "1"]]}
    )
    assert run_status(gaussian).code == "stale: 1 definition changed (lost (gone))"


def test_the_crate_holds_the_hash_of_the_new_manifest(gaussian):
    crate = gaussian.parent / "ro-crate-metadata.json"
    before = crate.read_text()
    assert main([str(gaussian)]) == 0
    assert crate.read_text() != before
    sizes = {e["@id"]: e.get("contentSize") for e in json.loads(crate.read_text())["@graph"]}
    assert sizes[f"{gaussian.name}/manifest.json"] == str((gaussian / "manifest.json").stat().st_size)


def test_other_weights_are_named_and_leave_the_manifest_alone(gaussian, capsys):
    row = change_ledger(gaussian, 1, checkpoint_sha256="0" * 64, fid=7.0)
    before = (gaussian / "manifest.json").read_bytes()
    assert main([str(gaussian), "--generations", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        f"{gaussian.name}, generation 0: equal",
        f"{gaussian.name}, generation 1: weights differ (checkpoint_sha256: published {'0' * 64}, "
        f"here {row['checkpoint_sha256']}; keys: 2)",
    ]
    assert lines[2].startswith("published by commit ")
    assert lines[2].endswith(f", {torch.backends.cpu.get_cpu_capability()}")
    assert lines[3].startswith("here by commit ")
    assert len(lines) == 4  # with other weights, no later generation says anything
    assert (gaussian / "manifest.json").read_bytes() == before


def test_other_metrics_of_equal_weights_are_an_outcome_of_their_own(gaussian, capsys):
    row = change_ledger(gaussian, 0, precision=0.25)
    before = (gaussian / "manifest.json").read_bytes()
    assert main([str(gaussian)]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    by = abs(row["precision"] - 0.25)
    text = f"differ by up to {by:.3g} (precision: published 0.25, here {row['precision']}; keys: 1)"
    assert first == f"{gaussian.name}, generation 0: weights equal, metrics {text}"
    assert second.endswith("generation 1: equal")
    assert (gaussian / "manifest.json").read_bytes() == before


def test_comparing_leaves_out_wall_times_and_what_is_new():
    hashes = {"checkpoint_sha256": "a", "samples_sha256": "b"}
    published = {"generation": 3, "fid": 1.0, "kid": 2.0, "seconds_fit": 5.0} | hashes
    assert not Comparison.of(published, published | {"seconds_fit": 6.0, "fld": 1.0}).differing
    gone = Comparison.of(published, {k: v for k, v in published.items() if k != "kid"} | {"fid": 1.5})
    assert str(gone) == (
        "generation 3: weights equal, metrics differ by up to inf (fid: published 1.0, here 1.5; keys: 2)"
    )


def test_theta_0_is_trained_once_for_all_its_arms(tmp_path, monkeypatch):
    both = [{"scheme": "mix", "lam": lam, "n_retrain": 1} for lam in (0.5, 1.0)]
    arms = published_arms(tmp_path, {"model": "gaussian", "n_real": 300}, *both)
    fits, fit = [], Gaussian.fit

    def counted(self, data, *, seed, progress=None):
        fits.append(seed)
        return fit(self, data, seed=seed, progress=progress)

    monkeypatch.setattr(Gaussian, "fit", counted)
    command = [*map(str, arms), "--keep", str(tmp_path / "kept")]
    assert main(command) == 0
    assert len(fits) == 1 + len(arms)
    assert main(command) == 0
    assert len(fits) == 1 + len(arms)  # what is kept is compared, not run again
    assert [len(read_manifest(arm)["reproduced"]) for arm in arms] == [2, 2]


def test_the_budget_of_theta_0_comes_from_the_manifest_or_is_asked_for(tmp_path):
    budgets = {"n_images_initial": 64, "n_images_per_retraining": 32, "model_options": TINY_EDM}
    (arm,) = published_arms(tmp_path, budgets, {"scheme": "fully_synthetic", "n_retrain": 0})
    assert read_published_run(arm, 0).initial["n_images_initial"] == 64
    before = change_manifest(arm, initial_identity=None)
    message = r"starts from digits-edm-mix-lam0-seed0-\w{10}, which n_images_initial = {} does not make .*; set --n-im"
    for given, budget in ([], "180000"), (["--n-images-initial", "65"], "65"):
        with pytest.raises(ConfigError, match=message.replace("{}", budget)):
            main([str(arm), "--generations", "0", *given])
    assert (arm / "manifest.json").read_bytes() == before
    assert main([str(arm), "--n-images-initial", "64", "--generations", "0"]) == 0
    assert [entry["generations"] for entry in read_manifest(arm)["reproduced"]] == [0]


def test_what_cannot_be_run_again_is_refused_before_anything_runs(gaussian, monkeypatch):
    monkeypatch.setattr("iterative_retraining.reproduce.reproduce", None)
    for k, error in (
        ("3", "holds 3 complete generations, and generations = 3 compares 4"),
        ("-1", "generations = -1 is"),
    ):
        with pytest.raises((RunError, ConfigError), match=error):
            main([str(gaussian), "--generations", k])
    identity = json.loads((gaussian / "config.json").read_text())["identity"]
    write_json(gaussian / "config.json", {"run_id": "digits-gaussian-0000000000", "identity": identity})
    with pytest.raises(ConfigError, match="the code here makes another run of this configuration, digits-gaussian-mix"):
        main([str(gaussian)])
    change_init(gaussian, f"edm.pkl@sha256:{'0' * 64}")
    with pytest.raises(ConfigError, match=r"starts from the file of weights edm\.pkl@sha256:0+, which cannot"):
        main([str(gaussian)])
    change_init(gaussian, "one@0")
    change_manifest(gaussian, initial_identity=identity | {"init": "another@0"})
    with pytest.raises(ConfigError, match="starts from one, and that from another@0; so far back nothing is run"):
        main([str(gaussian)])


def change_init(run: Path, init: str) -> None:
    identity = json.loads((run / "config.json").read_text())["identity"] | {"init": init}
    given = {key: value for key, value in identity.items() if value is not None}
    write_json(run / "config.json", {"run_id": RunConfig(**given).run_id, "identity": identity})


def test_other_real_images_and_another_feature_space_are_refused(gaussian):
    floor = json.loads((gaussian / "floor.json").read_text())
    change_manifest(gaussian, real_sha256="0" * 64)
    with pytest.raises(RunError, match=r"its real images \(SHA-256 0+\) are not those here"):
        main([str(gaussian)])
    write_json(gaussian / "floor.json", sealed(floor | {"features": "dinov2"}))
    with pytest.raises(RunError, match="measures its generations in the feature space 'dinov2'"):
        main([str(gaussian)])


def test_as_many_threads_as_published(gaussian):
    attempts = read_manifest(gaussian)["attempts"]
    attempts[0]["hardware"]["threads"] = 2
    change_manifest(gaussian, attempts=attempts)
    try:
        main([str(gaussian), "--generations", "0"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_what_is_no_run_directory_is_passed_over_in_one_line(gaussian, tmp_path, capsys):
    """As results/* hands it over: pictures and the crate lie there too."""
    others = [tmp_path / "quality.png", tmp_path / "ro-crate-metadata.json"]
    for other in others:
        other.write_text("x")
    assert main([*map(str, others), str(gaussian), "--generations", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"passed over, no run directories: {others[0]}, {others[1]}"
    with pytest.raises(RunError, match=r"no run directory among .*quality\.png: none has a config.json"):
        main([str(others[0])])
