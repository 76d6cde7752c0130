import numpy as np
import pandas as pd
from scipy import stats

from iterative_retraining.runs import results
from iterative_retraining.studies.report import comparisons


def test_arm_table_has_means_and_intervals(runs):
    table, floor = results.read_runs(runs), results.read_floor(runs[0])
    text = comparisons.arm_table(table, floor)
    final = table[table.generation == 2]
    mean = final[final.lam == 1.0].fid.mean()
    row = next(line for line in text.splitlines() if line.startswith("| λ = 1 |"))
    assert row.split("|")[3].strip().startswith(f"{mean:.3f} ± ")
    assert f"| real vs real, n = 300 | | {np.mean(floor['fid']) / 2:.3f} (" in text  # halves have 150
    one = comparisons.arm_table(table[table.seed == 0], floor)
    assert "±" not in one
    assert "one seed, so no interval" in one


def test_summary_quotes_the_arms_and_says_what_was_not_run(runs):
    table, floor = results.read_runs(runs), results.read_floor(runs[0])
    final = table[table.generation == 2]
    summary = comparisons.arm_summary(table, floor)
    assert summary["synthetic-last"] == f"{final[final.scheme == 'fully_synthetic'].fid.mean():.2f}"
    assert summary["precision-high"] == f"{final[final.lam == 1.0].precision.mean():.2f}"
    assert (summary["lam-low"], summary["lam-high"], summary["seeds"]) == ("0", "1", "2")
    assert comparisons.arm_summary(table[table.scheme == "mix"], floor)["synthetic-last"] == "(not run)"
    assert comparisons.arm_summary(table[table.scheme != "mix"], floor)["mix-worst"] == "(not run)"


def test_a_single_generation_has_no_trend(runs):
    table = results.read_runs(runs)
    rows = comparisons.arm_table(table[table.generation == 0], results.read_floor(runs[0])).splitlines()
    assert [row.split("|")[2].strip() for row in rows[2:5]] == ["", "", ""]


def test_interval_is_students():
    values = np.array([1.0, 2.0, 4.0])
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)  # t quantile at 0.975 with 2 degrees of freedom
    assert comparisons.interval(values) == f"{values.mean():.3f} ± {half:.3f}"


def invented(gaps, n_generations=6):
    """Runs of three seeds whose fid is 1 + seed for lambda = 0 and that plus a gap for lambda = 1; recall is equal."""
    rows = []
    for seed, gap in enumerate(gaps):
        for lam in (0.0, 1.0):
            for generation in range(n_generations):
                early = 100.0 if generation < (n_generations - 1) / 2 else 0.0  # not of the second half: must not count
                fid = 1.0 + seed + gap * lam + early
                rows.append(
                    {"run_id": f"{lam}-{seed}", "scheme": "mix", "lam": lam, "seed": seed, "generation": generation}
                    | {"fid": fid, "recall": 0.5}
                )
    return pd.DataFrame(rows)


def test_paired_tests_are_those_of_scipy_on_the_levels():
    gaps = np.array([0.4, 0.5, 0.9])
    found = comparisons.paired_tests(invented(gaps)).set_index("metric")
    row, expected = found.loc["fid"], stats.ttest_rel(1 + np.arange(3) + gaps, 1 + np.arange(3))
    np.testing.assert_allclose([row.difference, row.p], [gaps.mean(), expected.pvalue], rtol=1e-9)
    low, high = expected.confidence_interval()
    np.testing.assert_allclose([row.difference - row.half_width, row.difference + row.half_width], [low, high])
    assert (row.arm, row.n_seeds) == ("λ = 1", 3)
    assert np.isnan(found.loc["recall"].p)
    assert row.q == row.p  # one test alone


def test_q_values_are_benjamini_hochberg(runs):
    found = comparisons.paired_tests(results.read_runs(runs))
    assert set(found.arm) == {"fully synthetic", "λ = 1"}
    assert set(found.metric) == set(comparisons.SHOWN)
    tested = found[found.p.notna()]
    np.testing.assert_allclose(tested.q, stats.false_discovery_control(tested.p))
    assert (tested.q >= tested.p).all()


def test_paired_table_has_a_row_per_metric_or_says_why_there_is_none(runs):
    table = results.read_runs(runs)
    lines = comparisons.paired_table(table).splitlines()
    assert lines[0] == "| metric, less that of λ = 0 | fully synthetic | λ = 1 |"
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["FID", "KID"]
    gap = comparisons.levels(table).pivot(index="seed", columns="lam", values="fid")
    assert f"{(gap[1.0] - gap[0.0]).mean():+.3f} ± " in lines[2]
    assert "at least two common seeds" in comparisons.paired_table(table[table.seed == 0])
    assert "at least two common seeds" in comparisons.paired_table(table[table.lam != 0])


def test_old_ledgers_without_the_newer_metrics_still_make_tables(runs):
    table, floor = results.read_runs(runs).drop(columns=["kid", "density"]), results.read_floor(runs[0])
    assert "KID" not in comparisons.arm_table(table, floor)
    assert "KID" not in comparisons.paired_table(table)


def test_families_have_their_tables_under_their_names(runs):
    table, floor = results.read_runs(runs), results.read_floor(runs[0])
    text = comparisons.family_tables({"gaussian\nfresh latents": table}, floor, ["fid"])
    assert text.startswith("**gaussian, fresh latents**\n\n" + comparisons.arm_table(table, floor, ["fid"]))
    assert text.endswith(comparisons.paired_table(table, ["fid"]))
    assert comparisons.family_tables({}, None, ["fid"]) == ""
