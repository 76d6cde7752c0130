"""The whole book as one PDF, by the print of Chromium: all pages with their figures and formulas.

python workflow/print_book.py book/_build/singlehtml/index.html book/_build/iterative-retraining.pdf
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WAIT_MS = 120_000  # of the page's own time, for its formulas


def print_book(page: Path, pdf: Path) -> None:
    """Prints ``page`` to ``pdf``. Raises ValueError without a page, a browser, or a PDF in the end."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise ValueError(f"no browser is installed; one of these is needed: {', '.join(BROWSERS)}")
    if not page.is_file():
        raise ValueError(f"there is no page {page}; jupyter-book build book --builder singlehtml makes it")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command = [browser, *flags, f"--virtual-time-budget={WAIT_MS}", f"--print-to-pdf={pdf}", page.resolve().as_uri()]
    pdf.unlink(missing_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not pdf.is_file():
        raise ValueError(f"{browser} has printed nothing: {done.stderr[-500:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="print_book.py", description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path, help="the book as one HTML page")
    parser.add_argument("pdf", type=Path, help="the file to write")
    given = parser.parse_args()
    try:
        print_book(given.page, given.pdf)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"{given.pdf}: {given.pdf.stat().st_size / 1e6:.1f} MB")
