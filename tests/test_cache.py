import numpy as np
import pytest

from iterative_retraining.cache import cache_folder, cached_array

ARRAY = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)


class Making:
    """Makes the array, and counts."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1
        return ARRAY


def test_an_array_is_made_once_and_then_mapped(tmp_path):
    make = Making()
    for _ in range(3):
        found = cached_array("name", make, n=6, dtype=np.uint8, folder=tmp_path / "new")
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable
        np.testing.assert_array_equal(found, ARRAY)
    assert make.times == 1
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["name.npy"]


def test_a_file_that_is_cut_or_changed_anywhere_is_made_again(tmp_path):
    file = tmp_path / "name.npy"
    cached_array("name", Making(), n=6, dtype=np.uint8, folder=tmp_path)
    whole = file.read_bytes()
    flipped = [whole[:n] + bytes([whole[n] ^ 1 << n % 8]) + whole[n + 1 :] for n in range(len(whole))]
    cut = [whole[:n] for n in range(0, len(whole), 9)]
    for damaged in [*cut, *flipped, whole + b"x", b"x" * len(whole), whole[:3] * 40, b""]:
        file.write_bytes(damaged)
        make = Making()
        np.testing.assert_array_equal(cached_array("name", make, n=6, dtype=np.uint8, folder=tmp_path), ARRAY)
        assert make.times == 1
        assert file.read_bytes() == whole


@pytest.mark.parametrize("other", [ARRAY[:5], ARRAY.astype(np.float32), np.array(3, dtype=np.uint8)])
def test_another_array_is_made_again(tmp_path, other):
    cached_array("name", lambda: other, n=len(np.atleast_1d(other)), dtype=other.dtype, folder=tmp_path)
    np.testing.assert_array_equal(cached_array("name", Making(), n=6, dtype=np.uint8, folder=tmp_path), ARRAY)


def test_where_nothing_can_be_written_the_array_stays_in_memory_and_a_warning_says_so(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(RuntimeWarning, match=r"file/name\.npy cannot be written .*XDG_CACHE_HOME"):
        found = cached_array("name", Making(), n=6, dtype=np.uint8, folder=tmp_path / "file")
    np.testing.assert_array_equal(found, ARRAY)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(file, array, **settings):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        cached_array("name", Making(), n=6, dtype=np.uint8, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_making_is_no_matter_of_the_cache(tmp_path):
    def fail():
        raise FileNotFoundError("the source")

    with pytest.raises(FileNotFoundError, match="the source"):
        cached_array("name", fail, n=6, dtype=np.uint8, folder=tmp_path)


def test_the_folder_is_where_caches_are(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "iterative-retraining"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "iterative-retraining"
