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
        ROOT / "book", folder / "book", symlinks=True, ignore=shutil.ignore_patterns("_build", "__pycache__", ".part-*")
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
    assert len(figures(chapter)) >= (1 if chapter.stem in ("claims", "index") else 2)  # these are tables
    text = chapter.read_text()
    assert not any(place in text for place in ("/home/", "/root/", "/tmp/", "/work/", "site-packages"))
    assert "papermill" not in nb.metadata


WIDTHS = (360, 768, 1440)  # a phone, a tablet, a desk
SLIDERS = ("index", "chapters/04_toy_densities")
# What sticks out of the screen, but for what scrolls inside something else or waits outside until it is called.
OUTSIDE = """
const wide = document.documentElement.clientWidth, told = (e) => e.outerHTML.slice(0, 120), clipped = (e) => {
  for (let p = e.parentElement; p && p !== document.body; p = p.parentElement)
    if (getComputedStyle(p).overflowX !== "visible") return true;
  return false;
};
const out = (e) => e.getBoundingClientRect().width && e.getBoundingClientRect().right > wide + 1;
const found = [...document.querySelectorAll("header *, main *")]
  .filter((e) => out(e) && !e.closest("[class*=bd-sidebar]") && !clipped(e)).map(told);
if (document.documentElement.scrollWidth > wide) found.push("the page itself");
return found.slice(0, 5)"""
# Every thing that scrolls sideways, and is not folded away, can be reached by the keyboard.
UNREACHED = """
return [...document.querySelectorAll("pre, div.math, .pst-scrollable-table-container")]
  .filter((e) => e.scrollWidth > e.clientWidth && e.tabIndex !== 0 && !e.closest("details:not([open])"))
  .map((e) => e.outerHTML.slice(0, 120))"""
AXE = """
const done = arguments[0], told = (v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 120)).slice(0, 3)}`;
axe.run({resultTypes: ["violations"]}).then((found) => done(found.violations.map(told)))"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Chromium without a window, which logs what it asks for."""
    if CHROMEDRIVER is None:
        pytest.skip("needs chromium and chromium-driver (Debian packages)")
    from selenium import webdriver

    options, profile = webdriver.ChromeOptions(), tmp_path_factory.mktemp("chromium")
    for flag in ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking",
                 "disable-component-update", "disable-sync", f"user-data-dir={profile}"):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


def open_page(driver, book: Path, page: str) -> None:
    """Loads a page, and waits until its mathematics is set."""
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get((book / "_build" / "html" / f"{page}.html").as_uri())
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.readyState") == "complete")
    if driver.execute_script("return document.querySelectorAll('.math').length"):
        ready = "const done = arguments[0]; MathJax.startup.promise.then(() => setTimeout(done, 50))"
        WebDriverWait(driver, 60).until(lambda d: d.execute_script("return Boolean(window.MathJax?.startup?.promise)"))
        driver.execute_async_script(ready)
        assert driver.execute_script("return document.querySelectorAll('mjx-container').length") > 0, page
        assert driver.execute_script("return document.querySelectorAll('mjx-merror').length") == 0, page


def resize(driver, width: int) -> None:
    """The screen of a device."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    frame = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"  # after what the page does on a resize
    driver.execute_async_script(frame)


def assert_sliders_work(driver, page: str) -> None:
    """Every slider over pictures shows one at a time, the first at first; by the keyboard it goes on and says where."""
    shown = "return [...arguments[0].querySelectorAll('img')].map(i => !i.hidden && i.offsetHeight > 0)"
    sliders = driver.find_elements("css selector", ".frames")
    assert bool(sliders) == (page in SLIDERS), page
    for slider in sliders:
        visible = driver.execute_script(shown, slider)
        assert visible == [True] + [False] * (len(visible) - 1), page
        control = slider.find_element("tag name", "input")
        for key, at in (("\ue014", 1), ("\ue010", -1)):  # the right arrow, the key "end"
            control.send_keys(key)
            value = slider.find_elements("tag name", "img")[at].get_attribute("data-at")
            assert slider.find_element("tag name", "output").text == value, page
            assert control.get_attribute("aria-valuetext") == value, page
        assert driver.execute_script(shown, slider) == visible[::-1], page


def test_pages_open_offline_with_mathematics_and_pictures_on_every_screen(book, driver):
    from yaml import safe_load

    wrong = []
    for page in pages(safe_load((book / "_toc.yml").read_text())):
        open_page(driver, book, page)
        for width in WIDTHS:
            resize(driver, width)
            wrong += [(page, width, told) for told in driver.execute_script(OUTSIDE)]
            wrong += [(page, width, told) for told in driver.execute_script(UNREACHED)]
        assert_sliders_work(driver, page)
        broken = "return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
        assert driver.execute_script(broken) == [], page
    assert wrong == []
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    errors = [e for e in driver.get_log("browser") if e["level"] == "SEVERE" and e["source"] != "console-api"]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any("mathjax" in url for url in requests)
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:", "chrome:"))] == []
    assert errors == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_wrong(book, driver, theme):
    """The front page, one of formulas, one of tables, and the bibliography, on a phone."""
    axe = pytest.importorskip("axe_core_python", reason="needs axe-core-python (extra `dev`)")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    resize(driver, 360)
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    wrong = []
    for page in ("index", "chapters/01_gaussian_warmup", "chapters/claims", "bibliography"):
        open_page(driver, book, page)
        driver.execute_script(script)
        wrong += [(page, told) for told in driver.execute_async_script(AXE)]
    assert wrong == []
