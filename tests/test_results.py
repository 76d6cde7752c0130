import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from iterative_retraining import plots, results
from iterative_retraining.experiment import open_experiment
from iterative_retraining.runs import RunError


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        for scheme, lam in (("fully_synthetic", 0.5), ("mix", 0.0), ("mix", 1.0)):
            run = folder / f"{scheme}-{lam}-{seed}"
            arguments = {"model": "gaussian", "scheme": scheme, "lam": lam, "seed": seed, "n_retrain": 2}
            for _ in open_experiment(run_dir=run, **arguments).records():
                pass
    return sorted(folder.iterdir())


def test_ledgers_become_one_table(runs):
    table = results.read_runs(runs)
    assert len(table) == 6 * 3
    assert set(table.lam.dropna()) == {0.0, 1.0}
    assert table[table.scheme == "fully_synthetic"].lam.isna().all()


def test_publishing_keeps_ledger_and_previews(runs, tmp_path):
    results.publish(runs[:2], tmp_path / "results")
    for run in runs[:2]:
        name = results.read_runs([run]).run_id[0]
        published = tmp_path / "results" / name
        assert (published / "ledger.jsonl").read_bytes() == (run / "ledger.jsonl").read_bytes()
        previews = results.read_previews(published)
        assert previews.shape == (3, 16, 8, 8)
        np.testing.assert_array_equal(previews, results.read_previews(run))
        strip = np.asarray(Image.open(run / "preview-0001.png"))
        np.testing.assert_array_equal(previews[1, 2], strip[:, 16:24])
    assert results.find_results(tmp_path / "results") == sorted((tmp_path / "results").iterdir())


def test_no_results_and_no_runs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="give run_dirs instead"):
        results.find_results(tmp_path)
    with pytest.raises(RunError, match=r"config.json is missing"):
        results.read_runs([tmp_path])
    with pytest.raises(RunError, match="no run directories"):
        results.read_runs([])


def test_arm_table_has_means_intervals_and_paired_differences(runs):
    table, floor = results.read_runs(runs), results.read_floor(runs[0])
    text = results.arm_table(table, floor)
    final = table[table.generation == 2]
    mean = final[final.lam == 1.0].fid.mean()
    assert f"| λ = 1 | {mean:.3f} ± " in text
    pairs = final.pivot(index="seed", columns="lam", values="fid")
    assert f"| {(pairs[1.0] - pairs[0.0]).mean():.3f} ± " in text
    assert "| control |" in text
    assert "real vs real, n = 898" in text
    one = results.arm_table(table[table.seed == 0], floor)
    assert "±" not in one
    assert "one seed, so no interval" in one


def test_summary_quotes_the_arms_and_says_what_was_not_run(runs):
    table = results.read_runs(runs)
    final = table[table.generation == 2]
    summary = results.arm_summary(table)
    assert summary["synthetic-last"] == f"{final[final.scheme == 'fully_synthetic'].fid.mean():.2f}"
    assert summary["precision-high"] == f"{final[final.lam == 1.0].precision.mean():.2f}"
    assert (summary["lam-low"], summary["lam-high"], summary["seeds"]) == ("0", "1", "2")
    assert results.arm_summary(table[table.scheme == "mix"])["synthetic-last"] == "(not run)"
    assert results.arm_summary(table[table.scheme != "mix"])["mix-worst"] == "(not run)"


def test_a_single_generation_has_no_trend(runs):
    table = results.read_runs(runs)
    rows = results.arm_table(table[table.generation == 0], results.read_floor(runs[0])).splitlines()
    assert [row.split("|")[4].strip() for row in rows[2:5]] == ["", "", ""]


def test_interval_is_students():
    values = np.array([1.0, 2.0, 4.0])
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)  # t quantile at 0.975 with 2 degrees of freedom
    assert results._interval(values) == f"{values.mean():.3f} ± {half:.3f}"


def test_scale_note_names_runs_and_code(runs):
    note = results.scale_note("cpu: three seeds", runs[:1])
    assert "`cpu: three seeds`" in note
    assert results.read_manifest(runs[0])["run_id"] in note
    assert "PyTorch" in note


def test_curves_draw_every_arm_with_its_colour(runs):
    figure = plots.quality_curves(results.read_runs(runs), results.read_floor(runs[0]))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["real vs real", "fully synthetic", "λ = 0 (real only)", "λ = 1"]
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
