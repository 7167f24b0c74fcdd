"""Original images: found by id, checked by digest, and shown as exactly the pixels that were explained."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from batchcam.errors import ConfigError
from batchcam.pictures.originals import Original, State, open_originals
from batchcam.store.opening import open_run
from batchcam.store.run import Run, Sample

Y, X = np.mgrid[0:40, 0:60]
PIXELS = np.stack([X * 4, Y * 6, (X + Y) * 2], 2).clip(0, 255).astype(np.uint8)
PIXELS[:10, :20] = (250, 20, 30)
RGB = Image.fromarray(PIXELS)
ALPHA = (X * 4).clip(0, 255).astype(np.uint8)
RGBA = Image.fromarray(np.dstack([PIXELS, ALPHA]))
GREY_16 = Image.fromarray((X * 1000 + Y * 37).astype(np.uint16))
PALETTE = RGB.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)


def stored(image: Image.Image, kind: str, orientation: int | None = None, **options: object) -> bytes:
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def sixteen_bits(pixels: np.ndarray, kind: str) -> bytes:
    deep = pixels.astype(np.uint16) * 256 + 200
    return bytes(cv2.imencode(kind, deep[..., [2, 1, 0, *range(3, deep.shape[2])]])[1])


STORED = {
    "colour PNG": stored(RGB, "PNG"),
    "colour JPEG": stored(RGB, "JPEG", quality=75),
    "grey JPEG": stored(RGB.convert("L"), "JPEG"),
    "grey PNG": stored(RGB.convert("L"), "PNG"),
    "grey PNG with a transparent level": stored(RGB.convert("L"), "PNG", transparency=96),
    "LAB TIFF": stored(Image.frombytes("LAB", RGB.size, PIXELS.tobytes()), "TIFF"),
    "bits PNG": stored(RGB.convert("1"), "PNG"),
    "alpha PNG": stored(RGBA, "PNG"),
    "alpha PNG turned": stored(RGBA, "PNG", orientation=6),
    "alpha TIFF": stored(RGBA, "TIFF"),
    "grey with alpha PNG": stored(RGBA.convert("LA"), "PNG"),
    "palette PNG": stored(PALETTE, "PNG"),
    "palette with a transparent colour": stored(PALETTE, "PNG", transparency=0),
    "palette with transparencies": stored(PALETTE, "PNG", transparency=bytes(range(0, 256, 16))),
    "transparent colour": stored(RGB, "PNG", transparency=(250, 20, 30)),
    "16-bit grey PNG": stored(GREY_16, "PNG"),
    "16-bit grey TIFF": stored(GREY_16, "TIFF"),
    "16-bit colour PNG": sixteen_bits(PIXELS, ".png"),
    # OpenCV does not say that the fourth channel is alpha
    "16-bit opaque TIFF": sixteen_bits(np.dstack([PIXELS, np.full_like(ALPHA, 255)]), ".tiff"),
    "16-bit alpha PNG": sixteen_bits(np.asarray(RGBA), ".png"),
    "CMYK JPEG": stored(RGB.convert("CMYK"), "JPEG", quality=95),
    "CMYK TIFF": stored(RGB.convert("CMYK"), "TIFF"),
    "turned TIFF": stored(RGB, "TIFF", tiffinfo={274: 6}),
    "animated GIF": stored(RGB, "GIF", save_all=True, append_images=[RGB.rotate(180)]),
    "transparent GIF": stored(PALETTE, "GIF", transparency=3),
    "BMP": stored(RGB, "BMP"),
}
if features.check("avif"):
    STORED["turned AVIF"] = stored(RGB, "AVIF", 6, quality=95)
if features.check("webp"):
    STORED["alpha WebP"] = stored(RGBA, "WEBP", lossless=True)
    STORED["alpha WebP turned"] = stored(RGBA, "WEBP", orientation=5, lossless=True)


@pytest.fixture
def run(sound_run: Path) -> Iterator[Run]:
    with open_run(sound_run) as opened:
        yield opened


def sample_of(run: Run, sample_id: str, content: bytes, size: tuple[int, int] = (40, 60)) -> Sample:
    """Return a sample of the run as if it had been made from an image file with this content."""
    digest = hashlib.sha256(content).hexdigest()
    return dataclasses.replace(run[0], id=sample_id, input_sha256=digest, image_size=size)


def put(path: Path, content: bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def read_one(run: Run, data: Path | str, sample: Sample) -> Original:
    return open_originals(run, str(data)).read(sample)


def test_an_original_is_found_by_its_id_in_the_folder(run: Run, tmp_path: Path) -> None:
    content = put(tmp_path / "고양이" / "é 1.png", STORED["colour PNG"])
    original = read_one(run, tmp_path, sample_of(run, "고양이/é 1.png", content))
    assert original.state is State.FOUND
    np.testing.assert_array_equal(original.image, PIXELS)


@pytest.mark.parametrize("name", STORED)
def test_an_original_is_shown_as_exactly_the_pixels_that_were_explained(run: Run, tmp_path: Path, name: str) -> None:
    folder = pytest.importorskip("batchcam.data.folder")
    content = put(tmp_path / "class" / "a.png", STORED[name])
    explained = np.asarray(folder.open_folder("data", str(tmp_path)).read(0).image)
    original = read_one(run, tmp_path, sample_of(run, "class/a.png", content, explained.shape[:2]))
    assert (original.state, original.reason) == (State.FOUND, "")
    np.testing.assert_array_equal(original.image, explained)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_original_is_turned_upright_by_its_exif_orientation(run: Run, tmp_path: Path, orientation: int) -> None:
    content = put(tmp_path / "a.png", stored(RGB, "PNG", orientation))
    with Image.open(io.BytesIO(content)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    found = read_one(run, tmp_path, sample_of(run, "a.png", content, expected.shape[:2]))
    np.testing.assert_array_equal(found.image, expected)


def test_an_original_of_more_pixels_than_the_worker_takes_is_not_decoded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = put(tmp_path / "a.png", STORED["colour PNG"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 - 1)
    original = read_one(run, tmp_path, sample_of(run, "a.png", content))
    assert (original.state, original.image) == (State.UNREADABLE, None)
    assert original.reason == "more than 2399 pixels: could be a decompression bomb"


def test_an_original_whose_digest_differs_is_changed_and_not_handed_out(run: Run, tmp_path: Path) -> None:
    put(tmp_path / "a.png", STORED["grey PNG"])
    original = read_one(run, tmp_path, sample_of(run, "a.png", STORED["colour PNG"]))
    assert (original.state, original.image) == (State.CHANGED, None)
    assert "SHA-256 differs" in original.reason


def test_an_original_that_is_gone_is_missing_with_the_reason(run: Run, tmp_path: Path) -> None:
    original = read_one(run, tmp_path, sample_of(run, "gone.png", b""))
    assert (original.state, original.reason) == (State.MISSING, "No such file or directory")


def test_an_original_that_is_read_in_another_size_is_not_shown(run: Run, tmp_path: Path) -> None:
    content = put(tmp_path / "a.png", STORED["colour PNG"])
    original = read_one(run, tmp_path, sample_of(run, "a.png", content, (60, 40)))
    assert (original.state, original.image) == (State.UNREADABLE, None)
    assert original.reason == "it is read as 40×60, explained as 60×40"


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", b"no image", STORED["alpha PNG"][:60], bytes(1000)])
def test_the_right_bytes_that_are_no_image_are_unreadable(
    run: Run, tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "a.png", content)
    original = read_one(run, tmp_path, sample_of(run, "a.png", content))
    assert (original.state, original.image) == (State.UNREADABLE, None)
    assert original.reason
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sample_id", ["../secret.png", "a/../../secret.png", "..", "a\0b", "{outside}"])
def test_an_id_never_leads_out_of_the_folder(run: Run, tmp_path: Path, sample_id: str) -> None:
    content = put(tmp_path / "secret.png", STORED["colour PNG"])
    (tmp_path / "data" / "a").mkdir(parents=True)
    sample = sample_of(run, sample_id.format(outside=tmp_path / "secret.png"), content)
    original = read_one(run, tmp_path / "data", sample)
    assert (original.state, original.reason) == (State.MISSING, "its id is no path in the folder")


def test_neither_a_folder_nor_a_pipe_is_waited_for(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        assert read_one(run, tmp_path, sample_of(run, name, b"")).state is State.MISSING


def test_a_file_name_that_is_not_utf_8_is_found_by_its_escaped_id(run: Run, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    try:
        with open(name, "wb") as file:
            file.write(STORED["colour PNG"])
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_one(run, tmp_path, sample_of(run, "caf\\xe9.png", STORED["colour PNG"])).state is State.FOUND


def test_a_csv_manifest_says_where_each_id_lies(run: Run, tmp_path: Path) -> None:
    content = put(tmp_path / "images" / "x.png", STORED["colour PNG"])
    put(tmp_path / "lists" / "named.csv", '\ufeffLabel, ID ,path\ncat,first,"../images/x.png"\n\n'.encode())
    put(tmp_path / "lists" / "plain.csv", b"path\n../images/x.png\n")
    for file, sample_id in (("named.csv", "first"), ("plain.csv", "../images/x.png")):
        assert read_one(run, tmp_path / "lists" / file, sample_of(run, sample_id, content)).state is State.FOUND
    absent = read_one(run, tmp_path / "lists" / "plain.csv", sample_of(run, "first", content))
    assert (absent.state, absent.reason) == (State.MISSING, "the manifest does not name it")


@pytest.mark.parametrize("content", [b"", b"file,label\na,b\n", b"path,id\nonly one\n", b"path\n\xff\n"])
def test_a_csv_file_that_is_no_manifest_is_refused(run: Run, tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "x.csv", content)
    with pytest.raises(ConfigError, match=r"x\.csv: (not a manifest|neither UTF-8)"):
        open_originals(run, str(tmp_path / "x.csv"))


def test_stl10_images_are_read_from_its_binary_file_and_match_the_workers_digest(run: Run, tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    # stored column by column: (channel, width, height)
    put(tmp_path / "stl10_binary" / "test_X.bin", images.transpose(0, 3, 2, 1).tobytes())
    for number in range(3):
        sample = sample_of(run, f"test/{number:05d}", images[number].tobytes(), (96, 96))
        original = read_one(run, f"stl10:{tmp_path}:test", sample)
        assert original.state is State.FOUND
        np.testing.assert_array_equal(original.image, images[number])
    for sample_id, reason in (("test/00003", "ends before"), ("train/00000", "No such file"), ("x/../1", "none of")):
        original = read_one(run, f"stl10:{tmp_path}:test", sample_of(run, sample_id, b""))
        assert original.state is State.MISSING
        assert reason in original.reason


def test_a_place_that_is_not_there_is_refused_when_it_was_named(run: Run, tmp_path: Path) -> None:
    for place in (tmp_path / "gone", f"stl10:{tmp_path}", __file__):
        with pytest.raises(ConfigError, match=r"no such folder, tar, zip, manifest, wds:, hf:, stl10:ROOT"):
            open_originals(run, str(place))


def test_the_runs_own_dataset_is_searched_when_none_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sample = sample_of(run, "a.png", STORED["colour PNG"])
    absent = open_originals(run, None)
    assert (absent.where, absent.read(sample).reason) == (None, "photos: not there; give --data")
    put(tmp_path / "photos" / "a.png", STORED["colour PNG"])  # the origin of every synthetic run
    present = open_originals(run, None)
    assert (present.where, present.read(sample).state) == ("photos", State.FOUND)


def test_the_recorded_folder_goes_before_what_has_the_same_name_here(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "job" / "photos" / "a.png", STORED["colour PNG"])
    put(tmp_path / "here" / "photos" / "a.png", b"another image")
    put(tmp_path / "here" / "t.csv", b"no manifest")
    put(tmp_path / "job" / "t.csv", b"path\nphotos/a.png\n")
    monkeypatch.chdir(tmp_path / "here")
    sample = sample_of(run, "a.png", STORED["colour PNG"])
    for data, sample_id in (("photos", "a.png"), ("t.csv", "photos/a.png")):
        monkeypatch.setattr(
            "batchcam.pictures.originals.named_dataset", lambda run, data=data: (data, str(tmp_path / "job"))
        )
        assert open_originals(run, None).read(dataclasses.replace(sample, id=sample_id)).state is State.FOUND


def test_a_file_of_the_datasets_name_that_is_no_manifest_is_a_place_without_images(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "t.csv", b"no manifest")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("batchcam.pictures.originals.named_dataset", lambda run: ("t.csv", "/gone"))
    assert open_originals(run, None).read(run[0]).state is State.MISSING


@pytest.mark.parametrize("data", ["photos", "stl10:photos", "stl10:photos:test"])
def test_the_runs_own_dataset_is_found_from_another_folder_than_it_was_named_in(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str
) -> None:
    stored = np.random.default_rng(0).integers(0, 256, 3 * 96**2, np.uint8).tobytes()
    put(tmp_path / "job" / "photos" / "a.png", STORED["colour PNG"])
    put(tmp_path / "job" / "photos" / "test_X.bin", stored)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr("batchcam.pictures.originals.named_dataset", lambda run: (data, str(tmp_path / "job")))
    found = open_originals(run, None)
    assert found.where == data.replace("photos", str(tmp_path / "job" / "photos"))
    assert found.find("a.png" if data == "photos" else "test/00000", "other", (1, 1)).state is State.CHANGED


@pytest.mark.parametrize("folder", ["", "/", "x" * 5000, "~nobody-here", "\0", "~\0", "~\ud800/"])
@pytest.mark.parametrize(
    "data",
    [
        *("~nobody-here/x", "~\0", "~\ud800x", "x" * 5000, "a\0b", "\ud800", "x.csv"),
        *("stl10:" + "x" * 5000, "stl10:\0", "stl10:~\0/x", "stl10:~\ud800"),
    ],
)
def test_a_place_that_no_file_can_have_is_one_without_images(
    run: Run, monkeypatch: pytest.MonkeyPatch, data: str, folder: str
) -> None:
    monkeypatch.setattr("batchcam.pictures.originals.named_dataset", lambda run: (data, folder))
    original = open_originals(run, None).read(run[0])
    assert original.state is State.MISSING
    assert "not there; give --data" in original.reason
    with pytest.raises(ConfigError, match=r"no such folder, tar, zip, manifest, wds:, hf:, stl10:ROOT"):
        open_originals(run, data)


@pytest.mark.parametrize(
    ("data", "folder", "system"),
    [
        ("photos", "https://theirs.example/x", "linux"),
        (r"\\theirs\share", "", "win32"),
        ("file://///theirs/share", "", "win32"),
        ("stl10://theirs/share:test", "", "win32"),
        ("photos", r"\\theirs\share", "win32"),
    ],
)
def test_no_run_lets_this_machine_ask_another_one(
    run: Run, monkeypatch: pytest.MonkeyPatch, data: str, folder: str, system: str
) -> None:
    monkeypatch.setattr("batchcam.pictures.originals.named_dataset", lambda run: (data, folder))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("batchcam.pictures.originals._reader", lambda *_: pytest.fail("was looked for"))
    original = open_originals(run, None).read(run[0])
    assert original.state is State.MISSING
    assert "which no run may open by itself" in original.reason


@pytest.mark.parametrize("origin", ["torchvision:CIFAR10:data:test", "python:mine:dataset"])
def test_a_dataset_that_is_code_is_not_run_unless_the_user_names_it(
    run: Run, tmp_path: Path, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchcam.pictures.originals.named_dataset", lambda run: (origin, ""))
    original = open_originals(run, None).read(run[0])
    assert original.state is State.MISSING
    assert original.reason.endswith(f"is code, which no run may start: say --data {origin}")
    with pytest.raises(ConfigError, match="its images have other digests than those of the run's dataset"):
        open_originals(run, str(tmp_path))


def test_a_single_shard_says_nothing_of_its_dataset(sound_run: Path, make_run: Callable[..., Path]) -> None:
    with open_run(sound_run / "shards" / "shard-00000.h5") as shard:
        original = open_originals(shard, None).read(shard[0])
    assert (original.state, original.reason) == (State.MISSING, "--data does not say where the images are")
