"""Claims: statements with a contract that was written before the runs which judge it, and the verdict on each.

A contract's ``test`` is a rule. Rules about runs make one number of every seed and take its 95 % t-interval:
trend       the slope of a metric of one arm over the second half of its retrainings, per retraining
difference  one arm less its control, of the same seeds; by default of the mean over the second half
contrast    a weighted sum of arms, of the same seeds; a term may have a metric of its own
ages        the mix at other lam, as the fully synthetic arm and one constant, found at one lam, predict it
all         several of these, each of which has to hold
exact       proven by tests that are named
not_testable
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
from jsonschema.exceptions import best_match

from iterative_retraining.errors import ConfigError
from iterative_retraining.parameters import load_yaml
from iterative_retraining.runs.results import find_results
from iterative_retraining.studies.report.comparisons import half_width
from iterative_retraining.studies.report.findings import (
    FAILS,
    HOLDS,
    NOT_RUN,
    NOT_TESTABLE,
    RUN_FAILED,
    STATISTICS,
    UNDECIDED,
    VERDICTS,
    Arms,
    Finding,
)
from iterative_retraining.studies.report.labels import label_of
from iterative_retraining.studies.theory.ages import aged

_TEXT, _NUMBER = {"type": "string", "minLength": 1}, {"type": "number"}
_ARM = {"type": "object", "minProperties": 1}
_ABOUT = {"metric": _TEXT, "of": {"enum": list(STATISTICS)}, "expect": {"enum": ["above", "below", "within"]}}
_ABOUT |= {"margin": _NUMBER}


def _schema(required: str, **properties: Any) -> dict[str, Any]:
    known = {"type": "object", "required": required.split(), "properties": properties}
    return known | {"additionalProperties": False}


_TERM = _schema("arm weight", arm=_ARM, weight=_NUMBER, metric=_TEXT)
RULES = {
    "trend": _schema("rule metric arm expect margin", rule={}, arm=_ARM, **_ABOUT),
    "difference": _schema("rule metric arm control expect margin", rule={}, arm=_ARM, control=_ARM, **_ABOUT),
    "contrast": _schema("rule metric terms expect margin", rule={}, terms={"type": "array", "items": _TERM}, **_ABOUT),
    "ages": _schema(
        "rule metric lam calibrate tolerance", rule={}, metric=_TEXT, calibrate=_NUMBER, tolerance=_NUMBER,
        lam={"type": "array", "items": _NUMBER, "minItems": 1},
    ),
    "all": _schema("rule tests", rule={}, tests={"type": "array", "items": {"type": "object"}, "minItems": 2}),
    "exact": _schema("rule tests", rule={}, tests={"type": "array", "items": _TEXT, "minItems": 1}),
    "not_testable": _schema("rule why", rule={}, why=_TEXT),
}  # fmt: skip
ABOUT_RUNS = ("trend", "difference", "contrast", "ages")
_CONTRACT = _schema("for against undecided test", test={"type": "object"},
                    **dict.fromkeys(("for", "against", "undecided"), _TEXT))  # fmt: skip
_RUNS = _schema("dataset n_retrain min_seeds", dataset=_TEXT, n_retrain={"type": "integer", "minimum": 1},
                min_seeds={"type": "integer", "minimum": 2}, where={"type": "object"})  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """One entry of claims.yml. runs: the data set, the number of retrainings, the least number of seeds, and ``where``,
    what all arms of the contract have in common; {} where no runs are needed."""

    id: str
    statement: str
    source: str
    contract: Mapping[str, Any]
    method: str
    scale: str
    runs: Mapping[str, Any]
    verdict: str
    limits: str


_CLAIM = _schema(
    " ".join(f.name for f in fields(Claim)),
    **dict.fromkeys(("id", "statement", "source", "method", "scale", "limits"), _TEXT),
    contract=_CONTRACT, verdict={"enum": list(VERDICTS)}, runs={"anyOf": [{"const": {}}, _RUNS]},
)  # fmt: skip


def read_claims(path: str | Path) -> list[Claim]:
    """The claims of a YAML file, in its order. Raises ConfigError that names the file, the claim and what is wrong."""
    try:
        entries, _ = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: this is not a file of claims: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path}: this is not a file of claims: it is a list of at least one")
    seen = set()
    for number, entry in enumerate(entries, start=1):
        name = entry.get("id", number) if isinstance(entry, dict) else number
        wrong = _first_error(entry)
        if wrong or name in seen:
            raise ConfigError(f"{path}, claim {name}: {wrong or 'there is another claim of this id'}")
        seen.add(name)
    return [Claim(**entry) for entry in entries]


def find_claims() -> list[Claim]:
    """The claims of the project: claims.yml beside the published results. Raises FileNotFoundError, ConfigError."""
    return read_claims(find_results()[0].parents[1] / "claims.yml")


def _first_error(entry: Any) -> str:
    """What is wrong with an entry; "" if nothing is."""
    wrong = _against(_CLAIM, entry, "")
    if not wrong:
        tests = [test for _, test in rules(entry["contract"]["test"])]
        wrong = next(filter(None, (_wrong_rule(test) for test in tests)), "")
        if not wrong and not entry["runs"] and any(test["rule"] in ABOUT_RUNS for test in tests):
            wrong = "runs = {} is not allowed: its rule is about runs; give dataset, n_retrain and min_seeds"
    return wrong


def _wrong_rule(test: Mapping[str, Any]) -> str:
    rule = test.get("rule")
    if rule not in RULES:
        return f"rule = {rule!r} is not allowed; allowed: {', '.join(RULES)}"
    return _against(RULES[rule], test, f"contract.test, rule {rule}: ")


def _against(schema: Mapping[str, Any], value: Any, place: str) -> str:
    wrong = best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    if wrong is None:
        return ""
    return place + ": ".join(filter(None, (".".join(map(str, wrong.absolute_path)), wrong.message)))


def rules(test: Mapping[str, Any]) -> list[tuple[bool, Mapping[str, Any]]]:
    """The rules of a test, each with whether it is one of several: the members of "all", after it, or it alone."""
    if test.get("rule") != "all":
        return [(False, test)]
    members = test.get("tests", [])
    return [(False, test), *((True, member) for member in members if isinstance(member, dict))]


def judge(claim: Claim, runs: pd.DataFrame) -> Finding:
    """What a table of runs (`read_evidence`) says of a claim.

    Raises ConfigError if an arm selects two runs of one seed.
    """
    test = claim.contract["test"]
    if test["rule"] == "not_testable":
        return Finding(NOT_TESTABLE, test["why"])
    if test["rule"] == "exact":
        return Finding(HOLDS, "proven by " + ", ".join(test["tests"]))
    rows = runs[runs.dataset == claim.runs["dataset"]]
    if "n_retrain" in rows:
        last = claim.runs["n_retrain"]  # a run that failed has no generation
        rows = rows[(rows.n_retrain >= last) & ((rows.generation <= last) | rows.generation.isna())]
    arms = Arms(rows, claim.runs)
    members = [member for one_of, member in rules(test) if one_of or test["rule"] != "all"]
    found = [_judge_ages(member, arms) if member["rule"] == "ages" else _judge(member, arms) for member in members]
    return _together(found)


def _together(found: Sequence[Finding]) -> Finding:
    """All have to hold; one that fails is enough to fail, once all have run."""
    verdicts = {one.verdict for one in found}
    verdict = next(v for v in (RUN_FAILED, NOT_RUN, FAILS, UNDECIDED, HOLDS) if v in verdicts)
    ids = sorted({run_id for one in found for run_id in one.run_ids})
    return Finding(verdict, "; ".join(one.why for one in found), tuple(ids))


def _terms(test: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if test["rule"] == "contrast":
        return test["terms"]
    control = [{"weight": -1.0, "arm": test["control"]}] if "control" in test else []
    return [{"weight": 1.0, "arm": test["arm"]}, *control]


def _judge(test: Mapping[str, Any], arms: Arms) -> Finding:
    """trend, difference and contrast."""
    of = test.get("of", "slope" if test["rule"] == "trend" else "level")
    parts = [t["weight"] * arms.per_seed(t["arm"], t.get("metric", test["metric"]), of) for t in _terms(test)]
    values = pd.concat(parts, axis=1, join="inner").sum(axis=1).to_numpy()
    return _compared(
        values, test["expect"], test["margin"], f"{label_of(test['metric'])}, {of.replace('_', ' ')}", arms
    )


def _compared(values: np.ndarray, expect: str, margin: float, name: str, arms: Arms) -> Finding:
    """The 95 % t-interval of one value a seed against a margin."""
    if len(values) < arms.min_seeds:
        return arms.too_few(f"{name}: {len(values)} of {arms.min_seeds} seeds")
    low, high = values.mean() - half_width(values), values.mean() + half_width(values)
    holds, fails = {
        "above": (low > margin, high < margin),
        "below": (high < margin, low > margin),
        "within": (-margin < low and high < margin, low > margin or high < -margin),
    }[expect]
    verdict = HOLDS if holds else FAILS if fails else UNDECIDED
    wanted = f"within ±{margin:.3g}" if expect == "within" else f"{expect} {margin:.3g}"
    why = f"{name}: {low:.3g} to {high:.3g} over {len(values)} seeds, expected {wanted}"
    return Finding(verdict, why, tuple(sorted(arms.looked_at)))


def _judge_ages(test: Mapping[str, Any], arms: Arms) -> Finding:
    """effect(lam) = c sum_k w_k(lam, t) (FS(k) - control(k)), c from ``calibrate``, within tolerance of the prediction.

    effect: level less that of lam = 0 of the same seed; FS and control: means over seeds. Of every seed counts
    effect(lam) - ratio effect(calibrate), ratio that of the two sums, so that the noise of c is in the interval.
    """
    metric, control = test["metric"], {"scheme": "mix", "lam": 0.0}
    alone = [arms.of(arm) for arm in ({"scheme": "fully_synthetic"}, control)]
    if any(not len(rows) or metric not in rows or rows[metric].isna().any() for rows in alone):
        return arms.too_few(f"{metric}: the fully synthetic arm or lam = 0 is missing")
    gaps = np.subtract(*(rows.groupby("generation")[metric].mean().to_numpy() for rows in alone))
    base = arms.per_seed(control, metric, "level")
    effects = {
        lam: (arms.per_seed({"scheme": "mix", "lam": lam}, metric, "level") - base).dropna()
        for lam in {test["calibrate"], *test["lam"]}
    }
    found = []
    for lam in test["lam"]:
        ratio, one = (aged(at, gaps) for at in (lam, test["calibrate"]))
        predicted = ratio / one * effects[test["calibrate"]]
        values = (effects[lam] - predicted).dropna().to_numpy()
        margin = test["tolerance"] * abs(predicted.mean())
        found.append(
            _compared(values, "within", margin, f"{label_of(metric)} at λ = {lam:g}, seen less predicted", arms)
        )
    return _together(found)


def claims_table(claims: Iterable[Claim], runs: pd.DataFrame) -> str:
    """A Markdown table: every claim with its verdict and the numbers behind it, what failed here first."""
    judged = sorted(((c, judge(c, runs)) for c in claims), key=lambda pair: VERDICTS.index(pair[1].verdict))
    lines = ["| claim | source | verdict | because |", "|---|---|---|---|"]
    for claim, found in judged:
        cells = (f"**{claim.id}** {claim.statement}", claim.source, found.verdict, found.why)
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |")
    return "\n".join(lines)


def verdicts_list(claims: Iterable[Claim], runs: pd.DataFrame, ids: Sequence[str]) -> str:
    """A Markdown list: of the claims ``ids``, in this order, the verdict, the statement and the numbers behind it.

    Raises KeyError for an id that no claim has.
    """
    by_id = {claim.id: claim for claim in claims}
    judged = [(by_id[name], judge(by_id[name], runs)) for name in ids]
    return "\n".join(f"- **{found.verdict}**: {claim.statement} *({found.why})*" for claim, found in judged)


def contracts_list(claims: Iterable[Claim]) -> str:
    """A Markdown list: of every claim what counts for it, against it and for neither, how, and its limits."""
    items = []
    for claim in claims:
        told = [f"{name}: {claim.contract[name]}" for name in ("for", "against", "undecided")]
        told += [f"{name}: {getattr(claim, name)}" for name in ("method", "scale", "limits")]
        items += [f"- **{claim.id}**", *(f"  - {' '.join(text.split())}" for text in told)]
    return "\n".join(items)
