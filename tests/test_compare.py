"""A new run beside published ones of other seeds."""

import json
import shutil

import numpy as np
import pytest

from iterative_retraining.compare import main, placed, prediction_interval, siblings
from iterative_retraining.errors import RunError
from iterative_retraining.files import sealed


def test_the_interval_holds_one_more_draw_nineteen_times_of_twenty():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(4000, 6))
    inside = [low <= one <= high for *known, one in draws for low, high in [prediction_interval(known)]]
    assert abs(np.mean(inside) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)


@pytest.fixture
def published(runs, tmp_path):
    """Two published arms of several seeds, and a run of another seed: fid 0.1 more than theirs."""
    template = next(path for path in runs if "mix-1.0" in path.name)
    folder = tmp_path / "results"
    for seed in range(4):
        path = folder / f"run{seed}"
        shutil.copytree(template, path)
        config = json.loads((path / "config.json").read_text())
        config["identity"]["seed"] = seed
        (path / "config.json").write_text(json.dumps(sealed(config)))
        rows = [json.loads(line) for line in (path / "ledger.jsonl").read_text().splitlines()]
        for row in rows:
            row["fid"] = 1.0 + 0.01 * seed
        (path / "ledger.jsonl").write_text("".join(json.dumps(sealed(row)) + "\n" for row in rows))
    return folder


def test_a_run_is_placed_among_those_that_differ_by_the_seed_alone(published, capsys):
    run, others = published / "run3", [published / f"run{s}" for s in range(3)]
    assert siblings(run, [*others, run]) == others
    generation, values = placed(run, others)
    fid = next(one for one in values if one.metric == "fid")
    assert (generation, fid.value, fid.inside) == (2, 1.03, True)
    assert fid.low == pytest.approx(1.01 - 4.302652729911275 * 0.01 * np.sqrt(4 / 3))
    assert {"precision", "pixel_variance"} <= {one.metric for one in values}
    assert not {"generation", "seconds_fit", "n_images"} & {one.metric for one in values}
    assert main([str(run), "--published", str(published)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("run3, generation 2, 3 published seeds: ")
    assert "  FID: 1.03, inside 0." in said


def test_without_two_siblings_there_is_one_sentence(published, tmp_path):
    for seed in (1, 2):
        shutil.rmtree(published / f"run{seed}")
    with pytest.raises(RunError, match=r"run3: 1 published run\(s\) differ from it by their seed alone, and"):
        main([str(published / "run3"), "--published", str(published)])
    with pytest.raises(RunError, match="holds no published runs; set --published"):
        main([str(published / "run3"), "--published", str(tmp_path)])
    with pytest.raises(RunError, match="no run directory among"):
        main([str(tmp_path), "--published", str(published)])
