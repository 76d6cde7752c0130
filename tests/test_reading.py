"""What a reader gets of each page: exercises, an end that sums up, short tables, numbers that say whose a result is."""

import re

import nbformat
import pytest
import yaml
from docutils import nodes
from sphinx.errors import ConfigError

from address import repository, site, theme_options
from conftest import ROOT
from long_tables import ROWS, fold
from numbering import renumbered

ABOUT_THE_PACKAGE = ("index", "claims", "status")
CHAPTERS = [p for p in sorted((ROOT / "book" / "chapters").glob("*.ipynb")) if p.stem not in ABOUT_THE_PACKAGE]
ACTION = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "Someone/a-fork"}


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request):
    return nbformat.read(request.param, as_version=4)


def test_a_chapter_has_four_exercises_and_two_executed_solutions(chapter):
    text = "\n".join(cell.source for cell in chapter.cells if cell.cell_type == "markdown")
    exercises = re.findall(r":::\{exercise\} .+\n:label: (\S+)\n", text)
    solved = re.findall(r":::\{solution-start\} (\S+)\n:class: dropdown\n", text)
    assert len(exercises) >= 4
    assert len(solved) >= 2
    assert set(solved) <= set(exercises)
    assert text.count(":::{solution-end}") == len(solved)
    cells = [cell for cell in chapter.cells if "solution" in cell.metadata.get("tags", [])]
    assert len(cells) == len(solved)
    assert all("text/markdown" in cell.outputs[0].data for cell in cells)


def test_a_chapter_ends_with_what_was_learnt_what_it_does_not_show_and_where_to_go(chapter):
    end = chapter.cells[-1].source
    learnt = end[end.index(":::{admonition} Three things learnt\n") :]
    assert re.findall(r"^(\d)\. ", learnt, re.MULTILINE) == ["1", "2", "3"]
    assert re.search(r"\n\*What this chapter does not show\*: .*\*Where to go next\*: ", learnt, re.DOTALL)


def test_no_output_of_a_page_is_a_value_as_python_writes_it(chapter):
    for cell in (c for c in chapter.cells if c.cell_type == "code"):
        for output in cell.outputs:
            shown = set(output.get("data", {})) - {"text/plain", "text/csv"}
            assert output.output_type != "stream", output
            assert shown or not output.get("data"), output.data
            told = "".join(output.get("data", {}).get(kind, "") for kind in ("text/markdown", "text/html"))
            assert not re.search(r"\bnan\b|\bNone\b|\bq = |np\.float", told), told


def table(n_rows: int) -> nodes.table:
    """A table with a head and ``n_rows`` rows that hold their number."""

    def row(text):
        return nodes.row("", nodes.entry("", nodes.paragraph("", text)))

    body = nodes.tbody("", *(row(str(k)) for k in range(n_rows)))
    return nodes.table("", nodes.tgroup("", nodes.thead("", row("head")), body, cols=1), ids=["a"])


def test_rows_beyond_the_eighth_are_folded_below_with_the_head_and_none_is_lost():
    page = nodes.section("", table(ROWS + 3))
    fold(page[0])
    seen, begin, rest, end = page
    assert [body.astext().split() for body in seen.findall(nodes.tbody)] == [[str(k) for k in range(ROWS)]]
    assert rest.astext().split() == ["head", "8", "9", "10"]
    assert (begin.astext(), end.astext()) == (
        '<details class="more-rows"><summary>3 more rows</summary>',
        "</details>",
    )
    assert rest["ids"] == []  # an id is once on a page
    short = nodes.section("", table(ROWS))
    fold(short[0])
    assert len(short) == 1


def test_results_of_the_paper_keep_their_numbers_and_ours_have_a_series_of_their_own():
    counted = {
        "a": {"proposition": {"paper-proposition-1": (1,), "ours": (2,)}, "figure": {"fig": (1,)}},
        "b": {"theorem": {"paper-theorem-1": (1,), "more": (2,)}, "proposition": {"next": (3,)}},
    }
    assert renumbered(counted) == {
        "a": {"proposition": {"paper-proposition-1": ("1",), "ours": ("A", 1)}, "figure": {"fig": (1,)}},
        "b": {"theorem": {"paper-theorem-1": ("1",), "more": ("A", 1)}, "proposition": {"next": ("A", 2)}},
    }


def test_one_setting_makes_every_link_to_the_repository():
    assert repository("", {}) == ""
    assert repository("", ACTION) == "https://github.com/Someone/a-fork"
    assert repository("https://github.com/own/book/", ACTION) == "https://github.com/own/book"
    assert site("https://github.com/Someone/a-fork") == "https://someone.github.io/a-fork/"
    options = theme_options("https://github.com/own/book")
    assert options["repository_url"] == "https://github.com/own/book"
    assert options["launch_buttons"]["binderhub_url"] == "https://mybinder.org"
    with pytest.raises(
        ConfigError, match=r"book_repository = 'own/book' is not allowed: https://github.com/OWNER/NAME"
    ):
        repository("own/book", {})


def test_the_social_card_has_the_size_that_sites_show_and_words_for_those_who_cannot_see_it():
    config = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]
    header = (ROOT / "book" / config["ogp_image"]).read_bytes()[:24]
    assert [int.from_bytes(header[k : k + 4]) for k in (16, 20)] == [1200, 630]
    assert config["ogp_image_alt"]


def test_the_book_as_one_page_has_the_writers_of_all_extensions(tmp_path):
    """sphinx-exercise registers its own by name for that builder, which hides those of sphinx-design."""
    from sphinx.application import Sphinx

    (tmp_path / "index.md").write_text(
        "# Title\n\n:::{exercise} One\n:label: one\nWhy?\n:::\n\n:::{dropdown} More\nThere.\n:::\n"
    )
    settings = {"extensions": ["myst_parser", "sphinx_design", "sphinx_exercise", "one_page"]}
    settings |= {"myst_enable_extensions": ["colon_fence"], "html_theme": "basic"}
    out = tmp_path / "out"
    Sphinx(tmp_path, None, out, out / "trees", "singlehtml", settings, status=None, warning=None).build()
    page = (out / "index.html").read_text()
    assert '<details class="sd-sphinx-override' in page
    assert "Exercise 1" in page
