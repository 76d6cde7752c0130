"""The real path on small data: zips and folders of a few PNGs in the format of FFHQ-64."""

import io
import multiprocessing
import os
import shutil
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from iterative_retraining import experiment
from iterative_retraining.datasets import ffhq64 as ffhq
from iterative_retraining.datasets import load_dataset, pngs
from iterative_retraining.errors import ConfigError, DataError, RunError
from iterative_retraining.experiment import open_experiment
from iterative_retraining.metrics.features import build_features, cached
from iterative_retraining.models import build_model, resolve_options
from iterative_retraining.models.networks.ddpmpp import UNetConfig
from iterative_retraining.runs.provenance import data_sha256, read_manifest
from iterative_retraining.training_set import TrainingSet

PUBLISHED = ffhq.N_IMAGES
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
# In the order of strings, which is not that of paths: "-" comes before "/".
NAMES = sorted(f"{'00000-b' if i % 3 else '00000'}/img{i:08d}.png" for i in range(12))


def png(array: np.ndarray, **settings) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG", **settings)
    return stream.getvalue()


CONTENT = {name: png(image, compress_level=0) for name, image in zip(NAMES, IMAGES, strict=True)}


def write_zip(path, content=CONTENT):
    """As EDM's tool writes one: not compressed, with a dataset.json; here the last name first."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in reversed(content):
            archive.writestr(name, content[name])
        archive.writestr("dataset.json", '{"labels": null}')
    return path


def write_folder(path, content=CONTENT):
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    (path / "dataset.json").write_text("{}")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, and twelve images instead of 70 000."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ffhq, "N_IMAGES", 12)
    return tmp_path / "cache" / "iterative-retraining"


def test_there_are_70000():
    assert PUBLISHED == 70_000


def test_a_zip_its_folder_and_the_folder_of_the_zip_give_the_same_images(tmp_path):
    (tmp_path / "alone").mkdir()
    places = [
        write_zip(tmp_path / "ffhq-64x64.zip"),
        write_folder(tmp_path / "folder"),
        write_zip(tmp_path / "alone" / "faces.zip").parent,
    ]
    for place in places:
        images, labels = load_dataset("ffhq64", str(place))
        assert (images.dtype, images.flags.writeable) == (np.uint8, False)
        np.testing.assert_array_equal(images, IMAGES)
        assert (labels.dtype, labels.tolist()) == (np.int64, [0] * 12)


def test_nothing_is_decoded_twice_wherever_the_files_lie(tmp_path, cache, monkeypatch):
    first, _ = load_dataset("ffhq64", write_zip(tmp_path / "a.zip"))
    load_dataset("ffhq64", write_folder(tmp_path / "a"))
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setattr(pngs, "_pixels", None)  # decoding would fail
    shutil.move(tmp_path / "a.zip", tmp_path / "b.zip")
    shutil.move(tmp_path / "a", tmp_path / "b")
    for place in (tmp_path / "b.zip", tmp_path / "b"):
        images, _ = load_dataset("ffhq64", place)
        assert isinstance(images, np.memmap)
        np.testing.assert_array_equal(images, first)


def test_other_images_under_the_same_names_are_decoded(tmp_path):
    other = CONTENT | {NAMES[3]: png(255 - IMAGES[3], compress_level=0)}  # of the same size in bytes
    assert len(other[NAMES[3]]) == len(CONTENT[NAMES[3]])
    load_dataset("ffhq64", write_zip(tmp_path / "a.zip"))
    np.testing.assert_array_equal(load_dataset("ffhq64", write_zip(tmp_path / "a.zip", other))[0][3], 255 - IMAGES[3])
    folder = write_folder(tmp_path / "a")
    before = (folder / NAMES[3]).stat().st_mtime_ns
    load_dataset("ffhq64", folder)
    (folder / NAMES[3]).write_bytes(other[NAMES[3]])
    os.utime(folder / NAMES[3], ns=(before, before + 1))
    np.testing.assert_array_equal(load_dataset("ffhq64", folder)[0][3], 255 - IMAGES[3])


def _load(place):
    return data_sha256(load_dataset("ffhq64", place)[0])


def test_four_processes_may_begin_at_once(tmp_path, cache):
    place = write_folder(tmp_path / "a")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert set(pool.map(_load, [place] * 8, chunksize=1)) == {data_sha256(IMAGES)}
    assert len(list(cache.iterdir())) == 1


def test_without_a_cache_images_are_read_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        images, _ = load_dataset("ffhq64", write_zip(tmp_path / "a.zip"))
    np.testing.assert_array_equal(images, IMAGES)


def without_png(path):
    path.mkdir()
    (path / "readme.txt").touch()
    return path


def two_zips(path):
    path.mkdir()
    write_zip(path / "b.zip")
    return write_zip(path / "a.zip").parent


def text(path):
    path.write_text("no zip")
    return path


GREY, SMALL = png(IMAGES[0, :, :, 0]), png(IMAGES[0, :32, :32])
JPEG = io.BytesIO()
Image.fromarray(IMAGES[0]).save(JPEG, format="JPEG")


def with_first(content: bytes) -> dict[str, bytes]:
    return CONTENT | {NAMES[0]: content}


BAD = [
    (lambda path: None, r"ffhq64 is looked for in data_dir, which is empty"),
    (lambda path: path / "elsewhere", r"ffhq64 is looked for in .*elsewhere, which is not there"),
    (without_png, r"which holds no PNG and no zip"),
    (two_zips, r"which holds no PNG and 2 zips: a\.zip, b\.zip"),
    (text, r"place is no zip, or a damaged one \(File is not a zip file\)"),
    (lambda path: write_zip(path, {"a.jpg": b""}), r"place holds 0 files \*\.png, ffhq64 has 12"),
    (lambda path: write_folder(path, {NAMES[0]: b""}), r"place holds 1 files \*\.png, ffhq64 has 12"),
    (
        lambda path: write_zip(path, with_first(GREY)),
        r"00000-b/img00000001.png in .* it is L 64 x 64, should be RGB 64",
    ),
    (lambda path: write_folder(path, with_first(SMALL)), r"it is RGB 32 x 32, should be RGB 64 x 64"),
    (
        lambda path: write_zip(path, with_first(CONTENT[NAMES[0]][:9000])),
        r"00000-b/img00000001.png in .* cannot be used",
    ),
    (lambda path: write_folder(path, with_first(b"")), r"cannot be used: it is no PNG"),
    (lambda path: write_folder(path, with_first(JPEG.getvalue())), r"cannot be used: it is no PNG"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_files_are_one_clear_error_before_a_run_begins(tmp_path, make, message, cache, monkeypatch):
    monkeypatch.setattr(experiment, "build_features", lambda *given, **settings: Means())
    place = make(tmp_path / "place")
    arguments = {"dataset": "ffhq64", "data_dir": place and str(place), "n_retrain": 0, "run_dir": tmp_path / "run"}
    with pytest.raises(ConfigError, match=message + r".*; set data_dir to .*https://github\.com/NVlabs/ffhq-dataset"):
        open_experiment(**arguments)
    assert not cache.exists()
    assert not (tmp_path / "run").exists()


REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)


@REUSED
@given(st.integers(0, len(CONTENT[NAMES[0]]) - 5), st.integers(1, 255))
def test_no_changed_byte_of_a_png_goes_unseen(tmp_path, where, flips):
    """In a folder, where no checksum of a zip watches, the PNG's own do; that of its empty end guards nothing."""
    damaged = bytearray(CONTENT[NAMES[0]])
    damaged[where] ^= flips
    folder = write_folder(tmp_path / "folder", with_first(bytes(damaged)))
    with pytest.raises(DataError, match=r"img00000001\.png in .* cannot be used"):
        load_dataset("ffhq64", folder)


