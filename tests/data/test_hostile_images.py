"""Hostile images and storage: every sample is an image or a reason, and no read holds up the others."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch

from batchcam.data import timed_source
from batchcam.data.loader import BatchStream, RangeBatches, SampleDataset
from batchcam.data.preprocessing import Preprocessing
from batchcam.data.samples import StoredSample
from batchcam.data.sources import open_source
from batchcam.data.timed_source import MOST_STUCK, HungStorageError, TimedSource, rest, timed
from batchcam.images.decoding import UnreadableImageError, decode_image
from benchmarks.faults import images as hostile
from tests.helpers.memory_source import MemorySource

FILES = hostile.hostile_files(1)
BOMBS = list(FILES)[:14]
SMALL = Preprocessing((8,), (8, 8), (0.5,) * 3, (0.5,) * 3)


class HangingSource(MemorySource):
    """Samples of kind "hang" are never read to the end, as on a file server that is gone."""

    def read(self, index: int) -> StoredSample:
        if self.kinds[index] == "hang":
            descriptor, _ = os.pipe()
            os.read(descriptor, 1)
        return super().read(index)


def loaded(source, processes: int, count: int, batch_size: int = 2) -> list[str]:
    dataset = SampleDataset(source, SMALL, (8, 8))
    with BatchStream(dataset, RangeBatches([(0, count)], batch_size), processes, torch.device("cpu")) as stream:
        return [error for batch in stream for error in batch.errors]


@pytest.mark.parametrize("name", list(FILES))
def test_hostile_image_is_an_image_or_a_reason_and_the_same_again(name):
    assert hostile.met(FILES[name]) == []


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_unreadable_or_small(name):
    try:
        image = decode_image(FILES[name])
    except UnreadableImageError:
        return
    assert image.width * image.height < 10_000


def test_odd_things_in_a_folder_are_passed_over_or_unreadable(tmp_path):
    folder = hostile.write_images(tmp_path / "images", 3) / "cat"
    hostile.odd_things(folder)
    source = open_source(str(tmp_path / "images"))
    said = {}
    for index, name in enumerate(source.sample_ids):
        try:
            source.read(index)
        except UnreadableImageError as error:
            said[name] = str(error)
    assert said == {
        "cat/loop.png": "Too many levels of symbolic links",
        "cat/nowhere.png": "No such file or directory",
        "cat/sparse.png": "more than 1073741824 bytes",
    }


def test_file_that_changes_or_vanishes_has_the_digest_of_what_was_decoded(tmp_path):
    root = hostile.write_images(tmp_path / "images", 3)
    source = open_source(str(root))
    path = root / source.sample_ids[0]
    path.write_bytes(hostile.encoded(hostile.picture(seed=5), "PNG"))
    read = source.read(0)
    assert read.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert read.image.tobytes() == hostile.picture(seed=5).tobytes()
    path.unlink()
    with pytest.raises(UnreadableImageError, match="is gone"):
        source.read(0)


@pytest.mark.parametrize("batch_size", [1, 2, 6])
@pytest.mark.parametrize("processes", [0, 1, 2])
def test_sample_whose_read_hangs_is_unreadable_and_the_others_are_not(processes, batch_size):
    source = timed(HangingSource([(9, 9), "hang", (9, 9), (9, 9), "hang", (9, 9)]), 0.3)
    start = time.monotonic()
    errors = loaded(source, processes, 6, batch_size)
    assert errors == ["", "reading took longer than 0.3 s", "", "", "reading took longer than 0.3 s", ""]
    assert time.monotonic() - start < 30


class SlowSource(MemorySource):
    """Each read takes a while; that of sample 1 waits for `go_on`. Counts the reads."""

    def __init__(self, count: int, seconds: float = 0.0) -> None:
        super().__init__([(9, 9)] * count)
        self.seconds, self.go_on, self.reads = seconds, threading.Event(), []

    def read(self, index: int) -> StoredSample:
        self.reads.append(index)
        time.sleep(self.seconds)
        if index == 1:
            self.go_on.wait(60)
        return super().read(index)


def test_the_limit_is_for_each_sample_and_not_for_a_batch_of_them():
    source = SlowSource(8, seconds=0.3)
    source.go_on.set()
    assert loaded(timed(source, 2), 0, 8, batch_size=8) == [""] * 8


def test_a_read_that_returns_after_it_was_given_up_reads_no_more_of_its_batch():
    source = SlowSource(5)
    errors = loaded(timed(source, 1), 0, 5, batch_size=5)
    assert errors == ["", "reading took longer than 1 s", "", "", ""]
    source.go_on.set()
    time.sleep(0.3)
    assert source.reads == [0, 1, 2, 3, 4]


def test_time_in_which_the_job_is_suspended_does_not_count():
    program = """
        import os, signal, sys, threading
        from tests.data.test_hostile_images import SlowSource
        from batchcam.data.timed_source import timed

        source = SlowSource(2)
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGSTOP)).start()
        threading.Timer(1.0, source.go_on.set).start()
        timed(source, 2).read(1)
        print("read")
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True) as job:
        os.waitid(os.P_PID, job.pid, os.WSTOPPED)
        time.sleep(4)  # twice the limit
        os.kill(job.pid, signal.SIGCONT)
        assert job.communicate(timeout=60)[0] == "read\n"


