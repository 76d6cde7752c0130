"""What a file seems to be, by its bytes: said where it is not what was wanted; nothing of it is executed."""

import json
import zipfile
from pathlib import Path

HEAD = 4096  # bytes that are looked at
UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".incomplete", ".filepart", ".aria2", ".tmp")
INTERRUPTED = "as an interrupted download leaves"
MAGIC = {
    b"version https://git-lfs": "a git-lfs pointer, not the file itself; `git lfs pull` fetches that",
    b"\x1f\x8b": "a gzip file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "an array of NumPy",
    b"\x89HDF": "an HDF5 file, such as Keras writes",
}
PAGES = {"<!doctype html": "an HTML page", "<html": "an HTML page", "<?xml": "an XML page", "{": "JSON text"}


def seems_to_be(path: str | Path) -> str:
    """What a file seems to be, in words: "a zip whose end is missing, as an interrupted download leaves"."""
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD)
            file.seek(max(0, size - 1))
            last = file.read(1)
    except OSError as error:
        return f"a file that cannot be read ({error.strerror})"
    if not head:
        return f"an empty file, {INTERRUPTED}"
    if not head.strip(b"\0"):
        return f"a file that begins with zeros, {INTERRUPTED}"
    found = next((words for begin, words in MAGIC.items() if head.startswith(begin)), "")
    if found:
        return found
    if head.startswith(b"PK\x03\x04"):
        return _zip(path)
    if head[257:262] == b"ustar":
        return "a tar archive"
    if head[0] == 0x80 and head[1] in range(2, 6):  # the head of a pickle, its protocol; its last byte is a full stop
        return "a pickle" if last == b"." else f"a pickle whose end is missing, {INTERRUPTED}"
    return _safetensors(head, path, size) or _text(head) or f"{size} bytes of no kind that is known here"


def _zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return f"a zip whose end is missing, {INTERRUPTED}"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "a file of torch.save, or of TorchScript"
    n_images = sum(name.lower().endswith((".png", ".jpg", ".jpeg")) for name in names)
    return f"a zip of {n_images} images" if n_images else f"a zip of {len(names)} files"


def _safetensors(head: bytes, path: Path, size: int) -> str:
    """Words for a safetensors file: the length of its head, 8 bytes, then that head as JSON; "" for another file."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] != b"{" or length > 100_000_000:
        return ""
    with path.open("rb") as file:
        content = file.read(8 + length)[8:]
    try:
        ends = [one["data_offsets"][1] for name, one in json.loads(content).items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0) <= size
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        whole = False
    return "a safetensors file" if whole else f"a safetensors file whose end is missing, {INTERRUPTED}"


def _text(head: bytes) -> str:
    """Words for what begins as text does; "" for what does not."""
    try:
        text = head[:200].decode("ascii").strip()
    except UnicodeDecodeError:
        return ""
    page = next((words for begin, words in PAGES.items() if text.lower().startswith(begin)), "")
    if page:
        return f"{page}, such as a server sends in place of a file"
    return f"text that begins {text[:40]!r}" if text.isprintable() or "\n" in text else ""


def unfinished(path: str | Path) -> str:
    """Words for an error message if a download of ``path`` lies beside it unfinished; "" if none does."""
    path = Path(path)
    try:
        beside = sorted(file.name for file in path.parent.iterdir() if file.name.startswith(path.name))
    except OSError:
        return ""
    part = next((name for name in beside if name.endswith(UNFINISHED)), None)
    return f"; {part} lies beside it: that download was not finished" if part else ""
