"""An id that stands twice is found wherever it stands, in constant memory, and none is accused by chance."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from batchcam.record import repeats
from batchcam.record.repeats import Repeats, hashes


def parts(ids: list[bytes], size: int = 1000) -> list[np.ndarray]:
    return [np.array(ids[i : i + size]) for i in range(0, len(ids), size)]


def stands_twice(ids: list[bytes]) -> bool:
    found = Repeats(len(ids))
    for part in parts(ids):
        found.add(hashes(part))
    return found.any(iter(parts(ids)))


def names(count: int) -> list[bytes]:
    return [b"class/image %d.png" % i for i in range(count)]


def test_ids_that_stand_once_are_none() -> None:
    assert not stands_twice(names(5000))


@pytest.mark.parametrize(("place", "other"), [(0, 4999), (0, 1), (2500, 2501), (999, 1000)])
def test_an_id_that_stands_twice_is_found_in_one_part_and_in_two(place: int, other: int) -> None:
    ids = names(5000)
    ids[other] = ids[place]
    assert stands_twice(ids)


def test_what_a_full_filter_suspects_is_looked_at_for_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "LEAST_BITS", 8)
    monkeypatch.setattr(repeats, "BITS_A_SAMPLE", 1)
    ids = names(5000)
    found = Repeats(len(ids))
    for part in parts(ids):
        found.add(hashes(part))
    assert found._suspected > 1000
    assert not found.any(iter(parts(ids)))
    suspect = next(i for i in ids if hashes(np.array([i]))[0] in np.concatenate(found._suspects))
    assert found.any(iter(parts([*ids, suspect])))


def test_ids_of_one_hash_are_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "hashes", lambda ids: np.zeros(len(ids), np.uint64))
    found = Repeats(2)
    found.add(np.zeros(2, np.uint64))
    assert not found.any(iter([np.array([b"a", b"b"])]))
    assert found.any(iter([np.array([b"a", b"b", b"a"])]))


def test_ids_are_not_read_again_where_none_is_suspected() -> None:
    def unread() -> Iterator[np.ndarray]:
        raise AssertionError
        yield

    found = Repeats(3)
    found.add(hashes(np.array(names(3))))
    assert not found.any(unread())


def test_memory_is_that_of_the_filter_whatever_passes_by() -> None:
    found = Repeats(100_000)
    for part in parts(names(100_000), 10_000):
        found.add(hashes(part))
    held = sys.getsizeof(found._filter) + sum(each.nbytes for each in found._suspects)
    assert held <= repeats.LEAST_BITS // 8 + 1000
