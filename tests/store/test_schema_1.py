"""A run of schema 1, as it was written before schema 2: every reader still reads it, and verify says what it lacks."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam.cli.commands import COMMANDS
from batchcam.commands.merge import merge
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.options import members
from batchcam.errors import RunError
from batchcam.record.verdicts import Verdict, append_verdict
from batchcam.store.manifest import read_manifest
from batchcam.store.opening import open_run
from batchcam.store.plan import read_plan
from batchcam.store.schema import OLDEST_READER, SCHEMA_VERSION, sample_arrays
from tests.helpers import ROOT
from tests.helpers.damage import edit_document, edited, make_digests_right

FOLDER = ROOT / "tests/data/schema-1"
IDS = ["ant/a.png", "ant/b.png", "bee/broken.png", "bee/c.png", "bee/d.png", "cat/e.png", "cat/f.png"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER / "run", tmp_path / "old"))


def test_every_schema_that_is_read_is_in_the_tests() -> None:
    assert sorted(OLDEST_READER) == [1, 2]
    assert max(OLDEST_READER) == SCHEMA_VERSION
    assert read_plan(FOLDER / "run").schema_version == 1


def test_schema_2_has_all_of_schema_1_in_its_order_and_one_array_more() -> None:
    names = [a.name for a in sample_arrays("uint8")]
    assert [n for n in names if n != "input_bytes"] == [a.name for a in sample_arrays("uint8", schema=1)]
    assert "input_bytes" in names


def test_open_run_reads_it_and_says_that_it_has_no_sizes(old: Path) -> None:
    with open_run(old) as run:
        assert run.complete
        assert run.sample_id[:].tolist() == IDS
        assert run.label[:].tolist() == [0, 0, 1, 1, 1, 2, 2]
        assert run[0].input_bytes is None
        sums = run.cams[:].mean((2, 3)) + run.classifier[1]
        readable = run.status[:] & 1 == 0
        np.testing.assert_allclose(sums[readable], run.logits[readable], atol=1e-5)
        with pytest.raises(AttributeError, match="of schema 1, which does not have it"):
            _ = run.input_bytes
    with open_run(old / "shards/shard-00001.h5") as shard:
        assert shard.sample_id[:].tolist() == IDS[4:]


def test_verify_finds_nothing_and_tells_what_it_could_not_check(old: Path, run_cli) -> None:
    summary = verify(VerifyConfig(old, quiet=True), confine=False)
    assert (summary.found, summary.samples) == ([], 7)
    (line,) = summary.unchecked
    assert "schema 1 has no input_bytes" in line
    code, stdout, _ = run_cli("verify", old, "--quiet")
    assert (code, f"not checked: {line}" in stdout) == (0, True)


def test_verify_of_a_run_of_schema_2_leaves_nothing_unchecked(sound_run: Path, run_cli) -> None:
    assert verify(VerifyConfig(sound_run, quiet=True), confine=False).unchecked == []
    assert "not checked" not in run_cli("verify", sound_run, "--quiet")[1]


def test_it_is_merged_again_as_schema_1(old: Path) -> None:
    for name in ("run.h5", "run.h5.sha256", "manifest.json"):
        (old / name).unlink()
    merge(old)
    assert read_manifest(old, read_plan(old)).schema_version == 1
    assert verify(VerifyConfig(old, quiet=True), confine=False).found == []
    with h5py.File(old / "run.h5") as file, h5py.File(FOLDER / "run/run.h5") as made:
        assert (sorted(file), sorted(file.attrs)) == (sorted(made), sorted(made.attrs))


def test_an_array_of_schema_2_in_it_is_a_finding(old: Path) -> None:
    with edited(old, "shards/shard-00001.h5") as file:
        file["input_bytes"] = np.zeros(3, np.int64)
    assert {(f.kind.value, f.array) for f in verify(VerifyConfig(old, quiet=True), confine=False).found} >= {
        ("schema", "input_bytes")
    }


def test_its_manifest_may_not_claim_another_schema(old: Path) -> None:
    edit_document(old / "manifest.json", schema_version=2)
    with pytest.raises(RunError, match=r"schema 2; run\.json says 1"):
        open_run(old)


RUN, OLD, IMAGES, OUT, BOXES = "RUN", str(FOLDER / "run"), str(FOLDER / "images"), "OUT", "boxes.csv"
VERDICTS = "verdicts.csv"
NETWORK = ["--checkpoint", str(FOLDER / "network.pth"), "--data", IMAGES]
NETWORK += [
    "--model",
    "tests.helpers.networks:GapNetwork",
    "--class-names",
    str(FOLDER / "names.txt"),
    "--device",
    "cpu",
]
UNREADABLE_LEFT_OUT = "6 samples, 1 left out"

READERS = [
    (["info", RUN], 0, "accuracy 0.333 (0.10–0.70, n 6; "),
    (["merge", RUN], 3, "complete already: run.h5 and manifest.json stay as they are"),
    (
        ["verify", RUN],
        0,
        "not checked: sample ids and labels were not compared with the dataset's fingerprint: schema 1",
    ),
    (["verify", RUN, "--recompute", "7", *NETWORK], 0, "no findings; 7 samples (1 unreadable, as recorded)"),
    (["compare", RUN, OLD, "--out", OUT], 0, "bee           2  +0.0 (-65.8 to +65.8)      0       0        6→6"),
    (["report", RUN, "--out", "OUT.html"], 3, "7 samples, 6 pictures"),
    (["report", RUN, "--against", OLD, "--out", "OUT.html"], 3, "0 predictions are another class"),
    (["render", RUN, "--data", IMAGES, "--out", "OUT.png"], 0, "7 of 7 selected samples"),
    (["sample", RUN, "--n", "3", "--stratify", "class", "--out", OUT], 2, "3 values of --stratify class want 2 each"),
    (["sample", RUN, "--n", "7", "--stratify", "class", "--out", OUT], 0, "7 of 7 samples drawn in 3 strata"),
    (["review", VERDICTS, "--run", RUN], 0, "1 sample, not drawn"),
    (["localize", RUN, "--annotations", BOXES, "--out", OUT], 0, "2 samples; 1 unreadable images; 4 not annotated"),
    (
        ["localize", RUN, "--annotations", BOXES, "--frame", "image", "--target", "predicted"],
        0,
        "2 samples; 1 unreadable images; 4 not annotated",
    ),
    (["faithfulness", RUN, *NETWORK, "--out", OUT], 0, "6 samples of 7 drawn"),
    (
        ["discover", RUN, *NETWORK, "--out", OUT],
        1,
        "no sample of 6 can be judged: 6 drawn beside no image of another class",
    ),
    (["export", RUN, "--to", "virelay", "--data", IMAGES, "--out", OUT], 0, UNREADABLE_LEFT_OUT),
    (["export", RUN, "--to", "png", "--data", IMAGES, "--out", OUT], 0, UNREADABLE_LEFT_OUT),
    (["export", RUN, "--to", "wsol", "--out", OUT], 0, UNREADABLE_LEFT_OUT),
    (["export", RUN, "--to", "csv", "--out", OUT], 0, "7 samples"),
    (["export", RUN, "--to", "parquet", "--out", OUT], 0, "7 samples"),
]
"""What a command is told, how it ends, and what it says."""


@pytest.mark.parametrize(("words", "code", "told"), READERS, ids=[words[0] for words, _, _ in READERS])
def test_every_command_reads_it(old: Path, tmp_path: Path, run_cli, words: list[str], code: int, told: str) -> None:
    (tmp_path / BOXES).write_text("id,x0,y0,x1,y1\nant/a.png,0,0,4,4\nbee/c.png,0,0,4,4\n")
    with open_run(old) as run:
        judged = run.sample("ant/a.png")
        append_verdict(tmp_path / VERDICTS, Verdict(run.plan.run_id, judged.id, judged.input_sha256, verdict="unclear"))
    places = {
        RUN: old,
        **{name: tmp_path / name for name in (BOXES, VERDICTS)},
        **{name: tmp_path / name for name in (OUT, "OUT.html", "OUT.png")},
    }
    if "parquet" in words:
        pytest.importorskip("pyarrow")
    if NETWORK[0] in words:
        pytest.importorskip("torch")
    ended, stdout, stderr = run_cli(*(places.get(word, word) for word in words), "--quiet")
    assert (ended, told in (stderr if code in (1, 2) else stdout)) == (code, True), stdout + stderr


def test_no_command_that_reads_a_run_is_left_out() -> None:
    of_a_run = (c.name for c in COMMANDS if "run" in {field.name for field, _ in members(c.config)})
    reading = set(of_a_run) - {"submit", "view"}  # the one makes a run; how the other sees this one, test_desk.py tells
    assert {words[0] for words, _, _ in READERS} == {*reading, "compare"}


@pytest.fixture
def again() -> list[str]:
    """The words by which its network and its images are named."""
    pytest.importorskip("torch")
    words = ["--model", "tests.helpers.networks:GapNetwork", "--class-names", str(FOLDER / "names.txt")]
    return [*words, "--device", "cpu", "--quiet"]


def test_its_labels_are_compared_with_the_dataset_when_it_is_recomputed(old: Path, again: list[str], run_cli) -> None:
    data = ["--checkpoint", FOLDER / "network.pth", "--data", FOLDER / "images"]
    code, stdout, stderr = run_cli("verify", old, "--recompute", 7, *data, *again)
    assert (code, "no findings" in stdout) == (0, True), stdout + stderr
    with edited(old, "shards/shard-00001.h5") as file:
        file["label"][1:] = file["prediction"][1:]
    with h5py.File(old / "run.h5", "r+") as master:
        master["label"][5:] = master["prediction"][5:]
    make_digests_right(old)
    assert run_cli("verify", old, "--quiet")[0] == 0
    code, stdout, _ = run_cli("verify", old, "--recompute", 7, *data, *again)
    assert code == 3
    assert "dataset: shards/shard-00001.h5:label: 2 rows, first sample 5: not what the dataset says now" in stdout


WORDS = ["--image-size", "8x12", "--resize", "10x14", "--mean", "0.5", "--std", "0.5", "-j", "0", "--threads", "1"]
"""What it was made with."""


def test_a_new_run_of_the_same_images_has_one_array_and_one_attribute_more(
    old: Path, again: list[str], tmp_path: Path, run_cli
) -> None:
    words = [*WORDS, "-b", "2", "--shard-size", "4", "--out", tmp_path / "new"]
    assert run_cli("explain", FOLDER / "network.pth", FOLDER / "images", *words, *again)[0] == 3
    name = "shards/shard-00000.h5"
    with h5py.File(old / name) as before, h5py.File(tmp_path / "new" / name) as after:
        assert set(after) - set(before) == {"input_bytes"}
        assert set(before) <= set(after)
        assert set(after.attrs) - set(before.attrs) == {"schema_min_reader"}
        assert after["input_bytes"][...].tolist() == [(FOLDER / "images" / each).stat().st_size for each in IDS[:4]]
        for array in sample_arrays("uint8", schema=1):
            ours, theirs = after[array.name], before[array.name]
            assert (ours.dtype, ours.shape, ours.chunks) == (theirs.dtype, theirs.shape, theirs.chunks)
            if array.dtype == "float32":
                np.testing.assert_allclose(ours[...], theirs[...], rtol=1e-5, atol=1e-6)
            elif array.name != "maps":
                assert np.array_equal(ours[...], theirs[...])


def test_a_shard_that_it_lost_is_made_again_as_schema_1(old: Path, again: list[str], run_cli) -> None:
    lost = old / "shards/shard-00001.h5"
    with h5py.File(lost) as file:
        names, cams = sorted(file), file["cams"][...]
    lost.unlink()
    code, _, stderr = run_cli("explain", FOLDER / "network.pth", FOLDER / "images", "--out", old, *WORDS, *again)
    assert code == 3, stderr
    with h5py.File(lost) as file:
        assert (sorted(file), int(file.attrs["schema_version"])) == (names, 1)
        assert "schema_min_reader" not in file.attrs
        np.testing.assert_allclose(file["cams"][...], cams, rtol=1e-5, equal_nan=True)
    assert verify(VerifyConfig(old, quiet=True), confine=False).found == []
