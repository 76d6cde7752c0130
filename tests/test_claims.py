"""Claims: every rule on tables with a known answer; claims.yml is valid, older than its runs, and says what is so."""

import ast
import datetime
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from iterative_retraining.errors import ConfigError, NonFiniteLossError
from iterative_retraining.parameters import load_yaml
from iterative_retraining.runs.publishing import publish
from iterative_retraining.status import run_status
from iterative_retraining.studies.report.claims import (
    FAILS,
    HOLDS,
    NOT_RUN,
    NOT_TESTABLE,
    RUN_FAILED,
    UNDECIDED,
    Claim,
    claims_table,
    judge,
    read_claims,
    rules,
)
from iterative_retraining.studies.report.evidence import counts, failure, read_evidence
from iterative_retraining.studies.theory.ages import aged

from conftest import ROOT

FILE = ROOT / "claims.yml"
CLAIMS = read_claims(FILE)
EVIDENCE = read_evidence(ROOT / "results")
FS, REAL = {"scheme": "fully_synthetic"}, {"scheme": "mix", "lam": 0.0}
ABOUT = {"dataset": "digits", "n_retrain": 20, "min_seeds": 3}


def entry(test: dict, runs: dict | None = None, **changes: object) -> dict:
    words = dict.fromkeys(("statement", "source", "method", "scale", "limits"), "words")
    contract = {"for": "a", "against": "b", "undecided": "c", "test": test}
    return {"id": "x", "contract": contract, "runs": runs or {}, "verdict": NOT_RUN} | words | changes


def claim(test: dict, **runs: object) -> Claim:
    return Claim(**entry(test, ABOUT | runs))


def run(values: np.ndarray, seed: int, scheme: str = "mix", lam: float = 0.0, **columns: object) -> pd.DataFrame:
    """A run whose FID is ``values``, generation by generation."""
    run_id = f"{scheme}-{lam}-{seed}-{columns}"
    about = {"dataset": "digits", "n_retrain": len(values) - 1, "scheme": scheme, "lam": lam, "seed": seed}
    return pd.DataFrame({"generation": range(len(values)), "fid": values}).assign(run_id=run_id, **about | columns)


def seeds(make, n: int = 5) -> pd.DataFrame:
    return pd.concat([make(seed) for seed in range(n)])


def lines(slope: float, spread: float = 0.01, **columns: object) -> pd.DataFrame:
    """Five runs with slopes around ``slope``: standard deviation spread sqrt(2.5)."""
    return seeds(lambda s: run(1 + (slope + spread * (s - 2)) * np.arange(21), s, **columns))


def trend(expect: str, margin: float, **more: object) -> dict:
    return {"rule": "trend", "metric": "fid", "arm": REAL, "expect": expect, "margin": margin} | more


# half-width of five slopes with spread 0.01: 2.776 * 0.01581 / sqrt(5) = 0.01963
@pytest.mark.parametrize(
    ("slope", "expect", "margin", "verdict"),
    [
        (0.12, "above", 0.1, HOLDS),
        (0.11, "above", 0.1, UNDECIDED),
        (0.08, "above", 0.1, FAILS),
        (-0.12, "below", -0.1, HOLDS),
        (-0.11, "below", -0.1, UNDECIDED),
        (-0.08, "below", -0.1, FAILS),
        (0.0, "within", 0.0197, HOLDS),
        (0.0, "within", 0.0196, UNDECIDED),
        (0.05, "within", 0.03, FAILS),
        (-0.05, "within", 0.03, FAILS),
        (-0.05, "within", 0.031, UNDECIDED),
    ],
)
def test_a_trend_against_its_margin(slope, expect, margin, verdict):
    assert judge(claim(trend(expect, margin)), lines(slope)).verdict == verdict


def test_a_trend_is_of_the_second_half():
    """Flat from generation 10 on, whatever was before."""
    values = np.r_[np.linspace(9, 1, 10), np.ones(11)]
    assert judge(claim(trend("within", 1e-9)), seeds(lambda s: run(values, s))).verdict == HOLDS


@pytest.mark.parametrize(
    ("of", "value"), [("first", 2.0), ("last", 22.0), ("change", 20.0), ("relative_change", 10.0), ("level", 17.0)]
)
def test_statistics_of_a_straight_line(of, value):
    runs = lines(1.0, spread=0.0).assign(fid=lambda t: t.fid + 1)
    for expect, margin in (("above", value - 1e-9), ("below", value + 1e-9)):
        assert judge(claim(trend(expect, margin, of=of)), runs).verdict == HOLDS


