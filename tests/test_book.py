"""The published book: builds without warnings, is whole, and opens in a browser without a network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from check_book import figures, missing, pages
from conftest import ROOT

CHROMEDRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The committed book, built as typed, in a copy without anything else of the project but its two settings."""
    folder = tmp_path_factory.mktemp("published")
    shutil.copytree(
        ROOT / "book", folder / "book", symlinks=True, ignore=shutil.ignore_patterns("_build", "__pycache__")
    )
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder / name)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", "book", "-n", "-W"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "book"


def test_settings_in_the_book_are_links_to_those_at_the_top():
    for name in ("_config.yml", "_toc.yml"):
        assert os.readlink(ROOT / "book" / name) == f"../{name}"


def test_every_page_and_figure_is_there(book):
    assert missing(book) == []


def test_the_check_of_the_book_can_fail(book, tmp_path):
    broken = tmp_path / "book"
    shutil.copytree(book, broken)
    (broken / "_build" / "html" / "setting.html").unlink()
    chapter = broken / "_build" / "html" / "chapters" / "05_images.html"
    chapter.write_text(chapter.read_text().replace('id="fig-quality"', 'id="other"'))
    assert set(missing(broken)) == {
        "chapters/05_images: figure fig-quality has no image with alt text",
        "page setting was not built",
    }


def test_a_figure_that_a_chapter_may_have_counts_if_it_was_drawn(tmp_path):
    cell = nbformat.v4.new_code_cell("figure")
    cell.metadata = {"mystnb": {"figure": {"name": "fig-a"}}}
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    assert figures(tmp_path / "page.ipynb") == ["fig-a"]
    cell.metadata["tags"] = ["if-run"]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    assert figures(tmp_path / "page.ipynb") == []
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "..."})]
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "page.ipynb")
    assert figures(tmp_path / "page.ipynb") == ["fig-a"]


@pytest.mark.parametrize("chapter", sorted((ROOT / "book" / "chapters").glob("*.ipynb")), ids=lambda p: p.stem)
def test_committed_chapters_are_executed_and_tell_no_paths(chapter):
    nb = nbformat.read(chapter, as_version=4)
    source = nbformat.read(ROOT / "notebooks" / chapter.name, as_version=4)
    own = [c.source for c in nb.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    assert own == [c.source for c in source.cells], (
        "the published page is older than its notebook: make publish PROFILE=cpu"
    )
    assert all(c.execution_count for c in nb.cells if c.cell_type == "code")
    assert len(figures(chapter)) >= (1 if chapter.stem == "claims" else 2)  # that page is tables
    text = chapter.read_text()
    assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "/work/", "site-packages"))
    assert "papermill" not in nb.metadata


def assert_sliders_work(driver, page: str) -> None:
    """Every slider over pictures shows one at a time, the first at first, and the last when moved to its end."""
    shown = "return [...arguments[0].querySelectorAll('img')].map(i => !i.hidden && i.offsetHeight > 0)"
    sliders = driver.find_elements("css selector", ".frames")
    assert len(sliders) == (page == "chapters/04_toy_densities")
    for slider in sliders:
        visible = driver.execute_script(shown, slider)
        assert visible == [True] + [False] * (len(visible) - 1), page
        move = "const r = arguments[0].querySelector('input'); r.value = r.max; r.dispatchEvent(new Event('input'))"
        driver.execute_script(move, slider)
        assert driver.execute_script(shown, slider) == visible[::-1], page
        last = slider.find_elements("tag name", "img")[-1].get_attribute("data-at")
        assert slider.find_element("tag name", "output").text == last, page


@pytest.mark.skipif(CHROMEDRIVER is None, reason="needs chromium and chromium-driver (Debian packages)")
def test_pages_open_offline_with_mathematics_and_pictures(book, tmp_path):
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait
    from yaml import safe_load

    options = webdriver.ChromeOptions()
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", f"user-data-dir={tmp_path}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    try:
        for page in pages(safe_load((book / "_toc.yml").read_text())):
            driver.get((book / "_build" / "html" / f"{page}.html").as_uri())
            WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.readyState") == "complete")
            if driver.execute_script("return document.querySelectorAll('.math').length"):
                WebDriverWait(driver, 60).until(
                    lambda d: d.execute_script("return document.querySelectorAll('mjx-container').length") > 0
                )
                assert driver.execute_script("return document.querySelectorAll('mjx-merror').length") == 0, page
            assert_sliders_work(driver, page)
            broken = "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
            assert driver.execute_script(broken) == [], page
        messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        errors = [
            entry
            for entry in driver.get_log("browser")
            if entry["level"] == "SEVERE" and entry["source"] != "console-api"
        ]
    finally:
        driver.quit()
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any("mathjax" in url for url in requests)
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:", "chrome:"))] == []
    assert errors == []
