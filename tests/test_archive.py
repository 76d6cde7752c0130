"""The archive of a project."""

import hashlib
import zipfile

import pytest

from iterative_retraining.archive import main, write_archive
from iterative_retraining.errors import RunError
from iterative_retraining.runs.publishing import publish


@pytest.fixture
def project(tmp_path, runs):
    folder = tmp_path / "project"
    publish(runs[:1], folder / "results")
    page = folder / "book" / "_build" / "html" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>a book</p>")
    (folder / "claims.yml").write_text("[]")
    cache = folder / "src" / "__pycache__" / "a.pyc"
    cache.parent.mkdir(parents=True)
    cache.write_text("left out")
    return folder


def test_it_holds_results_book_and_true_sums_and_is_the_same_file_again(project, tmp_path):
    one, other = tmp_path / "one.zip", tmp_path / "other.zip"
    n_files = write_archive(project, one)
    assert main([str(other), "--project", str(project)]) == 0
    assert one.read_bytes() == other.read_bytes()
    with zipfile.ZipFile(one) as archive:
        names = archive.namelist()
        sums = dict(line.split("  ")[::-1] for line in archive.read("SHA256SUMS").decode().splitlines())
        assert len(names) == n_files == len(sums) + 1
        assert all(hashlib.sha256(archive.read(name)).hexdigest() == digest for name, digest in sums.items())
    assert {"claims.yml", "book/_build/html/index.html", "results/ro-crate-metadata.json"} <= sums.keys()
    assert any(name.endswith("/ledger.jsonl") for name in names)
    assert not any("__pycache__" in name for name in names)


def test_what_is_missing_is_said_with_the_way_out(project, tmp_path):
    (project / "book" / "_build" / "html" / "index.html").unlink()
    with pytest.raises(RunError, match="build it first with `make published-book`"):
        write_archive(project, tmp_path / "a.zip")
    with pytest.raises(RunError, match="run this in the project's folder"):
        write_archive(tmp_path, tmp_path / "a.zip")
    with pytest.raises(RunError, match="its folder is not there"):
        main([str(tmp_path / "none" / "a.zip"), "--project", str(project)])
    assert not (tmp_path / "a.zip").exists()