def test_a_difference_is_paired_by_seed():
    """Seeds far apart, their differences all the same; a seed that one arm lacks does not count."""
    control = seeds(lambda s: run(np.full(21, 10.0 * s), s))
    arm = seeds(lambda s: run(np.full(21, 10.0 * s + 0.3), s, lam=1.0), n=3)
    test = {"rule": "difference", "metric": "fid", "arm": {"scheme": "mix", "lam": 1.0}, "control": REAL}
    found = judge(claim(test | {"expect": "above", "margin": 0.29}), pd.concat([control, arm]))
    assert found.verdict == HOLDS
    assert "over 3 seeds" in found.why
    assert len(found.run_ids) == 8
    assert judge(claim(test | {"expect": "above", "margin": 0.31}), pd.concat([control, arm])).verdict == FAILS
    assert judge(claim(test | {"expect": "above", "margin": 0}, min_seeds=4), pd.concat([control, arm])).verdict == (
        NOT_RUN
    )


def test_a_contrast_is_a_weighted_sum_of_arms_and_metrics():
    runs = seeds(lambda s: run(np.full(21, 3.0), s)).assign(other=5.0)
    terms = [{"weight": 2, "arm": REAL}, {"weight": -1, "arm": REAL, "metric": "other"}]
    test = {"rule": "contrast", "metric": "fid", "terms": terms}
    assert judge(claim(test | {"expect": "above", "margin": 0.999}), runs).verdict == HOLDS
    assert judge(claim(test | {"expect": "above", "margin": 1.001}), runs).verdict == FAILS


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, HOLDS), (1.19, HOLDS), (1.21, FAILS), (0.79, FAILS)])
def test_ages_find_a_loop_that_keeps_them_and_one_that_does_not(factor, verdict):
    gaps = 0.4 * np.arange(21)

    def mixed(lam: float, times: float) -> pd.DataFrame:
        effect = times * 1.7 * aged(lam, gaps)
        return seeds(lambda s: run(np.full(21, s + effect), s, lam=lam))

    alone = seeds(lambda s: run(s + gaps, s, scheme="fully_synthetic", lam=np.nan))
    runs = pd.concat([alone, seeds(lambda s: run(np.full(21, 1.0 * s), s)), mixed(0.5, 1.0), mixed(2.0, factor)])
    test = {"rule": "ages", "metric": "fid", "lam": [2.0], "calibrate": 0.5, "tolerance": 0.2}
    assert judge(claim(test), runs).verdict == verdict
    assert judge(claim(test), runs[runs.lam != 2.0]).verdict == NOT_RUN
    assert judge(claim(test), runs[runs.scheme == "mix"]).verdict == NOT_RUN


def test_all_have_to_hold_and_one_that_fails_is_enough():
    def both(*tests: dict) -> str:
        return judge(claim({"rule": "all", "tests": list(tests)}), lines(0.12)).verdict

    holds, open_, fails = (trend("above", margin) for margin in (0.1, 0.12, 0.15))
    not_run = trend("above", 0.1, metric="kid")
    assert both(holds, holds) == HOLDS
    assert both(holds, open_) == UNDECIDED
    assert both(open_, fails) == FAILS
    assert both(fails, not_run) == NOT_RUN


def test_what_needs_no_runs():
    assert judge(Claim(**entry({"rule": "exact", "tests": ["tests/a.py::b"]})), EVIDENCE).verdict == HOLDS
    found = judge(Claim(**entry({"rule": "not_testable", "why": "no GPU"})), EVIDENCE)
    assert (found.verdict, found.why) == (NOT_TESTABLE, "no GPU")


def test_runs_are_chosen_by_data_set_parameters_and_length():
    runs = lines(0.12).assign(solver="heun")
    for where in ({"solver": "dpmpp_3m"}, {"solver": "heun", "latents": "fixed"}):
        assert judge(claim(trend("above", 0.1), where=where), runs).verdict == NOT_RUN
    assert judge(claim(trend("above", 0.1), where={"solver": "heun"}), runs).verdict == HOLDS
    assert judge(claim(trend("above", 0.1), dataset="fashion_mnist"), runs).verdict == NOT_RUN
    assert judge(claim(trend("above", 0.1), n_retrain=21), runs).verdict == NOT_RUN
    assert judge(claim(trend("above", 1.6, of="last"), n_retrain=5), runs).verdict == UNDECIDED  # it is 1.6 at 5


def test_an_arm_that_names_no_selector_and_no_rare_class_has_none():
    plain, other = lines(0.12), lines(0.5, selector="density")
    rare = lines(0.9, rare_class=8)
    runs = pd.concat([plain, other, rare])
    assert judge(claim(trend("within", 0.15)), runs).verdict == HOLDS
    assert judge(claim(trend("above", 0.4, arm=REAL | {"selector": "density"})), runs).verdict == HOLDS
    assert judge(claim(trend("above", 0.8), where={"rare_class": 8}), runs).verdict == HOLDS


