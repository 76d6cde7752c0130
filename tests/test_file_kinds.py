"""What files seem to be, each written here by what writes it."""

import gzip
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save

from iterative_retraining.file_kinds import INTERRUPTED, UNFINISHED, seems_to_be, unfinished


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return stream.getvalue()


def torch_saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def image(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, format=kind)
    return stream.getvalue()


TENSORS = save({"weight": np.zeros(100, np.float32), "bias": np.zeros(3, np.float32)}, {"format": "pt"})
ARRAY = io.BytesIO()
np.save(ARRAY, np.zeros(3))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 223000000\n"
KINDS = [
    (b"", f"an empty file, {INTERRUPTED}"),
    (bytes(9000), f"a file that begins with zeros, {INTERRUPTED}"),
    (POINTER, "a git-lfs pointer, not the file itself; `git lfs pull` fetches that"),
    (b"\n<!DOCTYPE html>\n<html><p>Not found", "an HTML page, such as a server sends in place of a file"),
    (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "an XML page, such as a server sends"),
    (b'{"error": "quota exceeded"}', "JSON text, such as a server sends"),
    (b"Repository not found\n", "text that begins 'Repository not found'"),
    (gzip.compress(b"x", mtime=0), "a gzip file"),
    (tarred(), "a tar archive"),
    (image("PNG"), "a PNG image"),
    (image("JPEG"), "a JPEG image"),
    (ARRAY.getvalue(), "an array of NumPy"),
    (zipped(a_png=b"", b_png=b"", dataset_json=b""), "a zip of 2 images"),
    (zipped(a_txt=b""), "a zip of 1 files"),
    (zipped(a_png=bytes(500))[:300], f"a zip whose end is missing, {INTERRUPTED}"),
    (torch_saved({"weight": torch.zeros(3)}), "a file of torch.save"),
    (torch_saved({"weight": torch.zeros(300)})[:-400], f"a zip whose end is missing, {INTERRUPTED}"),
    (pickle.dumps({"ema": 3}), "a pickle"),
    (pickle.dumps({"ema": "x" * 50})[:-20], f"a pickle whose end is missing, {INTERRUPTED}"),
    (TENSORS, "a safetensors file"),
    (TENSORS[:-5], f"a safetensors file whose end is missing, {INTERRUPTED}"),
    (TENSORS[:60], f"a safetensors file whose end is missing, {INTERRUPTED}"),
    (b"\xff\xfe\xfd" * 10, "30 bytes of no kind that is known here"),
]


@pytest.mark.parametrize(("content", "words"), KINDS, ids=[words for _, words in KINDS])
def test_a_file_is_what_wrote_it(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    found = seems_to_be(tmp_path / "file")
    assert found.startswith(words)
    assert "missing" in words or "missing" not in found


def test_a_file_that_is_not_there_is_words_too(tmp_path):
    assert seems_to_be(tmp_path / "nothing") == "a file that cannot be read (No such file or directory)"


@pytest.mark.parametrize("end", UNFINISHED)
def test_an_unfinished_download_beside_a_file_is_found(tmp_path, end):
    assert unfinished(tmp_path / "no folder" / "weights.pkl") == unfinished(tmp_path / "weights.pkl") == ""
    (tmp_path / f"weights.pkl{end}").touch()
    expected = f"; weights.pkl{end} lies beside it: that download was not finished"
    assert unfinished(tmp_path / "weights.pkl") == expected
    assert unfinished(tmp_path / "other.pkl") == ""
