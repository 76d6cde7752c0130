"""One file for an archive: results, claims, profiles, the built book, and the SHA-256 of everything.

python -m iterative_retraining.archive iterative-retraining.zip

Equal contents give an equal file: the entries are sorted and have no times. Check it with ``sha256sum -c SHA256SUMS``.
"""

import argparse
import hashlib
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from iterative_retraining.errors import RunError, UserError
from iterative_retraining.runs.publishing import CRATE

FILES = ("README.md", "CITATION.cff", "LICENSE", "claims.yml", "environment.yml", "requirements.lock", "pyproject.toml")
FOLDERS = ("results", "profiles", "notebooks", "src", "workflow")
BOOK = Path("book") / "_build" / "html"
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints", ".egg-info")
EPOCH = (1980, 1, 1, 0, 0, 0)


def members(project: Path) -> list[Path]:
    """What an archive of the project holds, relative to it, sorted. Raises RunError without results or a built book."""
    if not (project / "results" / CRATE).is_file():
        raise RunError(f"{project} has no results/{CRATE}: run this in the project's folder, after `make publish`")
    if not (project / BOOK / "index.html").is_file():
        raise RunError(f"{project / BOOK} holds no book: build it first with `make published-book`")
    files = [project / name for name in FILES if (project / name).is_file()]
    for folder in (*(project / name for name in FOLDERS), project / BOOK):
        files += [path for path in folder.rglob("*") if path.is_file()]
    kept = (path.relative_to(project) for path in files)
    return sorted(path for path in kept if not any(part.endswith(LEFT_OUT) for part in path.parts))


def write_archive(project: Path, target: Path) -> int:
    """Writes the archive, whole or not at all, and returns the number of files in it, SHA256SUMS included."""
    names = members(project)
    part = target.with_name(target.name + ".part")
    sums = []
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            content = (project / name).read_bytes()
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name.as_posix()}\n")
            archive.writestr(_entry(name.as_posix()), content)
        archive.writestr(_entry("SHA256SUMS"), "".join(sums))
    part.replace(target)
    return len(names) + 1


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    doc = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m iterative_retraining.archive", description=__doc__, formatter_class=doc
    )
    parser.add_argument("target", type=Path, help="the file to write, such as iterative-retraining.zip")
    parser.add_argument("--project", type=Path, default=Path(), help="the project's folder (.)")
    given = parser.parse_args(arguments)
    if not given.target.absolute().parent.is_dir():
        raise RunError(f"{given.target}: its folder is not there; make it, or choose another file")
    n_files = write_archive(given.project, given.target)
    print(f"{given.target}: {n_files} files, {given.target.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
