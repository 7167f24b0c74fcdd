"""HDF5 never sees an error of the disk: what it wrote it reads, and the first error waits for whoever asks."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchcam.store import sink as module
from batchcam.store.sink import BLOCK_BYTES, BLOCKS, Sink


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """An empty file."""
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 16)
    monkeypatch.setattr(module, "BLOCKS", 3)


def step(rng: random.Random, sink: Sink, model: bytearray) -> None:
    """Do something with the file, and the same with a plain array of bytes; both must tell the same."""
    place, count = rng.randrange(200), rng.randrange(80)
    sink.seek(place)
    action = rng.choice(["write", "write", "read", "readinto", "truncate", "end"])
    if action == "write":
        content = rng.randbytes(count)
        assert sink.write(memoryview(content)) == count
        model.extend(bytes(max(0, place + count - len(model))))
        model[place : place + count] = content
        assert sink.tell() == place + count
    elif action == "read":
        assert sink.read(count) == model[place : place + count]
    elif action == "readinto":
        buffer = bytearray(count)
        filled = sink.readinto(buffer)
        assert buffer[:filled] == model[place : place + count]
    elif action == "truncate":
        assert sink.truncate() == place
        model.extend(bytes(max(0, place - len(model))))
        del model[place:]
    else:
        assert sink.seek(-1 if model else 0, os.SEEK_END) == max(0, len(model) - 1)
        assert sink.seek(1, os.SEEK_CUR) == max(1, len(model))
    assert sink.size == len(model)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("seed", range(50))
def test_a_sink_is_a_file(descriptor: int, tmp_path: Path, seed: int) -> None:
    rng, sink, model = random.Random(seed), Sink(descriptor), bytearray()
    for _ in range(100):
        step(rng, sink, model)
    sink.seek(0)
    assert sink.read() == model
    sink.finish()
    assert (tmp_path / "file").read_bytes() == model


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("seed", range(50))
def test_a_sink_reads_what_was_written_when_the_disk_fills_up(
    descriptor: int, tmp_path: Path, monkeypatch, seed: int
) -> None:
    rng, sink, model = random.Random(seed), Sink(descriptor), bytearray()
    real, room = os.write, [rng.randrange(600)]

    def write(number: int, content) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(number, content[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(module.os, "write", write)
    for _ in range(200):
        step(rng, sink, model)
    assert sink.error is not None
    on_disk = (tmp_path / "file").read_bytes()
    room[0] = 10_000  # too late: what is missing would stay so
    with pytest.raises(OSError, match="No space left"):
        sink.finish()
    assert (tmp_path / "file").read_bytes() == on_disk


@pytest.mark.parametrize("call", ["write", "pread", "ftruncate", "fsync"])
def test_the_first_error_waits_for_the_end(descriptor: int, monkeypatch, call: str) -> None:
    sink = Sink(descriptor)
    codes = iter([errno.EIO, errno.ENOSPC, errno.ENOSPC])

    def fail(*_: object) -> None:
        raise OSError(next(codes), "failed")

    for _ in range(2 * BLOCKS):
        sink.write(bytes(BLOCK_BYTES))
    monkeypatch.setattr(module.os, call, fail)
    sink.truncate(BLOCK_BYTES)
    sink.seek(0)
    assert sink.write(b"more") == 4
    assert sink.readinto(bytearray(8)) == 8
    with pytest.raises(OSError, match="failed") as raised:
        sink.finish()
    assert raised.value.errno == errno.EIO


def test_memory_is_bounded_whatever_the_size(descriptor: int) -> None:
    sink, content = Sink(descriptor), bytes(BLOCK_BYTES - 1)
    tracemalloc.start()
    try:
        for _ in range(4 * BLOCKS):
            sink.write(content)
        sink.seek(0)
        sink.write(b"a header")
        assert tracemalloc.get_traced_memory()[1] < (BLOCKS + 4) * BLOCK_BYTES
    finally:
        tracemalloc.stop()


def test_what_fits_into_memory_is_written_at_once(descriptor: int, monkeypatch) -> None:
    sink, real, sizes = Sink(descriptor), os.write, []
    monkeypatch.setattr(module.os, "write", lambda number, content: sizes.append(len(content)) or real(number, content))
    for place in range(3000, 0, -10):
        sink.seek(place)
        sink.write(b"metadata")
    sink.finish()
    assert sizes == [3008]


HDF5_ON_A_BAD_DISK = """
import errno, os, sys
import h5py, numpy as np
from batchcam.store import sink as module
from batchcam.store.layout import new_file

call, number, code, failing = sys.argv[1], int(sys.argv[2]), getattr(errno, sys.argv[3]), sys.argv[4]
module.BLOCK_BYTES, module.BLOCKS = 4096, 2
real, calls = getattr(os, call), [0]

def fail(*arguments):
    calls[0] += 1
    if calls[0] == number or (failing == "on" and calls[0] > number):
        raise OSError(code, os.strerror(code))
    return real(*arguments)

sink = module.Sink(os.open(sys.argv[5], os.O_RDWR | os.O_CREAT | os.O_TRUNC))
setattr(os, call, fail)
try:
    with new_file(sink) as file:
        for name in "abcd":
            data = file.create_dataset(name, (8000,), "i8", chunks=(500,), fletcher32=True)
            for first in range(0, 8000, 500):
                data[first : first + 500] = np.arange(first, first + 500)
                data.attrs[f"after {first}"] = np.arange(100)
            assert (data[...] == np.arange(8000)).all() or sink.error
    sink.finish()
except Exception as error:
    print(calls[0], sink.error and sink.error.errno, type(error).__name__)
else:
    print(calls[0], sink.error and sink.error.errno, "whole")
"""


def on_a_bad_disk(path: Path, call: str, number: int, code: str, failing: str) -> tuple[int, str, str]:
    """Write an HDF5 file; return how many calls there were, the error that was kept, and how it ended."""
    command = [sys.executable, "-c", HDF5_ON_A_BAD_DISK, call, str(number), code, failing, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, ""), f"{call} {number}: {ended.returncode} {ended.stderr}"
    calls, kept, end = ended.stdout.split()
    return int(calls), kept, end


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["once", "on"])
@pytest.mark.parametrize(("call", "code"), [("write", "ENOSPC"), ("write", "EIO"), ("pread", "EIO")])
def test_hdf5_survives_an_error_at_any_call(tmp_path: Path, call: str, code: str, failing: str) -> None:
    calls, _, end = on_a_bad_disk(tmp_path / "file", call, 0, code, "once")
    assert end == "whole"
    assert calls > 20
    for number in range(1, calls + 1, max(1, calls // 12)):
        _, kept, end = on_a_bad_disk(tmp_path / "file", call, number, code, failing)
        assert (kept, end != "whole") == (str(getattr(errno, code)), True)
