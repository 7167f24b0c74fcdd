"""Images that somebody made to fill the memory, to take for ever, or to lie, and things that are no images."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.images.decoding import UnreadableImageError, decode_image

from .material import Job, write_images
from .registry import Bench, Outcome, fault_class

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
HUGE = 60_000
MOST_SECONDS = 10.0


def picture(side: int = 32, seed: int = 0) -> Image.Image:
    """Return an RGB image of random pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, data: bytes = b"", *chunks: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """Return a PNG whose header says what it likes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bombs() -> dict[str, bytes]:
    """Return small files that claim or unpack to a lot."""
    jpeg, gif = bytearray(encoded(picture(), "JPEG")), bytearray(encoded(picture(), "GIF"))
    frame = jpeg.index(b"\xff\xc0") + 5
    jpeg[frame : frame + 4] = struct.pack(">HH", HUGE, HUGE)
    gif[6:10] = struct.pack("<HH", HUGE, HUGE)
    webp = bytearray(encoded(picture(), "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"
    bmp = bytearray(encoded(picture(), "BMP"))
    bmp[18:26] = struct.pack("<ii", HUGE, HUGE)
    tiff = bytearray(encoded(picture(), "TIFF"))
    for tag in (256, 257):
        place = tiff.index(struct.pack("<HH", tag, 4)) if struct.pack("<HH", tag, 4) in tiff else None
        place = tiff.index(struct.pack("<HH", tag, 3)) if place is None else place
        tiff[place : place + 12] = struct.pack("<HHII", tag, 4, 1, HUGE)
    unpacked = zlib.compress(bytes(2**26))
    return {
        "png of 60000x60000": png(HUGE, HUGE), "jpeg of 60000x60000": bytes(jpeg), "gif of 60000x60000": bytes(gif),
        "webp of 16384x16384": bytes(webp), "bmp of 60000x60000": bytes(bmp), "tiff of 60000x60000": bytes(tiff),
        "ppm of 60000x60000": b"P6 60000 60000 255\n", "png of 2^31": png(2**31 - 1, 2**31 - 1),
        "png of no pixels": png(0, 0), "pixels unpack to 64 MiB": png(2, 2, bytes(2**26)),
        "text chunk": png(4, 4, bytes(52), chunk(b"zTXt", b"a\0\0" + unpacked)),
        "international text": png(4, 4, bytes(52), chunk(b"iTXt", b"a\0\1\0\0\0" + unpacked)),
        "many text chunks": png(4, 4, bytes(52), *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20)))] * 100),
        "colour profile": png(4, 4, bytes(52), chunk(b"iCCP", b"a\0\0" + unpacked)),
    }  # fmt: skip


def shapes_and_kinds() -> dict[str, bytes]:
    """Return unusual but honest files."""
    frames = [picture(seed=seed) for seed in range(3)]
    made = {f"animated {kind}": encoded(frames[0], kind, save_all=True, append_images=frames[1:])
            for kind in ("GIF", "WEBP", "PNG", "TIFF")}  # fmt: skip
    modes = {
        "PNG": ("1", "L", "LA", "P", "RGBA", "I;16"),
        "TIFF": ("1", "L", "P", "RGBA", "CMYK", "LAB", "I;16", "F", "I"),
    }
    for kind, names in modes.items():
        for mode in names:
            image = Image.new("I;16", (32, 32), 300) if mode == "I;16" else None
            if image is None:
                image = Image.new("LAB", (32, 32)) if mode == "LAB" else picture().convert(mode)
            made[f"{kind} of mode {mode}"] = encoded(image, kind)
    made["CMYK jpeg"] = encoded(picture().convert("CMYK"), "JPEG")
    for width, height in ((100_000, 1), (1, 100_000), (1, 1)):
        made[f"png of {width}x{height}"] = encoded(Image.new("RGB", (width, height)), "PNG")
    return made


def exif() -> dict[str, bytes]:
    """Return JPEGs with odd EXIF."""
    tags = {f"orientation {value}": (0x0112, 3, 1, value) for value in (0, 9, 255, 65535)}
    tags |= {
        "orientations without end": (0x0112, 3, 2**32 - 1, 8), "orientation of another type": (0x0112, 12, 1, 2**31),
        "directory of itself": (0x8769, 4, 1, 8), "directory beyond the end": (0x8769, 4, 1, 2**31),
    }  # fmt: skip
    made = {}
    for name, tag in tags.items():
        for following in (0, 8, 2**31):
            block = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", *tag) + struct.pack("<I", following)
            made[f"{name}, next {following}"] = encoded(picture(), "JPEG", exif=block)
    made["65535 entries"] = encoded(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    made["text for EXIF"] = encoded(picture(), "JPEG", exif=b"Exif\0\0no TIFF at all")
    return made


def broken(each: int) -> dict[str, bytes]:
    """Return cut and flipped files of every format, `each` of both for each."""
    rng, made = random.Random(0), dict[str, bytes]()
    for kind in FORMATS:
        whole = encoded(picture(), kind)
        for number in range(each):
            made[f"{kind} cut, {number}"] = whole[: rng.randrange(len(whole))]
            data = bytearray(whole)
            for _ in range(rng.choice([1, 4, 32])):
                data[rng.randrange(len(data))] = rng.randrange(256)
            made[f"{kind} flipped, {number}"] = bytes(data)
    return made


def hostile_files(each: int) -> dict[str, bytes]:
    """Return all of them by name."""
    others = {"empty": b"", "zeros": bytes(1000), "text": b"dear diary", "zip": b"PK\3\4" + bytes(100)}
    return bombs() | shapes_and_kinds() | exif() | broken(each) | others


def met(data: bytes) -> list[str]:
    """Return what is wrong with how a hostile image is met: an image or a reason, soon, and the same again."""
    start, answers = time.process_time(), []
    for _ in range(2):
        try:
            answers.append(decode_image(data).tobytes())
        except UnreadableImageError as error:
            answers.append(str(error))
    seconds, said = time.process_time() - start, answers[0]
    checks = {
        f"{seconds:.1f} s": seconds > MOST_SECONDS,
        f"two answers: {answers!r:.200}": answers[0] != answers[1],
        f"not one line: {said!r:.200}": isinstance(said, str) and not (said.isprintable() and len(said) <= 200),
    }
    return [what for what, failed in checks.items() if failed]


@fault_class("hostile images: bombs, lying headers, odd EXIF, cut and flipped files of every format, all in one run")
def hostile_images(bench: Bench) -> Outcome:
    """Decode each twice; then explain them all in one run, between sound ones."""
    outcome = Outcome("an image or a one-line reason, the same twice; one run of them all is complete and verifies")
    files = hostile_files(bench.few(3, 40))
    for name, data in files.items():
        outcome.case(name, met(data))
    job = Job.prepare(bench.warm, 12, 4)
    images = write_images(bench.folder / "images", 12)
    for number, data in enumerate(files.values()):
        (images / "bee" / f"hostile-{number:05d}.png").write_bytes(data)
    odd_things(images / "cat")
    run = bench.folder / "run"
    ended = bench.warm.run(Job(job.checkpoint, images, run, 64).explain(run))
    found = verify(VerifyConfig(run, quiet=True)).found if ended.code == 3 else []
    untrue = [finding.message for finding in found if finding.kind.value != "unreadable"]
    outcome.case("all in one run", untrue if ended.code == 3 else [str(ended)])
    return outcome


def odd_things(folder: Path) -> None:
    """Put into `folder` what has an image's name and is none."""
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "nowhere.png").symlink_to(folder / "not-there.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "back").symlink_to(folder)
    with (folder / "sparse.png").open("wb") as sparse:
        sparse.truncate(2**42)
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.getcwd()
        os.chdir(folder)  # a socket's path may only be short
        try:
            listening.bind("socket.png")
        finally:
            os.chdir(here)
