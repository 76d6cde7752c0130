"""Floors at the arms' own numbers, groups of runs, and the table of definitions of collapse."""

import numpy as np
import pandas as pd
import pytest

from iterative_retraining.studies.report.ages import ages_table, effects
from iterative_retraining.studies.report.collapse import collapse_table, slopes
from iterative_retraining.studies.report.controls import gains_of_runs
from iterative_retraining.studies.report.floors import band
from iterative_retraining.studies.report.groups import TELL, main_groups
from iterative_retraining.studies.theory.ages import aged

FLOOR = {
    "n_images": 750,
    "fid": [0.4, 0.6],
    "precision": [0.8, 0.9],
    "rank": 3,
    "training": {"held_out_fid": 1.5},
}


def test_a_floor_of_halves_is_brought_to_the_arms_n():
    assert band(FLOOR, "fid", 1500) == pytest.approx((0.2025, 0.25, 0.2975))
    assert band(FLOOR, "precision", 1500) == pytest.approx((0.8025, 0.85, 0.8975))
    assert band(FLOOR, "held_out_fid", 1500) == (1.5, 1.5, 1.5)
    assert band(FLOOR, "held_out_recall", 1500) is None
    assert band(FLOOR, "rank", 1500) is None
    assert band(FLOOR | {"authenticity": [0.6, 0.7]}, "authenticity", 1500) is None
    assert band({"n_images": 9}, "fid", 1500) is None


def test_fid_between_two_sets_of_one_distribution_goes_as_the_sum_of_the_inverse_numbers():
    from iterative_retraining.metrics import compare

    rng, dim = np.random.default_rng(0), 8

    def constant(n, m):
        draws = (compare(rng.normal(size=(n, dim)), real=rng.normal(size=(m, dim)), names=["fid"]) for _ in range(60))
        return np.mean([found["fid"] for found in draws]) / (1 / n + 1 / m)

    constants = [constant(400, 400), constant(800, 800), constant(200, 1000)]
    assert np.ptp(constants) < 0.15 * np.mean(constants)


def runs(slope_of, model="edm", solver="dpmpp_3m", budget=30, seeds=3):
    rows, rng = [], np.random.default_rng(1)
    for (scheme, lam), slope in slope_of.items():
        for seed in range(seeds):
            for t in range(11):
                own = {"scheme": scheme, "lam": lam, "seed": seed, "generation": t, "run_id": f"{scheme}{lam}{seed}"}
                values = {
                    "fid": 1 + slope * t + 0.01 * seed * t + 1e-3 * rng.normal(),
                    "precision": 0.8 + 0.01 * slope * t + 1e-5 * rng.normal(),
                    "n_real": 1500,
                }
                told = {"group": f"{model} {solver} {budget}", "apart_from_sampler": f"{model} {budget}"}
                rows.append(own | values | told | dict(zip(TELL, (model, solver, 30, 100, budget), strict=True)))
    return pd.DataFrame(rows)


FS, CONTROL, HALF = ("fully_synthetic", np.nan), ("mix", 0.0), ("mix", 0.5)


def test_main_groups_have_several_arms():
    edm, flow = runs({FS: 1.0, CONTROL: 0.0}), runs({FS: 1.0, CONTROL: 0.0}, model="flow_matching")
    heun, half = runs({FS: 0.5}, solver="heun"), runs({CONTROL: 0.1}, budget=15)
    groups = main_groups(pd.concat([flow, half, edm, heun], ignore_index=True))
    assert list(groups) == ["EDM", "flow matching"]
    assert (groups["EDM"].solver == "dpmpp_3m").all()
    both = main_groups(pd.concat([edm, runs({FS: 0.5, CONTROL: 0.0}, solver="heun")], ignore_index=True))
    assert list(both) == ["EDM, dpmpp_3m 30", "EDM, heun 30"]
    budgets = main_groups(pd.concat([edm, runs({FS: 0.5, CONTROL: 0.0}, budget=7)], ignore_index=True))
    assert list(budgets) == ["EDM, dpmpp_3m 30, 100 + 30 images", "EDM, dpmpp_3m 30, 100 + 7 images"]


def test_slopes_are_of_the_second_half_by_seed():
    table = runs({FS: 0.3})
    table.loc[table.generation < 5, "fid"] = 100.0
    np.testing.assert_allclose(slopes(table, "fid"), [0.3, 0.31, 0.32], atol=1e-3)


def test_collapse_is_a_slope_beyond_that_of_the_control():
    lines = collapse_table({"EDM": runs({FS: 0.3, CONTROL: 0.1, HALF: 0.1})}).splitlines()
    assert lines[0] == "| arm | FID rises | precision falls |"
    rows = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines[2:]}
    assert rows["EDM, fully synthetic"][0].strip().startswith("**yes** (+0.2 ± 0.00")  # less that of the same seeds
    assert rows["EDM, λ = 0.5"][0].strip().startswith("no (")
    control = next(row for name, row in rows.items() if name.startswith("EDM, λ = 0 ("))
    assert control[0].strip().startswith("**yes** (+0.11 ± ")
    assert all(row[1].strip().startswith("no (+0.00") for row in (control, rows["EDM, fully synthetic"]))
    assert "| ? |" in collapse_table({"EDM": runs({FS: 0.3, CONTROL: 0.1}, seeds=1)})


def test_effects_of_ages_are_those_of_the_rule_and_say_what_is_missing():
    table = runs({FS: 0.4, CONTROL: 0.0, HALF: 0.0, ("mix", 2.0): 0.0})
    for lam in (0.5, 2.0):  # 1.7 times what the ages say, from the fully synthetic gaps 0.4 t
        table.loc[table.lam == lam, "fid"] += 1.7 * aged(lam, 0.4 * np.arange(11))
    found = effects(table, ["fid"]).set_index("lam")
    np.testing.assert_allclose(found.constant, 1.7, atol=0.01)
    np.testing.assert_allclose(found.predicted, found.seen, atol=0.02)
    assert (found.half < 0.01).all()
    assert "| FID | 0.5 | +0." in ages_table(table, ["fid"])
    assert ages_table(runs({FS: 0.4, CONTROL: 0.0})).startswith("*Not run yet: it takes")


def test_runs_whose_sampler_changes_variance_are_withdrawn(tmp_path):
    from iterative_retraining.config import RunConfig
    from iterative_retraining.files import write_json

    for name, options in {"good": {}, "bad": {"solver": "heun", "n_steps": 10, "rho": 7.0}}.items():
        config = RunConfig(dataset="digits", model="edm", options=options)
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "config.json", {"run_id": config.run_id, "identity": config.identity()})
    good, bad = gains_of_runs([tmp_path / "good", tmp_path / "bad"]).splitlines()
    assert good.startswith("- EDM, `dpmpp_3m` in 30 steps: ")
    assert good.endswith("they stand.")
    assert bad.endswith("what these runs show is **withdrawn as evidence**.")
    assert gains_of_runs([]) == ""
