"""samples.h5 is read in slices, and no byte of it that is not proven is ever seen."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcam.errors import RunError
from batchcam.store import landing, sink
from batchcam.store import plan as plan_module
from batchcam.store.plan import read_plan, write_plan
from batchcam.store.samples import SLICE_ROWS, SampleList, list_image, stated_list
from tests.helpers.damage import edit_document, flip
from tests.helpers.synthetic import ORIGIN, synthetic_plan

COUNT = 10 * SLICE_ROWS - 7
BLOCK = 32768


@pytest.fixture(scope="module")
def columns() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "sample_id": [f"{number:06d}-{rng.bytes(9).hex()}" for number in range(COUNT)],
        "label": rng.integers(-1, 5, COUNT),
        "input_bytes": rng.integers(0, 2**40, COUNT),
        "meta/site": [f"Ort {place}" for place in rng.integers(0, 50, COUNT)],
    }


@pytest.fixture
def run(tmp_path: Path, columns: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that is planned, whose list is many blocks long."""
    monkeypatch.setattr(plan_module, "LIST_BLOCK_BYTES", BLOCK)
    plan = synthetic_plan(sample_count=COUNT, sample_id_bytes=25, meta={"site": 6})
    image = list_image(plan, columns)
    write_plan(tmp_path / "run", plan, ORIGIN, image)
    landing.take_up(tmp_path / "run/samples.h5", hashlib.sha256(image).hexdigest())
    return tmp_path / "run"


def opened(run: Path) -> SampleList:
    stated = stated_list(run)
    assert stated is not None
    return SampleList(run, read_plan(run), stated)


def same(slices: SampleList, number: int, columns: dict[str, Any]) -> bool:
    rows, part = slices.rows(number), slice(number * SLICE_ROWS, (number + 1) * SLICE_ROWS)
    texts = all(rows[n].tolist() == [t.encode() for t in columns[n][part]] for n in ("sample_id", "meta/site"))
    return texts and all(np.array_equal(rows[name], columns[name][part]) for name in ("label", "input_bytes"))


def test_slices_hold_what_was_listed_in_another_process_too(run, columns):
    slices = opened(run)
    assert all(same(slices, number, columns) for number in range(3))
    copy = pickle.loads(pickle.dumps(slices))
    assert same(copy, 2, columns)
    assert len(copy) == COUNT


def test_a_slice_takes_few_of_the_blocks_and_each_once(run, columns, monkeypatch):
    places = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def pread(self, descriptor: int, count: int, offset: int) -> bytes:
            places.append(offset)
            return os.pread(descriptor, count, offset)

    monkeypatch.setattr(sink, "os", Counting())
    monkeypatch.setattr(sink, "BLOCKS", 1000)
    slices = opened(run)
    for _ in range(3):
        assert same(slices, 2, columns)
    assert len(places) == len(set(places))
    assert len(places) < os.path.getsize(run / "samples.h5") / BLOCK / 2


def test_a_changed_byte_is_refused_by_the_slices_that_need_it_and_seen_by_none(run, columns):
    size = os.path.getsize(run / "samples.h5")
    refused = []
    for at in range(100, size, 4 * BLOCK):
        flip(run / "samples.h5", at)
        try:
            assert same(opened(run), 0, columns)
        except RunError as error:
            assert "changed after it was written" in str(error)  # noqa: PT017
            refused.append(at)
        flip(run / "samples.h5", at)
    assert 0 < len(refused) < size / BLOCK / 4


def test_a_list_that_was_cut_is_refused(run):
    content = (run / "samples.h5").read_bytes()
    (run / "samples.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match="changed after it was written"):
        opened(run).rows(2)


def test_a_list_of_a_version_that_stated_no_blocks_is_proven_as_a_whole(run, columns):
    edit_document(run / "run.json", sample_blocks=None)
    assert same(opened(run), 1, columns)
    flip(run / "samples.h5", os.path.getsize(run / "samples.h5") - 1)
    with pytest.raises(RunError, match="changed after it was written"):
        opened(run).rows(0)


@pytest.mark.parametrize(
    "blocks",
    [{"bytes": 0, "sha256": []}, {"bytes": 2**30, "sha256": ["0" * 64]}, {"bytes": BLOCK, "sha256": ["0" * 64]}, [], 7],
    ids=["none", "too large", "too few", "list", "number"],
)
def test_blocks_that_can_not_be_those_of_the_list_are_refused(run, blocks):
    edit_document(run / "run.json", sample_blocks=blocks)
    with pytest.raises(RunError, match=r"does not tell what samples\.h5 is"):
        stated_list(run)


def test_the_plan_states_every_block(run):
    stated = json.loads((run / "run.json").read_bytes())["sample_blocks"]
    content = (run / "samples.h5").read_bytes()
    blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
    assert stated == {"bytes": BLOCK, "sha256": [hashlib.sha256(block).hexdigest() for block in blocks]}