def test_an_arm_that_is_two_is_refused():
    twice = pd.concat([lines(0.1, solver="heun"), lines(0.2, solver="rk4")])
    with pytest.raises(ConfigError, match=r"selects several runs of one seed: .*; say what tells them apart"):
        judge(claim(trend("above", 0.1)), twice)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "it is a list of at least one"),
        ([entry({"rule": "trends"})], r"claim x: rule = 'trends' is not allowed; allowed: trend, difference"),
        ([entry(trend("above", 1.0))], r"claim x: runs = \{\} is not allowed: its rule is about runs"),
        ([entry(trend("up", 1.0), ABOUT)], r"rule trend: expect: 'up' is not one of"),
        ([entry({"rule": "all", "tests": [{"rule": "exact"}] * 2})], r"rule exact: 'tests' is a required property"),
        ([entry({"rule": "not_testable", "why": "x"}, verdict="maybe")], r"verdict: 'maybe' is not one of"),
        ([entry({"rule": "not_testable", "why": "x"})] * 2, "there is another claim of this id"),
        ([entry({"rule": "not_testable", "why": "x"}, limits="")], r"claim x: limits"),
        ([{"id": "y"}], r"claim y: .* is a required property"),
        (["words"], r"claim 1: 'words' is not of type 'object'"),
    ],
)
def test_bad_claims_are_refused_in_one_sentence(tmp_path, entries, message):
    file = tmp_path / "claims.yml"
    file.write_text(yaml.safe_dump(entries))
    with pytest.raises(ConfigError, match=rf"claims\.yml.*{message}"):
        read_claims(file)


def diverged(seed: int, **columns: object) -> pd.DataFrame:
    why = "NonFiniteLossError: generation 7: the loss is nan at step 3"
    return run(np.array([np.nan]), seed, failed=why, **columns).assign(generation=np.nan, n_retrain=20)


def test_a_run_that_failed_is_told_and_not_missing():
    three = seeds(lambda s: run(1 + 0.2 * np.arange(21), s), n=2)
    found = judge(claim(trend("above", 0.1)), pd.concat([three, diverged(2)]))
    assert found.verdict == RUN_FAILED
    assert found.why.startswith("FID, slope: 2 of 3 seeds; failed: mix-0.0-2-")
    assert found.why.endswith("(NonFiniteLossError: generation 7: the loss is nan at step 3)")
    assert sum(run_id.startswith("mix-0.0-2-") for run_id in found.run_ids) == 1
    # of another arm, or beside enough seeds, it changes nothing
    other = pd.concat([three, diverged(2, scheme="fully_synthetic")])
    assert judge(claim(trend("above", 0.1)), other).verdict == NOT_RUN
    assert judge(claim(trend("above", 0.1)), pd.concat([lines(0.2), diverged(9)])).verdict == HOLDS
    ages = {"rule": "ages", "metric": "fid", "lam": [1.0], "calibrate": 0.5, "tolerance": 0.1}
    assert judge(claim(ages), pd.concat([three, diverged(0, scheme="fully_synthetic")])).verdict == RUN_FAILED


@pytest.mark.parametrize("n_complete", [0, 2])
def test_a_diverged_run_is_evidence_of_its_failure(tmp_path, monkeypatch, n_complete):
    from iterative_retraining.experiment import open_experiment
    from iterative_retraining.models.gaussian import Gaussian

    fit, fits = Gaussian.fit, []

    def diverges(self, *data, **how):
        fits.append(1)
        if len(fits) > n_complete:
            raise NonFiniteLossError("the loss is nan at step 3")
        return fit(self, *data, **how)

    monkeypatch.setattr(Gaussian, "fit", diverges)
    experiment = open_experiment(model="gaussian", n_real=100, n_retrain=4, run_dir=tmp_path / "a-run")
    with pytest.raises(NonFiniteLossError):
        list(experiment.records())
    experiment.run.close()
    (row,) = read_evidence(tmp_path).to_dict("records")
    assert row["failed"] == failure(tmp_path / "a-run") == run_status(tmp_path / "a-run").message
    assert row["failed"].startswith(f"NonFiniteLossError: generation {n_complete}: the loss is nan at step 3")
    assert (row["scheme"], row["lam"], row["seed"], row["n_retrain"]) == ("mix", 0.5, 0, 4)
    test = trend("above", 0.0, arm={"scheme": "mix", "lam": 0.5})
    assert judge(claim(test, n_retrain=4), read_evidence(tmp_path)).verdict == RUN_FAILED
    publish([tmp_path / "a-run"], tmp_path / "results")
    assert read_evidence(tmp_path / "results").failed.item() == row["failed"]


def test_a_run_of_code_that_recorded_no_sources_is_no_evidence():
    old = next(path.parent for path in sorted((ROOT / "results").glob("*/manifest.json")) if not _sources(path))
    assert not counts(old)


