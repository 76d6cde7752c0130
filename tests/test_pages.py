"""What is done to pages before they are read: folds with what made them, mended HTML; and what the front page says."""

import json

import nbformat
import pytest

from iterative_retraining.runs.results import read_floor
from iterative_retraining.studies.report.claims import Claim, read_claims
from iterative_retraining.studies.report.evidence import read_evidence
from iterative_retraining.studies.report.front import GROUPS, claim_groups, front_previews, front_runs, front_sentence

from accessible import mended
from conftest import ROOT
from made_by import folded

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAECAIAAAA8r+mnAAAAD0lEQVR42mNgGAWjYDgDAAIEAAFqzLmJAAAAAElFTkSuQmCC"  # 8 x 4


def cell(source: str, *tags: str, outputs: tuple = (), **metadata):
    outputs = [nbformat.v4.new_output("display_data", **output) for output in outputs]
    return nbformat.v4.new_code_cell(source, outputs=outputs, metadata={"tags": list(tags), **metadata})


def page(*cells):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A question"), *cells])


PLUMBING = (
    cell('n = 20000\nscale = "by hand"', "parameters"),
    cell('# Parameters\nn = 7\nscale = "cpu"\n', "injected-parameters", "hide-input"),
    cell("import numpy", "hide-input", outputs=({"data": {"text/markdown": "30 runs.\n\n**Old code.**"}},)),
)


def test_a_page_shows_the_parameters_that_made_it_in_one_fold():
    nb, _ = folded(page(*PLUMBING), "chapters/a")
    question, fold, visible = nb.cells
    assert (question.source, visible.source) == ("# A question", "**Old code.**")
    assert fold.source.startswith(":::::{dropdown} Made at scale cpu\n")
    assert all(
        text in fold.source for text in ("30 runs.", 'n = 7\nscale = "cpu"', "import numpy", "notebooks/a.ipynb")
    )
    assert "20000" not in fold.source


def test_a_figure_has_its_code_and_its_numbers_in_a_fold_below_and_its_own_width():
    png = {"data": {"image/png": PIXEL, "text/csv": "x,y\n1,2\n"}, "metadata": {"image/png": {"width": 4, "height": 2}}}
    figure = cell("draw()", "hide-input", outputs=(png,), mystnb={"figure": {"name": "fig-b"}, "image": {"alt": "b"}})
    nb, files = folded(page(*PLUMBING, figure), "chapters/a")
    drawn, fold = nb.cells[-2:]
    assert drawn.metadata.mystnb.image == {"width": "4px", "alt": "b"}
    assert drawn.metadata.tags == ["remove-input"]
    assert files == {"data/a-fig-b.csv": "x,y\n1,2\n"}
    assert list(drawn.outputs[0].data) == ["image/png"]  # a page cannot show the other
    assert "draw()" in fold.source
    assert 'href="../data/a-fig-b.csv"' in fold.source


def test_cells_that_only_glue_numbers_leave_nothing_and_tables_stay():
    glue = cell("glue()", "hide-input", outputs=({"data": {"application/papermill.record/text/plain": "1"}},))
    table = cell("table()", "hide-input", outputs=({"data": {"text/markdown": "| a |"}},))
    nb, _ = folded(page(*PLUMBING, glue, table), "a")
    assert nb.cells[-2].metadata.tags == ["hide-input", "remove-cell"]
    assert nb.cells[-1].metadata.tags == ["hide-input"]


def test_a_notebook_without_parameters_stays_as_it_is():
    nb = page(cell("1 + 1"))
    assert folded(nb, "a") == (nb, {})


def test_mended_pages_have_no_empty_headers_no_wrong_roles_and_are_mended_once():
    wrong = (
        '<th class="head"><p></p></th>\n<th></th><th class="head"><p>x</p></th>'
        '<div role="list" class="citation-list"><div class="citation" id="a" role="doc-biblioentry">'
        '<div id="pst-primary-sidebar" class="bd-sidebar-primary bd-sidebar">'
        '<summary aria-label="Toggle hidden content">'
    )
    right = (
        '<td class="head"></td>\n<td></td><th class="head"><p>x</p></th>'
        '<div class="citation-list"><div class="citation" id="a">'
        '<div id="pst-primary-sidebar" class="bd-sidebar-primary bd-sidebar" role="region" aria-label="Sidebar">'
        "<summary>"
    )
    assert mended(wrong) == right == mended(right)


def test_the_front_page_shows_the_runs_with_most_arms_seeds_and_retrainings(runs):
    shown = front_runs(runs, "gaussian")
    assert set(shown.run_id) == {json.loads((run / "config.json").read_text())["run_id"] for run in runs}
    assert front_runs([run for run in runs if run.name.endswith("1")], "gaussian").seed.unique().tolist() == [1]
    with pytest.raises(ValueError, match="no run of the model 'edm'"):
        front_runs(runs)


def test_the_sentence_of_the_front_page_is_made_from_the_ledgers(runs):
    shown = front_runs(runs, "gaussian").assign(precision=lambda table: 0.25 * table.generation)
    floor = {"precision": [0.75, 0.25], "n_images": 9}
    told = front_sentence(shown, floor)
    assert told.startswith("Over 2 retrainings and 2 seeds the precision")
    assert "**fully synthetic** from 0.00 to 0.50" in told
    assert told.endswith("n = 300, have 0.50.")


def test_published_previews_of_the_front_page_are_of_its_arms():
    published = [p.parent for p in (ROOT / "results").glob("digits-*/ledger.jsonl")]
    shown = front_runs(published)
    previews = front_previews(shown)
    assert list(previews) == ["fully synthetic", "λ = 1"]
    assert {len(strip) for strip in previews.values()} == {shown.generation.max() + 1}
    assert len(read_floor(shown.path.iloc[0])["fid"]) > 1


def test_claims_are_told_in_at_most_ten_rows_and_none_is_lost():
    claims = read_claims(ROOT / "claims.yml")
    table = claim_groups(claims, read_evidence(ROOT / "results")).splitlines()
    assert len(table) - 2 <= 10
    cells = [row.strip("| ").split(" | ") for row in table[2:]]
    assert sum(int(n) for row in cells for n in row[1:] if n != "·") == len(claims)
    assert {row[0] for row in cells} <= set(GROUPS)


def test_a_claim_of_a_new_kind_is_a_further_finding():
    contract = {"test": {"rule": "exact", "tests": ["a"]}}
    claim = Claim("something-new", "", "", contract, "", "", {}, "", "")
    assert claim_groups([claim], read_evidence("nowhere")).splitlines()[-1] == "| Further findings | · | · | 1 |"
