"""What the book says follows from results/: where arms are swapped there, verdicts and sentences change."""

import json
import shutil

import pytest

from iterative_retraining.files import sealed, write_json
from iterative_retraining.runs.reading import read_config, read_floor
from iterative_retraining.studies.report.claims import claims_table, judge, read_claims, verdicts_list
from iterative_retraining.studies.report.collapse import collapse_table
from iterative_retraining.studies.report.comparisons import arm_table
from iterative_retraining.studies.report.evidence import evidence_of
from iterative_retraining.studies.report.groups import main_groups, read_groups

from conftest import ROOT


@pytest.fixture(scope="module")
def doctored(tmp_path_factory):
    """The published runs of digits, and a copy in which the fully synthetic arm and lambda = 0 have changed places."""
    published = [p.parent for p in sorted((ROOT / "results").glob("digits-*/config.json"))]
    folder = tmp_path_factory.mktemp("doctored")
    for path in published:
        shutil.copytree(path, folder / path.name)
        config = read_config(path)
        identity = dict(config["identity"])
        if identity["scheme"] == "fully_synthetic":
            identity |= {"scheme": "mix", "lam": 0.0}
        elif identity["lam"] == 0:
            identity |= {"scheme": "fully_synthetic", "lam": None}
        write_json(folder / path.name / "config.json", sealed(config | {"identity": identity}))
    return published, sorted(folder.iterdir())


def test_verdicts_and_their_sentences_follow_the_runs(doctored):
    claims = read_claims(ROOT / "claims.yml")
    true, false = (evidence_of(paths) for paths in doctored)
    changed = [c.id for c in claims if c.contract["test"]["rule"] != "exact" and judge(c, true) != judge(c, false)]
    assert changed
    assert verdicts_list(claims, true, changed) != verdicts_list(claims, false, changed)
    assert claims_table(claims, true) != claims_table(claims, false)


def test_tables_of_the_chapters_follow_the_runs(doctored):
    true, false = (main_groups(read_groups(paths)) for paths in doctored)
    floor = read_floor(doctored[0][0])
    label, runs = next(iter(true.items()))
    assert collapse_table(true) != collapse_table(false)
    rows = [
        {line.split("|")[1].strip(): line for line in arm_table(group[label], floor).splitlines() if "λ = 0 (" in line}
        for group in (true, false)
    ]
    assert rows[0] != rows[1]
    assert json.dumps(sorted(runs.scheme.unique())) == json.dumps(sorted(false[label].scheme.unique()))