def _sources(manifest: Path) -> bool:
    return '"sources"' in manifest.read_text()


def test_a_complete_run_is_evidence_with_its_parameters(tmp_path):
    from iterative_retraining.experiment import open_experiment

    path = tmp_path / "a-run"
    list(open_experiment(model="gaussian", scheme="fully_synthetic", n_retrain=2, run_dir=path).records())
    found = read_evidence(tmp_path)
    assert list(found.generation) == [0, 1, 2]
    assert set(found.n_retrain) == {2}
    assert {"precision", "started", "latents", "model"} <= set(found)
    test = trend("above", 0.0, arm=FS)
    assert judge(claim(test, n_retrain=2, min_seeds=2), found).why == "FID, slope: 1 of 2 seeds"
    ledger = path / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:2]))
    assert not counts(path)


@pytest.mark.parametrize("one", CLAIMS, ids=lambda c: c.id)
def test_the_verdict_of_a_claim_is_what_its_runs_say(one):
    assert one.verdict == judge(one, EVIDENCE).verdict


def test_swapped_arms_change_verdicts():
    """A page made of other runs says other things."""
    test, control = {"rule": "difference", "metric": "fid", "arm": FS, "control": REAL}, lines(0.0)
    arm = lines(1.0).assign(scheme="fully_synthetic", lam=np.nan, run_id=lambda t: "fs" + t.run_id)
    runs = pd.concat([control, arm])
    swapped = runs.assign(
        scheme=runs.scheme.map({"mix": "fully_synthetic", "fully_synthetic": "mix"}),
        lam=np.where(runs.scheme == "mix", np.nan, 0.0),
    )
    one = claim(test | {"expect": "above", "margin": 1.0})
    assert [judge(one, table).verdict for table in (runs, swapped)] == [HOLDS, FAILS]
    pages = [claims_table([replace(one, statement="a | b")], table) for table in (runs, swapped)]
    assert HOLDS in pages[0]
    assert FAILS in pages[1]
    assert r"a \| b" in pages[0]


def test_what_failed_stands_first():
    verdicts = [FAILS, HOLDS, NOT_TESTABLE]
    three = [claim(trend("above", margin)) for margin in (0.5, 0.1)]
    three.append(Claim(**entry({"rule": "not_testable", "why": "x"})))
    rows = claims_table(three[::-1], lines(0.12)).splitlines()[2:]
    assert [next(v for v in verdicts if f"| {v} |" in row) for row in rows] == verdicts


def test_tests_that_claims_name_are_there():
    names = {
        name
        for c in CLAIMS
        for _, test in rules(c.contract["test"])
        if test["rule"] == "exact"
        for name in test["tests"]
    }
    assert names
    for name in names:
        file, _, function = name.partition("::")
        found = {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}
        assert function in found, name


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no git on this machine")
    if done.returncode:
        pytest.skip(f"no history that tells when the contracts were written: {done.stderr.strip()}")
    return done.stdout


def contract_lines() -> dict[str, tuple[int, int]]:
    """First and last line of the contract of every claim; of one that is an alias of another's test, its own lines."""
    _, root = load_yaml(FILE.read_text(encoding="utf-8"))
    found = {}
    for node in root.value:
        keys = {key.value: (key, value) for key, value in node.value}
        key, value = keys["contract"]
        found[keys["id"][1].value] = key.start_mark.line + 1, value.end_mark.line
    return found


def committed(first: int, last: int) -> datetime.datetime:
    """When the youngest of these lines of claims.yml was committed; those that are not yet committed are of now."""
    text = _git("blame", "--line-porcelain", "-L", f"{first},{last}", "--", FILE.name)
    times = [int(line.split()[1]) for line in text.splitlines() if line.startswith("committer-time ")]
    return datetime.datetime.fromtimestamp(max(times), datetime.UTC)


def test_contracts_are_older_than_the_runs_that_judge_them():
    if _git("rev-parse", "--is-shallow-repository").strip() != "false":
        pytest.skip("a shallow clone does not tell when the contracts were written")
    places = contract_lines()
    assert set(places) == {c.id for c in CLAIMS}
    first, last = places["figure-2-synthetic-edm"]
    text = FILE.read_text().splitlines()[first - 1 : last]
    assert text[0].strip() == "contract:"
    assert text[-1].strip().startswith("test:")
    assert committed(first, last) <= datetime.datetime.now(datetime.UTC)
    for one in CLAIMS:
        found = judge(one, EVIDENCE)
        if found.run_ids and found.verdict != NOT_RUN:  # what waits for runs is not judged by those that are there
            started = EVIDENCE[EVIDENCE.run_id.isin(found.run_ids)].started.min()
            assert committed(*places[one.id]) < datetime.datetime.fromisoformat(started), one.id