def test_a_sample_that_arrives_while_it_is_given_up_is_taken_and_the_next_one_is_not_refused(monkeypatch):
    source, real = SlowSource(3), timed_source._Reader.take

    def late(reader):
        if not source.go_on.is_set():
            source.go_on.set()
            time.sleep(1)
        return real(reader)

    monkeypatch.setattr(timed_source._Reader, "take", late)
    assert loaded(timed(source, 0.5), 0, 3, batch_size=3) == [""] * 3


def test_samples_of_a_batch_are_read_in_order_by_one_thread_that_ends_with_the_dataset():
    before = set(threading.enumerate())
    seen = []

    class Watched(MemorySource):
        def read(self, index: int) -> StoredSample:
            seen.append((index, threading.current_thread().name))
            return super().read(index)

    assert loaded(timed(Watched([(9, 9)] * 7), 60), 0, 7, batch_size=3) == [""] * 7
    assert seen == [(i, "batchcam-reader") for i in range(7)]
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("processes", [0, 1])
def test_storage_that_hangs_for_all_samples_ends_the_work_in_one_line(processes):
    source = timed(HangingSource(["hang"] * (MOST_STUCK + 4)), 0.05)
    with pytest.raises(HungStorageError, match="reads of samples hang") as caught:
        loaded(source, processes, MOST_STUCK + 4)
    assert caught.value.exit_code == 75
    assert str(caught.value).isprintable()


def test_timed_source_gives_what_its_source_gives():
    before = set(threading.enumerate())
    kinds = [(9, 9), "unreadable", (5, 7)]
    plain, waiting = MemorySource(kinds), timed(MemorySource(kinds), 60)
    assert isinstance(waiting, TimedSource)
    assert loaded(waiting, 0, 3) == loaded(plain, 0, 3)
    assert [waiting.read(i).sha256 for i in (0, 2)] == [plain.read(i).sha256 for i in (0, 2)]
    with pytest.raises(UnreadableImageError, match="torn") as caught:
        waiting.read(1)
    assert caught.value.sha256
    assert timed(plain, 0) is plain
    rest(waiting)
    assert set(threading.enumerate()) <= before


def test_process_ends_though_a_read_hangs():
    program = """
        import time, sys
        from tests.data.test_hostile_images import HangingSource, timed
        try:
            timed(HangingSource(["hang"]), 0.1).read(0)
        except Exception as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "reading took longer than 0.1 s\n"), ended.stderr