@REUSED
@given(st.data())
def test_a_changed_byte_of_a_zip_is_refused_or_does_not_matter(tmp_path, data):
    whole = write_zip(tmp_path / "a.zip").read_bytes()
    directory = data.draw(st.booleans())  # where the bytes mean most
    where = data.draw(st.integers(whole.index(b"PK\x01\x02") if directory else 0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[where] ^= data.draw(st.integers(1, 255))
    (tmp_path / "b.zip").write_bytes(damaged)
    try:
        images, _ = load_dataset("ffhq64", tmp_path / "b.zip")
    except DataError:
        return
    np.testing.assert_array_equal(np.sort(images, axis=0), np.sort(IMAGES, axis=0))  # a name may have changed


class Means:
    """A feature space that anything fits: the mean colours of the quarters."""

    name = "means"

    def __call__(self, images):
        return images.reshape(len(images), 2, 32, 2, 32, 3).mean(axis=(2, 4)).reshape(len(images), -1).astype("f4")


TINY = {"channels": 4, "multipliers": [1, 1, 1, 1], "blocks_per_level": 1, "attention_resolutions": [], "n_steps": 2}
RUN = {"dataset": "ffhq64", "n_images_initial": 24, "n_images_per_retraining": 12, "model_options": TINY}


def test_a_run_takes_memory_mapped_images_and_refuses_others_later(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "build_features", lambda *given, **settings: Means())
    place, run = write_zip(tmp_path / "a.zip"), tmp_path / "run"
    opened = open_experiment(**RUN, n_retrain=1, data_dir=str(place), run_dir=run)
    assert isinstance(opened.real, np.memmap)
    assert [record.n_images for record in opened.records()] == [24, 12]
    assert read_manifest(run)["real_sha256"] == data_sha256(IMAGES)
    opened.run.close()
    write_zip(place, with_first(png(255 - IMAGES[0])))
    with pytest.raises(RunError, match=r"run was begun with other real images .*; set data_dir as before"):
        open_experiment(**RUN, n_retrain=2, data_dir=str(place), run_dir=run)


def test_mapped_images_are_trained_on_and_measured_as_others_are(tmp_path, monkeypatch):
    mapped, _ = load_dataset("ffhq64", write_zip(tmp_path / "a.zip"))
    data, index = TrainingSet.of(mapped), np.array([5, 0, 11])
    np.testing.assert_array_equal(data[index], IMAGES[index])
    np.testing.assert_array_equal(cached(Means(), mapped), Means()(IMAGES))
    options = resolve_options("edm", "ffhq64", TINY)
    states = []
    for images in (mapped, IMAGES):
        model = build_model("edm", (64, 64, 3), options, n_images_initial=12, n_images_per_retraining=0)
        states.append(model.fit(TrainingSet.of(images), seed=0).state_dict())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_published_spaces_take_mapped_images(tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 224, "patch_size": 14}
    torch.manual_seed(0)
    transformers.Dinov2Model(transformers.Dinov2Config(**small)).save_pretrained(tmp_path / "dino")
    mapped, _ = load_dataset("ffhq64", write_zip(tmp_path / "a.zip"))
    space = build_features("dinov2", "ffhq64", weights=tmp_path / "dino")
    np.testing.assert_array_equal(space(mapped), space(IMAGES))


@pytest.mark.parametrize("dataset", ["cifar10", "ffhq64"])
def test_colour_images_need_weights_which_is_said_before_anything_is_read(tmp_path, dataset):
    with pytest.raises(ConfigError, match=r"Inception weights .* are missing: .* set features_weights"):
        open_experiment(dataset=dataset, n_retrain=1, run_dir=tmp_path / "run")


def test_the_options_are_those_of_the_published_network():
    edm = resolve_options("edm", "ffhq64", {})
    network = UNetConfig(resolution=64, multipliers=(1, 2, 2, 2), dropout=0.05)
    assert build_model("edm", (64, 64, 3), edm, n_images_initial=0, n_images_per_retraining=0).config.network == network
    assert (edm["n_steps"], edm["learning_rate"], edm["ema_halflife_images"]) == (40, 2e-4, 500_000)
    assert resolve_options("edm", "cifar10", {})["n_steps"] == 18
    for model, n_steps in (("flow_matching", 8), ("ddpm", 100)):
        assert resolve_options(model, "ffhq64", {})["n_steps"] == n_steps
    assert "n_steps" not in resolve_options("spline_flow", "ffhq64", {})
