"""Each kind of stored image has one stated decoding; damaged ones have one stated message."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from batchcam.images.decoding import _FORMATS, IMAGE_ENDINGS, UnreadableImageError, decode_image, describe, load_image
from batchcam.images.planes import Decoding, original_size, planes

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


def tiff(values: np.ndarray, order: str, sample_format: int, photometric: int = 1, largest: int | None = None) -> bytes:
    """Return an uncompressed one-channel TIFF, written by hand; `largest` is its MaxSampleValue."""
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
        *([(281, short, largest)] if largest is not None else []),
        (339, short, sample_format),
    ]
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        field = struct.pack(order + "HH", value, 0) if kind == short else struct.pack(order + "I", value)
        directory += struct.pack(order + "HHI", tag, kind, 1) + field
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8 + len(data)) + data + directory + struct.pack(order + "I", 0)


def colour_tiff(values: np.ndarray, extra: int | None) -> bytes:
    """Return an uncompressed TIFF of four or more channels whose first three are RGB, written by hand.

    Args:
        values: uint8 or uint16 (height, width, channels).
        extra: what the further channels are, as ExtraSamples says; None: it says nothing.
    """
    height, width, count = values.shape
    data = values.astype(values.dtype.newbyteorder("<")).tobytes()
    short, long = 3, 4
    entries = [(256, short, 1, width), (257, short, 1, height), (258, short, count, 8), (259, short, 1, 1)]
    entries += [(262, short, 1, 2), (273, long, 1, 8 + 2 * count), (277, short, 1, count), (278, short, 1, height)]
    entries += [(279, long, 1, len(data))] + ([] if extra is None else [(338, short, count - 3, extra)])
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    bits = struct.pack(f"<{count}H", *[values.dtype.itemsize * 8] * count)
    start = 8 + len(bits) + len(data)
    return b"II*\0" + struct.pack("<I", start) + bits + data + directory + struct.pack("<I", 0)


def pixels(data: bytes, bits: int | None = None) -> np.ndarray:
    image = decode_image(data, Decoding(bits))
    assert isinstance(image, Image.Image)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes, bits: int | None = None) -> str:
    with pytest.raises(UnreadableImageError) as caught:
        decode_image(data, Decoding(bits))
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
    deep = struct.pack(">2H", 0x0001, 0x4102)
    assert pixels(png(2, 1, 16, 0, [deep], level))[0, :, 0].tolist() == [255, 0x41]


def test_transparent_colour_of_a_deep_png_is_compared_by_its_high_bytes() -> None:
    row = struct.pack(">6H", 0x0A00, 0x0B00, 0x0C00, 0x1000, 0x2000, 0x4000)
    colour = chunk(b"tRNS", struct.pack(">3H", 0x0A00, 0x0B00, 0x0C00))
    assert pixels(png(2, 1, 16, 2, [row], colour)).tolist() == [[[255] * 3, [16, 32, 64]]]


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


def narrow_files(bits: int) -> dict[str, bytes]:
    """Files of 16 bits whose values, like a camera's, go up to 2**bits - 1."""
    values = np.array([[0, 1, 2**bits // 2, 2**bits - 1]], np.uint16)
    big = values.astype(">u2").tobytes()
    return {
        "png": png(4, 1, 16, 0, [big]),
        "png whose sBIT agrees": png(4, 1, 16, 0, [big], chunk(b"sBIT", bytes([bits]))),
        "pgm": b"P5 4 1 65535\n" + big,
        "plain pgm": f"P2 4 1 65535 {' '.join(map(str, values[0]))}\n".encode(),
        "tiff little-endian": tiff(values, "<", 1),
        "tiff big-endian": tiff(values, ">", 1),
        "tiff white is zero": tiff(values, "<", 1, photometric=0),
        "tiff with its brightest value but one": tiff(values, "<", 1, largest=2**bits - 2),
        "jpeg 2000": encoded(Image.fromarray(values), "JPEG2000"),
    }


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("name", list(narrow_files(12)))
def test_values_that_may_be_dark_or_of_fewer_bits_are_read_as_the_user_says_or_not_at_all(name: str, bits: int) -> None:
    data = narrow_files(bits)[name]
    assert reason(data) == (
        f"16-bit values of at most {2**bits - 1}: a dark image, or one of fewer bits? Say --bits 16, or how many are "
        f"used, such as --bits {bits}"
    )
    values = np.array([0, 1, 2**bits // 2, 2**bits - 1])
    for said in {bits, 16}:
        stored = 2**said - 1 - values if name == "tiff white is zero" else values
        assert pixels(data, said)[0].tolist() == [[v >> (said - 8)] * 3 for v in stored.tolist()]
    if bits > 8:
        most = 2 ** (bits - 1)
        assert (
            reason(data, bits - 1)
            == f"16-bit values of up to {2 * most - 1}, of which {bits - 1} bits are said to be used"
        )


def test_values_that_need_more_than_14_bits_and_black_images_leave_no_doubt() -> None:
    bright = struct.pack(">2H", 2**14, 255)
    assert pixels(png(2, 1, 16, 0, [bright]))[0, :, 0].tolist() == [64, 0]
    assert not pixels(png(2, 1, 16, 0, [bytes(4)])).any()
    assert (pixels(tiff(np.zeros((2, 2), np.uint16), "<", 1, photometric=0)) == 255).all()


def dark_files() -> dict[str, bytes]:
    """Files that say of themselves how many bits are used, whose values are all dark."""
    values = np.array([[0, 16, 512, 4080]], np.uint16)
    big = values.astype(">u2").tobytes()
    twelve = bytearray(encoded(Image.fromarray(values), "JPEG2000"))
    twelve[twelve.find(b"\xff\x4f\xff\x51") + 42] = 11  # one less than the bits
    return {
        "png of 16 significant bits": png(4, 1, 16, 0, [big], chunk(b"gAMA", bytes(4)), chunk(b"sBIT", b"\x10")),
        "png of 8 significant bits, spread over 16": png(4, 1, 16, 0, [big], chunk(b"sBIT", b"\x08")),
        "tiff of 16 bits": tiff(values, "<", 1, largest=65535),
        "jpeg 2000 of 12 bits": bytes(twelve),
    }


@pytest.mark.parametrize("name", list(dark_files()))
def test_dark_images_whose_file_says_how_many_bits_are_used_are_read(name: str) -> None:
    found = pixels(dark_files()[name])
    if "jpeg" not in name:  # whose patched header shifts the values
        assert found[0, :, 0].tolist() == [0, 0, 2, 15]
    assert pixels(dark_files()[name], 12).tolist() == found.tolist()  # the file's word counts


def test_grey_of_fewer_bits_is_scaled_where_the_file_says_how_many() -> None:
    values = np.array([[0, 16, 2048, 4095]], np.uint16)
    for data in (tiff(values, ">", 1, largest=4095), b"P5 4 1 4095\n" + values.astype(">u2").tobytes()):
        assert pixels(data)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert pixels(b"P6 1 1 4095\n" + values[:, 1:].astype(">u2").tobytes())[0].tolist() == [[1, 128, 255]]
    dark = b"P5 4 1 4095\n" + (values // 16).astype(">u2").tobytes()
    assert pixels(dark)[0, :, 0].tolist() == [0, 0, 8, 15]
    contradicted = reason(tiff(values * 2, ">", 1, largest=4095))
    assert contradicted == "16-bit values of up to 8190, of which 12 bits are said to be used"


@pytest.mark.parametrize("brightest", [4095, 16383])
def test_deep_colours_that_may_be_dark_or_of_fewer_bits_are_unreadable_unless_all_16_are_said_to_be_used(
    brightest: int,
) -> None:
    values = np.array([[[1, 2000, brightest], [0, 0, 256]]], np.uint16)
    row = values.astype(">u2").tobytes()
    opaque = np.dstack([values, np.full((1, 2, 1), 65535, np.uint16)])
    deep = png(2, 1, 16, 6, [opaque.astype(">u2").tobytes()])
    for data in (png(2, 1, 16, 2, [row]), b"P6 2 1 65535\n" + row, colour_tiff(opaque, 2), deep):
        assert reason(data) == (
            "16-bit colours, none bright: a dark image, or one of fewer bits? Say --bits 16, or store 8 bits a channel"
        )
        assert np.abs(pixels(data, 16) - values / 257).max() <= 1
        assert reason(data, 12) == "16-bit colours of which 12 bits are used: store 8 bits a channel"
    assert pixels(png(2, 1, 16, 2, [row], chunk(b"sBIT", b"\x10" * 3))).tolist() == (values >> 8).tolist()
    assert pixels(png(2, 1, 16, 2, [row.replace(b"\0\0", b"\x40\0")])).max() == 64


def test_what_is_said_of_deep_values_changes_no_others() -> None:
    for kind in ("PNG", "TIFF", "PPM", "JPEG", "JPEG2000"):
        data = encoded(Image.fromarray(noise(8, 8, 3)), kind)
        np.testing.assert_array_equal(pixels(data, 12), pixels(data))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_fourth_channel_is_alpha_only_where_the_file_says_so(dtype: type) -> None:
    values = np.random.default_rng(5).integers(0, np.iinfo(dtype).max, (3, 4, 4), dtype, endpoint=True)
    high = values.astype(int) >> (8 if dtype == np.uint16 else 0)
    colours, alpha = high[..., :3], high[..., 3:]
    assert "whether channel 4 is transparency" in reason(colour_tiff(values, None))
    np.testing.assert_array_equal(pixels(colour_tiff(values, 0)), colours)
    over_white = 255 - (255 - colours) * (alpha / 255)
    assert np.abs(pixels(colour_tiff(values, 2)) - over_white).max() <= 1
    values[..., 3] = np.iinfo(dtype).max
    np.testing.assert_array_equal(pixels(colour_tiff(values, None)), colours)


def test_channels_that_are_neither_colour_nor_alpha_are_left_out() -> None:
    values = noise(3, 4, 5)
    np.testing.assert_array_equal(pixels(colour_tiff(values, 0)), values[..., :3])


def test_premultiplied_alpha_is_over_white_too() -> None:
    values = np.array([[[40, 20, 0, 80], [0, 0, 0, 0]]], np.uint8)
    assert np.abs(pixels(colour_tiff(values, 1)).astype(int) - [[[215, 195, 175], [255] * 3]]).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_a_channel_of_jpeg_2000_is_alpha_only_where_the_file_says_so(mode: str) -> None:
    image = Image.fromarray(noise(16, 16, len(mode)), mode)
    data = encoded(image, "JPEG2000")
    assert pixels(data).shape == (16, 16, 3)
    assert f"whether channel {len(mode)} is transparency" in reason(data.replace(b"cdef", b"free"))
    image.putalpha(255)
    opaque = encoded(image, "JPEG2000").replace(b"cdef", b"free")
    np.testing.assert_array_equal(pixels(opaque), np.asarray(image.convert("RGB")))


def test_a_tiff_of_channels_without_a_meaning_is_told_to_be_one() -> None:
    bands = colour_tiff(noise(3, 4, 4), 0).replace(
        struct.pack("<HHII", 262, 3, 1, 2), struct.pack("<HHII", 262, 3, 1, 1)
    )
    assert reason(bands) == "a TIFF whose kind of channels or compression Pillow does not read"


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


@pytest.mark.parametrize(("least", "shrunk"), [(100, 1), (51, 1), (50, 2), (26, 2), (25, 4), (12, 8), (1, 8)])
def test_a_jpeg_is_decoded_smaller_as_libjpeg_does_it_but_not_below_the_least_and_its_own_size_is_kept(
    least: int, shrunk: int
) -> None:
    data = encoded(Image.fromarray(noise(131, 101, 3)), "JPEG", quality=95)
    image = decode_image(data, Decoding(least=least))
    assert isinstance(image, Image.Image)
    assert image.size == (-(-101 // shrunk), -(-131 // shrunk))
    assert original_size(image) == (131, 101)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), {1: 1, 2: 17, 4: 33, 8: 65}[shrunk])
    np.testing.assert_array_equal(np.asarray(image), reference[..., ::-1])


@pytest.mark.parametrize("orientation", list(UPRIGHT))
def test_a_jpeg_that_is_decoded_smaller_is_turned_and_so_is_its_own_size(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(noise(64, 96, 3)), "JPEG", exif=exif)
    whole, image = decode_image(data), decode_image(data, Decoding(least=20))
    assert isinstance(whole, Image.Image)
    assert isinstance(image, Image.Image)
    assert image.size == (whole.width // 2, whole.height // 2)
    assert original_size(image) == original_size(whole) == (whole.height, whole.width)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "BMP"])
def test_other_kinds_than_jpeg_are_decoded_whole(kind: str) -> None:
    image = decode_image(encoded(Image.fromarray(noise(64, 96, 3)), kind), Decoding(least=8))
    assert isinstance(image, Image.Image)
    assert image.size == (96, 64)


@pytest.mark.parametrize("decoding", [Decoding(channels=1, least=16), Decoding(range=(0, 255), least=16)])
def test_a_jpeg_is_decoded_smaller_whatever_the_network_takes(decoding: Decoding) -> None:
    image = decode_image(encoded(Image.fromarray(noise(64, 96, 3)), "JPEG"), decoding)
    assert {plane.size for plane in planes(image)} == {(24, 16)}
    assert original_size(image) == (64, 96)


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
    np.testing.assert_array_equal(np.asarray(load_image(opened)), stored)


def test_deep_values_of_an_image_opened_elsewhere_are_doubted_too() -> None:
    values = np.array([[0, 4095]], np.uint16)
    for image in (Image.fromarray(values), Image.open(io.BytesIO(encoded(Image.fromarray(values), "TIFF")))):
        with pytest.raises(UnreadableImageError, match="at most 4095: a dark image, or one of fewer bits"):
            load_image(image)
        assert np.asarray(load_image(image, Decoding(12)))[0, :, 0].tolist() == [0, 255]


def test_the_error_keeps_its_digest_on_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImageError("empty file", b"\1" * 32)))
    assert (str(error), error.sha256) == ("empty file", b"\1" * 32)


def test_describe_leaves_out_addresses_and_paths() -> None:
    assert describe(ValueError(f"bad\n{object()}")) == "bad <object object>"
    assert describe(FileNotFoundError(2, "gone", "/secret/place")) == "No such file or directory"
    assert describe(KeyError()) == "KeyError"


def test_the_endings_of_images_are_those_that_pillow_gives_the_formats_and_those_of_plugins_and_dicom() -> None:
    Image.init()
    pillows = {ending for ending, format in Image.registered_extensions().items() if format in _FORMATS}
    others = {".dcm", ".dicom", ".heic", ".heif", ".hif", ".jxl"}
    assert set(IMAGE_ENDINGS) == pillows - {".pfm"} | others
