"""Each kind of stored image has one stated decoding; damaged ones have one stated message."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from batchcam.images.decoding import _FORMATS, IMAGE_ENDINGS, UnreadableImageError, decode_image, describe, load_rgb

DEEP = np.array([[0, 255, 256, 1000], [32768, 65279, 65280, 65535]], np.uint16)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def tiff(values: np.ndarray, order: str, sample_format: int, photometric: int = 1) -> bytes:
    """Return an uncompressed one-channel TIFF, written by hand."""
    height, width = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    short, long = 3, 4
    entries = [
        (256, short, width),
        (257, short, height),
        (258, short, values.dtype.itemsize * 8),
        (259, short, 1),
        (262, short, photometric),
        (273, long, 8),
        (277, short, 1),
        (278, short, height),
        (279, long, len(data)),
        (339, short, sample_format),
    ]
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        field = struct.pack(order + "HH", value, 0) if kind == short else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, 1) + field
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8 + len(data)) + data + directory + struct.pack(order + "I", 0)


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(data)
    message = str(caught.value)
    assert message == "".join(c for c in message if c.isprintable())
    assert "0x" not in message
    return message


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_rgb_keeps_every_pixel(kind: str) -> None:
    stored = noise(5, 7, 3)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(stored), kind)), stored)


def test_lossless_webp_keeps_every_pixel() -> None:
    stored = noise(5, 7, 3)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(stored), "WEBP", lossless=True)), stored)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "PPM", "TIFF"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    grey = np.full((16, 16), 77, np.uint8)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(grey), kind)), np.full((16, 16, 3), 77))


def test_one_bit_becomes_black_and_white() -> None:
    data = encoded(Image.fromarray(np.array([[True, False]])), "PNG")
    assert pixels(data).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    alpha = np.array([[0, 255, 128]], np.uint8)
    image = Image.new(mode, (3, 1), (10,) * (len(mode) - 1) + (0,))
    image.putalpha(Image.fromarray(alpha))
    expected = 255 - 245 * (alpha / 255.0)
    assert np.abs(pixels(encoded(image, "PNG"))[..., 0] - expected).max() <= 1
    assert pixels(encoded(image, "PNG"))[0, :2].tolist() == [[255] * 3, [10] * 3]


def test_transparent_palette_entry_becomes_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    for kind in ("PNG", "GIF"):
        assert pixels(encoded(image, kind, transparency=1)).tolist() == [[[10, 20, 30], [255] * 3, [70, 80, 90]]]
    partial = encoded(image, "PNG", transparency=bytes([255, 0, 255]))
    assert pixels(partial).tolist() == [[[10, 20, 30], [255] * 3, [70, 80, 90]]]


def test_opaque_palette_becomes_its_colours() -> None:
    image = Image.new("P", (1, 1))
    image.putpalette([10, 20, 30])
    assert pixels(encoded(image, "PNG")).tolist() == [[[10, 20, 30]]]


def test_transparent_grey_level_becomes_white_at_every_depth() -> None:
    level = chunk(b"tRNS", struct.pack(">H", 1))
    assert pixels(png(4, 1, 2, 0, [bytes([0b00011011])], level))[0, :, 0].tolist() == [0, 255, 170, 255]
    assert pixels(png(2, 1, 4, 0, [bytes([0x1F])], level))[0, :, 0].tolist() == [255, 255]
    assert pixels(png(2, 1, 8, 0, [bytes([1, 2])], level))[0, :, 0].tolist() == [255, 2]
    deep = struct.pack(">2H", 0x0001, 0x0102)
    assert pixels(png(2, 1, 16, 0, [deep], level))[0, :, 0].tolist() == [255, 1]


def test_transparent_colour_of_a_deep_png_is_compared_by_its_high_bytes() -> None:
    row = struct.pack(">6H", 0x0A00, 0x0B00, 0x0C00, 0x1000, 0x2000, 0x3000)
    colour = chunk(b"tRNS", struct.pack(">3H", 0x0A00, 0x0B00, 0x0C00))
    assert pixels(png(2, 1, 16, 2, [row], colour)).tolist() == [[[255] * 3, [16, 32, 48]]]


def test_cmyk_is_converted_as_pillow_does() -> None:
    stored = np.zeros((8, 8, 4), np.uint8)
    stored[..., 0] = 255
    cyan = Image.fromarray(stored, "CMYK")
    assert pixels(encoded(cyan, "TIFF"))[0, 0].tolist() == [0, 255, 255]
    # Pillow writes CMYK JPEGs inverted, with Adobe's marker
    data = encoded(cyan, "JPEG", quality=100)
    assert b"Adobe" in data
    assert np.abs(pixels(data)[0, 0].astype(int) - [0, 255, 255]).max() <= 2


def deep_files() -> dict[str, bytes]:
    by_hand = [row.astype(">u2").tobytes() for row in DEEP]
    return {
        "png": png(4, 2, 16, 0, by_hand),
        "pgm": b"P5 4 2 65535\n" + b"".join(by_hand),
        "tiff little-endian": tiff(DEEP, "<", 1),
        "tiff big-endian": tiff(DEEP, ">", 1),
        "tiff white is zero": tiff(65535 - DEEP, "<", 1, photometric=0),
        "jpeg 2000": encoded(Image.fromarray(DEEP), "JPEG2000"),
    }


@pytest.mark.parametrize("name", list(deep_files()))
def test_sixteen_bit_grey_keeps_its_high_byte(name: str) -> None:
    decoded = pixels(deep_files()[name])
    np.testing.assert_array_equal(decoded, np.repeat((DEEP // 256)[..., None], 3, axis=2))


def test_sixteen_bit_colour_keeps_its_high_bytes() -> None:
    row = struct.pack(">6H", 0x01FF, 0x80FF, 0xFFFF, 0x0000, 0x00FF, 0x0100)
    assert pixels(png(2, 1, 16, 2, [row])).tolist() == [[[1, 128, 255], [0, 0, 1]]]


def test_twelve_bit_tiff_keeps_its_high_bits() -> None:
    # three bytes hold two samples: 0xFFF and 0x080
    data = bytearray(tiff(np.zeros((1, 2), np.uint16), "<", 1))
    data[8:11] = bytes([0xFF, 0xF0, 0x80])
    bits = struct.pack("<HHIHH", 258, 3, 1, 16, 0)
    patched = bytes(data).replace(bits, struct.pack("<HHIHH", 258, 3, 1, 12, 0))
    assert pixels(patched)[0, :, 0].tolist() == [255, 8]


@pytest.mark.parametrize(
    ("values", "sample_format"),
    [
        (np.zeros((2, 2), np.float32), 3),
        (np.zeros((2, 2), np.int32), 2),
        (np.zeros((2, 2), np.uint32), 1),
        (np.zeros((2, 2), np.int16), 2),
    ],
    ids=["float", "int32", "uint32", "int16"],
)
def test_values_without_a_range_are_unreadable(values: np.ndarray, sample_format: int) -> None:
    assert "without a defined range" in reason(tiff(values, "<", sample_format))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert pixels(data)[0, 0].tolist() == [200, 0, 0]


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", list(UPRIGHT))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    stored = noise(3, 5, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(Image.fromarray(stored), kind, exif=exif, **options)
    np.testing.assert_array_equal(pixels(data), UPRIGHT[orientation](stored))


def test_exif_orientation_turns_deep_grey_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(DEEP), "PNG", exif=exif)
    np.testing.assert_array_equal(pixels(data)[..., 0], np.rot90(DEEP // 256, -1))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x08\0\0\0\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",
        b"Exif\0\0",
    ],
    ids=["garbage", "cut", "orientation 9", "orientation text", "empty"],
)
def test_corrupt_exif_is_ignored_without_a_warning(exif: bytes) -> None:
    data = encoded(Image.new("RGB", (4, 2), (90, 90, 90)), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(data).shape == (2, 4, 3)


def test_empty_file_and_other_files_are_unreadable() -> None:
    assert reason(b"") == "empty file"
    assert reason(b"hello, this is text") == "not an image of a known format"
    assert reason(b"\x89PNG\r\n\x1a\n") == "not an image of a known format"


def test_postscript_never_reaches_its_interpreter() -> None:
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "not an image of a known format"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_truncated_file_is_unreadable_with_the_same_message_every_time(kind: str) -> None:
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    cut = data[: len(data) * 2 // 3]
    assert reason(cut) == reason(cut)


def test_flipped_bytes_give_an_image_or_a_reason() -> None:
    rng = np.random.default_rng(3)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        data = np.frombuffer(encoded(Image.fromarray(noise(24, 24, 3)), kind), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            with contextlib.suppress(UnreadableImageError):
                assert decode_image(damaged.tobytes()).mode == "RGB"


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert pixels(encoded(Image.new("RGB", (10, 10)), "PNG")).shape == (10, 10, 3)
    # Pillow warns of the first and refuses the second
    large = [encoded(Image.new("RGB", (width, 10)), "PNG") for width in (11, 30)]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for data in large:
        assert reason(data) == "more than 100 pixels: could be a decompression bomb"


def test_a_header_that_promises_gigapixels_is_refused() -> None:
    assert "decompression bomb" in reason(png(60000, 60000, 8, 2, [b"\0"]))


def test_no_memory_makes_the_image_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Image.Image) -> None:
        raise MemoryError

    data = encoded(Image.new("RGB", (2, 2)), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert reason(data) == "not enough memory to decode it"


def test_pillow_warnings_do_not_leak() -> None:
    image = Image.new("P", (2, 2))
    data = encoded(image, "PNG", transparency=bytes([0, 1, 2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_image(data)


def test_an_image_opened_elsewhere_stays_turned_as_it_is() -> None:
    stored = noise(3, 5, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = Image.open(io.BytesIO(encoded(Image.fromarray(stored), "PNG", exif=exif)))
    np.testing.assert_array_equal(np.asarray(load_rgb(opened)), stored)


def test_the_error_keeps_its_digest_on_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImageError("empty file", b"\1" * 32)))
    assert (str(error), error.sha256) == ("empty file", b"\1" * 32)


def test_describe_leaves_out_addresses_and_paths() -> None:
    assert describe(ValueError(f"bad\n{object()}")) == "bad <object object>"
    assert describe(FileNotFoundError(2, "gone", "/secret/place")) == "No such file or directory"
    assert describe(KeyError()) == "KeyError"


def test_the_endings_of_images_are_those_that_pillow_gives_the_formats() -> None:
    Image.init()
    pillows = {ending for ending, format in Image.registered_extensions().items() if format in _FORMATS}
    assert set(IMAGE_ENDINGS) == pillows - {".pfm"}
