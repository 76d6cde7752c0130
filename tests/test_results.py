import hashlib
import json
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from iterative_retraining.errors import RunError
from iterative_retraining.runs import publishing, results
from iterative_retraining.studies import plots
from iterative_retraining.studies.report import chapters

from conftest import edit_json


def test_ledgers_become_one_table(runs):
    table = results.read_runs(runs)
    assert len(table) == 6 * 3
    assert set(table.lam.dropna()) == {0.0, 1.0}
    assert table[table.scheme == "fully_synthetic"].lam.isna().all()


def test_publishing_keeps_ledger_and_previews(runs, tmp_path):
    publishing.publish(runs[:2], tmp_path / "results")
    for run in runs[:2]:
        name = results.read_runs([run]).run_id[0]
        published = tmp_path / "results" / name
        assert (published / "ledger.jsonl").read_bytes() == (run / "ledger.jsonl").read_bytes()
        previews = results.read_previews(published)
        assert previews.shape == (3, 16, 8, 8)
        np.testing.assert_array_equal(previews, results.read_previews(run))
        strip = np.asarray(Image.open(run / "preview-0001.png"))
        np.testing.assert_array_equal(previews[1, 2], strip[:, 16:24])
    assert results.find_results(tmp_path / "results") == sorted(
        p for p in (tmp_path / "results").iterdir() if p.is_dir()
    )


def test_no_results_and_no_runs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="give run_dirs instead"):
        results.find_results(tmp_path)
    with pytest.raises(RunError, match=r"config.json is missing"):
        results.read_runs([tmp_path])
    with pytest.raises(RunError, match="no run directories"):
        results.read_runs([])


def test_runs_are_told_apart_by_data_set(runs):
    assert results.of_dataset(runs, "digits") == runs
    assert results.of_dataset(runs, "cifar10", "fashion_mnist") == []


def test_runs_that_retrain_alike_are_one_family(runs, tmp_path):
    """Scheme, lambda and seed are arms of it; other options make another, even if its label is the same."""
    assert chapters.read_families([]) == {}
    (name,) = chapters.read_families(runs)
    assert name == "gaussian"
    other = shutil.copytree(runs[0], tmp_path / "other")
    edit_json(other / "config.json", lambda config: config["identity"].update(options={"something": 1}))
    families = chapters.read_families([*runs, other])
    assert {name: set(table.path) for name, table in families.items()} == {
        "gaussian": set(map(str, runs)),
        "gaussian\n(2)": {str(other)},
    }


def test_previews_are_those_of_the_first_seed_arm_by_arm(runs):
    rows = chapters.arm_previews(results.read_runs(runs))
    arms = ["fully synthetic", "λ = 0 (real only)", "λ = 1"]
    assert [label for label, _ in rows] == [f"gaussian\n{arm}" for arm in arms]
    for (_, previews), run in zip(rows, [r for r in runs if r.name.endswith("-0")], strict=True):
        np.testing.assert_array_equal(previews, results.read_previews(run))


def test_scale_note_names_runs_and_code(runs):
    note = chapters.scale_note("cpu: three seeds", runs[:1])
    assert "`cpu: three seeds`" in note
    assert results.read_manifest(runs[0])["run_id"] in note
    assert "PyTorch" in note


def test_curves_draw_every_arm_with_its_colour(runs):
    figure = plots.quality_curves(results.read_runs(runs), results.read_floor(runs[0]))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["real vs real, n = 300", "fully synthetic", "λ = 0 (real only)", "λ = 1"]
    line = next(line for line in figure.axes[0].lines if line.get_label() == "fully synthetic")
    assert (line.get_color(), line.get_linestyle(), line.get_marker()) == (
        plots.arm_style("fully_synthetic")["color"],
        "--",
        "^",
    )
    plt.close(figure)


def test_arms_keep_distinct_colours():
    arms = [("fully_synthetic", None), ("mix", 0.0), ("mix", 0.1), ("mix", 0.5), ("mix", 1.0), ("mix", 2.0)]
    assert len({plots.arm_style(*arm)["color"] for arm in arms}) == len(arms)


def test_mosaic_places_tiles_row_by_row():
    tiles = np.arange(16, dtype=np.uint8)[:, None, None] * np.ones((16, 2, 3), dtype=np.uint8)
    picture = plots.mosaic(tiles)
    assert picture.shape == (11, 15)
    np.testing.assert_array_equal(picture[::3, ::4], np.arange(16).reshape(4, 4))
    assert (picture[2::3] == 110).all()
    assert plots.mosaic(np.zeros((16, 5, 5, 3), dtype=np.uint8)).shape == (23, 23, 3)


def test_the_crate_names_every_file_with_its_hash_and_every_attempt(runs, tmp_path):
    publishing.publish(runs[:2], tmp_path / "results")
    graph = json.loads((tmp_path / "results" / "ro-crate-metadata.json").read_text())["@graph"]
    files = [e for e in graph if e["@type"] == "File"]
    assert len(files) == 2 * 5
    for entity in files:
        content = (tmp_path / "results" / entity["@id"]).read_bytes()
        assert entity["sha256"] == hashlib.sha256(content).hexdigest()
    sets = {e["@id"] for e in graph if e["@type"] == "Dataset"} - {"./"}
    actions = [e for e in graph if e["@type"] == "CreateAction"]
    assert {a["result"]["@id"] for a in actions} == sets
    assert all("commit" in a["instrument"] and a["description"] == "complete" for a in actions)
    again = publishing.publish(runs[:2], tmp_path / "results")
    assert len(again) == 2
    assert len(json.loads((tmp_path / "results" / "ro-crate-metadata.json").read_text())["@graph"]) == len(graph)
