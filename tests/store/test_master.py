"""run.h5 says what the shards say, wherever the run is moved, and shows which rows are missing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam.commands.merge import merge
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError, StoppedEarlyError
from batchcam.job.stop import Stop
from batchcam.store import landing, master, schema
from batchcam.store.opening import open_run
from batchcam.store.reader import open_checked
from batchcam.store.schema import STATUS_MISSING, sample_arrays
from tests.helpers import damage

VIRTUAL = {"cams", "maps", "status"}


def column(run: Path, name: str) -> np.ndarray:
    parts = []
    for path in sorted((run / "shards").glob("*.h5")):
        with h5py.File(path) as file:
            parts.append(file[name][...])
    return np.concatenate(parts)


@pytest.mark.parametrize("maps", ["uint8", "float32", "none"])
@pytest.mark.parametrize("cams", ["all", "topk:2"])
def test_every_array_of_run_h5_is_that_of_the_shards(make_run, cams: str, maps: str) -> None:
    run = make_run(cams=cams, maps=maps)
    with h5py.File(run / "run.h5") as file:
        for array in sample_arrays(maps):
            np.testing.assert_array_equal(file[array.name][...], column(run, array.name), err_msg=array.name)
            assert file[array.name].is_virtual == (array.name in VIRTUAL), array.name


def test_columns_longer_than_a_chunk_are_those_that_were_explained(
    tmp_path: Path, make_plan, make_rows, make_shards, monkeypatch
) -> None:
    monkeypatch.setattr(schema, "column_chunk_rows", lambda rows, row_bytes: min(rows, 1000))
    plan = make_plan(sample_count=9000, shard_size=1777, maps="none", grid_size=(1, 2), channels=5)
    rows = make_rows(plan)
    for row, error in ((0, "x"), (4095, "ä" * 50), (4096, "y"), (8000, "z" * 80), (8999, "last")):
        rows.texts["error"][row] = error
    make_shards(tmp_path / "run", plan, rows)
    merge(tmp_path / "run")
    with h5py.File(tmp_path / "run/run.h5") as file:
        for name in {a.name for a in sample_arrays("none")} - VIRTUAL:
            values = file[name][...]
            assert len(values) > file[name].chunks[0], name  # else this shows nothing
            expected = rows.columns.get(name)
            if expected is None:
                values, expected = [v.decode() for v in values.tolist()], rows.texts[name]
            np.testing.assert_array_equal(values, expected, err_msg=name)
        assert file["error"].dtype.itemsize == 100


def test_chunks_of_run_h5_are_written_once(tmp_path: Path, make_plan, make_rows, make_shards, monkeypatch) -> None:
    plan = make_plan(sample_count=9000, shard_size=1777, maps="none", grid_size=(1, 2), channels=5)
    make_shards(tmp_path / "run", plan, make_rows(plan))
    merge(tmp_path / "run")
    with h5py.File(tmp_path / "run/run.h5") as file:
        stored = [file[a.name].id.get_storage_size() for a in sample_arrays("none") if a.name not in VIRTUAL]
        # a chunk that is written again with another size leaves its first place unused
        assert sum(stored) + 100_000 > (tmp_path / "run/run.h5").stat().st_size


def test_run_h5_holds_the_classifier_the_classes_and_the_table_of_shards(sound_run: Path) -> None:
    with h5py.File(sound_run / "run.h5") as file, h5py.File(sound_run / damage.MIDDLE) as shard:
        for name in ("classifier/weight", "classifier/bias", "class_name"):
            np.testing.assert_array_equal(file[name][...], shard[name][...])
        assert file["config"][()] == shard["config"][()]
        paths = sorted((sound_run / "shards").glob("*.h5"))
        assert file["shards/file"].asstr()[...].tolist() == [path.name for path in paths]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        assert file["shards/sha256"].asstr()[...].tolist() == digests
        assert file["shards/bytes"][...].tolist() == [path.stat().st_size for path in paths]
        assert file["shards/first"][...].tolist() == [0, 8, 16]
        assert file["shards/count"][...].tolist() == [8, 8, 5]
        assert (file.attrs["first_sample"], file.attrs["sample_count"]) == (0, 21)


def test_run_h5_of_many_shards_refers_to_none_and_the_run_is_read_and_proven(make_run, monkeypatch) -> None:
    monkeypatch.setattr(schema, "REFERRED_SHARDS", 2)
    run = make_run()
    with h5py.File(run / "run.h5") as file:
        assert not {"cams", "maps"} & set(file)
        np.testing.assert_array_equal(file["status"][...], column(run, "status"))
    assert verify(VerifyConfig(run, quiet=True), confine=False).found == []
    with open_run(run) as opened:
        for name in ("status", "cams", "maps", "label"):
            np.testing.assert_array_equal(getattr(opened, name)[:], column(run, name))
    with damage.edited(run, "run.h5") as file:
        file["status"][3] = 7
    (finding,) = verify(VerifyConfig(run, quiet=True), confine=False).found
    assert (finding.file, finding.array, finding.rows) == ("run.h5", "status", 1)


def test_merge_refuses_a_shard_of_another_worker_that_has_changed(finished_run: Path) -> None:
    (finished_run / "manifest.json").unlink()
    damage.shard_byte_flipped(finished_run)
    with pytest.raises(RunError, match=r"shard-00001\.h5: changed after it was written"):
        merge(finished_run)


@pytest.mark.parametrize("damaged", [damage.shard_missing, damage.shard_and_its_digest_missing])
def test_rows_of_a_missing_shard_have_status_255(finished_run: Path, damaged) -> None:
    damaged(finished_run)
    with h5py.File(finished_run / "run.h5") as file:
        missing = file["status"][...] == STATUS_MISSING
        assert np.flatnonzero(missing).tolist() == list(range(8, 16))
        assert np.isnan(file["cams"][8:16]).all()
        assert (file["prediction"][8:16] >= 0).all()


def test_run_h5_alone_shows_that_every_shard_is_missing(finished_run: Path, tmp_path: Path) -> None:
    shutil.copyfile(finished_run / "run.h5", tmp_path / "alone.h5")
    with h5py.File(tmp_path / "alone.h5") as file:
        assert (file["status"][...] == STATUS_MISSING).all()


def test_a_run_that_is_moved_stays_whole(finished_run: Path, tmp_path: Path, monkeypatch) -> None:
    expected = column(finished_run, "maps")
    moved = finished_run.rename(tmp_path / "elsewhere é")
    monkeypatch.chdir(tmp_path.parent)
    with h5py.File(moved / "run.h5") as file:
        np.testing.assert_array_equal(file["maps"][...], expected)
        assert not (file["status"][...] == STATUS_MISSING).any()


def test_logits_stay_in_the_shards_where_they_are_many(make_run, monkeypatch) -> None:
    monkeypatch.setattr(schema, "MASTER_COPY_LIMIT", 21 * 5 * 4 - 1)
    run = make_run()
    with h5py.File(run / "run.h5") as file:
        assert file["logits"].is_virtual
        assert not file["confidence"].is_virtual
        np.testing.assert_array_equal(file["logits"][...], column(run, "logits"))
    with h5py.File(run / "run.h5") as file:
        assert file["input_sha256"].is_virtual  # 32 bytes a sample


def test_verify_accepts_logits_that_stay_in_the_shards(make_run, run_cli, monkeypatch) -> None:
    monkeypatch.setattr(schema, "MASTER_COPY_LIMIT", 0)
    assert run_cli("verify", make_run())[0] == 0


def test_xarray_opens_run_h5_with_named_dimensions(sound_run: Path) -> None:
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    with xarray.open_dataset(sound_run / "run.h5", engine="h5netcdf") as dataset:
        assert dataset["maps"].dims == ("sample_index", "y", "x")
        assert dataset["cams"].dims == ("sample_index", "map_rank", "cam_y", "cam_x")
        np.testing.assert_array_equal(dataset["cams"].values, column(sound_run, "cams"))


def test_merging_again_gives_the_same_run_h5(finished_run: Path) -> None:
    before = (finished_run / "run.h5").read_bytes()
    (finished_run / "manifest.json").unlink()
    time.sleep(1.1)  # a clock in the file would show
    merge(finished_run)
    assert (finished_run / "run.h5").read_bytes() == before


def test_a_complete_run_keeps_its_files_when_another_version_merges_it(
    finished_run: Path, monkeypatch, run_cli
) -> None:
    made = (finished_run / "run.h5", finished_run / "manifest.json")
    before = [path.read_bytes() for path in made]
    monkeypatch.setattr("batchcam.store.layout.version", lambda: "99.0")
    assert merge(finished_run).kept
    assert [path.read_bytes() for path in made] == before
    assert "complete already: run.h5 and manifest.json stay as they are" in run_cli("merge", finished_run)[1]
    made[0].unlink()
    assert not merge(finished_run).kept
    assert [path.read_bytes() == old for path, old in zip(made, before, strict=True)] == [False, False]


def test_a_complete_run_whose_manifest_states_other_totals_is_merged_anew(finished_run: Path) -> None:
    totals = json.loads((finished_run / "manifest.json").read_bytes())["totals"]
    damage.edit_document(finished_run / "manifest.json", totals={**totals, "correct": totals["correct"] + 1})
    merged = merge(finished_run)
    assert (merged.kept, merged.totals) == (False, totals)


def test_merging_again_replaces_a_damaged_run_h5(finished_run: Path, run_cli) -> None:
    damage.run_h5_flipped(finished_run)
    assert run_cli("verify", finished_run)[0] == 3
    merge(finished_run)
    assert run_cli("verify", finished_run)[0] == 0


def test_merging_again_never_leaves_run_h5_without_its_digest(finished_run: Path, monkeypatch) -> None:
    seen = []
    for name in ("open", "write", "fsync", "close", "replace", "unlink"):
        real = getattr(os, name)

        def watched(*arguments, real=real, name=name, **options):
            seen.append((name, landing.read_digest(finished_run / "run.h5")))
            return real(*arguments, **options)

        monkeypatch.setattr(landing.os, name, watched)
    (finished_run / "manifest.json").unlink()
    merge(finished_run)
    digest = hashlib.sha256((finished_run / "run.h5").read_bytes()).hexdigest()
    assert {each for _, each in seen} == {digest}
    assert [name for name, _ in seen].count("replace") == 4  # digest, run.h5, what is proven, manifest


def test_totals_do_not_depend_on_how_samples_come_in_shards(make_run) -> None:
    totals = [
        json.loads((make_run(f"by {n}", shard_size=n) / "manifest.json").read_bytes())["totals"] for n in (1, 8, 21)
    ]
    assert totals[0] == totals[1] == totals[2]


def test_totals_are_those_of_all_samples(tmp_path: Path, make_plan, make_rows, make_shards) -> None:
    plan = make_plan()
    rows = make_rows(plan)
    make_shards(tmp_path / "run", plan, rows)
    merge(tmp_path / "run")
    pairs = [
        (a, b) for a, b in zip(rows.columns["label"], rows.columns["prediction"], strict=True) if a >= 0 and b >= 0
    ]
    status = rows.columns["status"].tolist()
    assert json.loads((tmp_path / "run/manifest.json").read_bytes())["totals"] == {
        "samples": 21,
        "labelled": len(pairs),
        "correct": sum(a == b for a, b in pairs),
        "accuracy": sum(a == b for a, b in pairs) / len(pairs),
        "status": {
            "unreadable": sum(s & 1 for s in status),
            "non finite": sum(s >> 1 & 1 for s in status),
            "constant map": sum(s >> 2 & 1 for s in status),
            "no positive evidence": sum(s >> 3 & 1 for s in status),
        },
        "largest_identity_residual": float(np.nanmax(rows.columns["identity_residual"])),
    }


def test_an_interrupt_ends_merging_at_the_next_shard(finished_run: Path, monkeypatch) -> None:
    before, real, read = (finished_run / "run.h5").read_bytes(), master.collect, []

    def interrupted(*arguments, **options):
        for each in real(*arguments, **options):
            read.append(each[0].index)
            if each[0].index == 1:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.3)
            yield each

    monkeypatch.setattr(master, "collect", interrupted)
    with pytest.raises(StoppedEarlyError, match="SIGINT"):
        merge(finished_run)
    assert read == [0, 1]
    assert (finished_run / "run.h5").read_bytes() == before
    assert not list(finished_run.glob(".*"))
    assert not [t for t in threading.enumerate() if t.name.startswith("merge")]


def test_a_reason_to_stop_ends_merging_at_the_next_shard(finished_run: Path, monkeypatch) -> None:
    before, real, read, asked = (finished_run / "run.h5").read_bytes(), master.collect, [], threading.Event()

    def waiting(*arguments, **options):
        for each in real(*arguments, **options):
            read.append(each[0].index)
            if len(read) == 2:
                assert asked.wait(60)
                time.sleep(1)
            yield each

    class Stopped(Stop):
        def reason(self) -> str | None:
            if len(read) < 2:
                return None
            asked.set()
            return "SIGTERM"

    monkeypatch.setattr(master, "collect", waiting)
    with Stopped(), pytest.raises(StoppedEarlyError, match="stopped by SIGTERM; run the same command again"):
        merge(finished_run)
    assert read == [0, 1]
    assert (finished_run / "run.h5").read_bytes() == before
    assert not list(finished_run.glob(".*"))


def test_merging_again_leaves_a_manifest_that_says_the_same(finished_run: Path) -> None:
    before = (finished_run / "manifest.json").read_bytes()
    merge(finished_run)
    assert (finished_run / "manifest.json").read_bytes() == before
    (finished_run / "manifest.json").write_bytes(before.replace(b"21", b"12"))
    merge(finished_run)
    assert (finished_run / "manifest.json").read_bytes() != before


def test_merge_removes_what_dead_workers_left(finished_run: Path, run_cli) -> None:
    damage.leftover_partial(finished_run)
    (finished_run / ".run.h5.0123456789abcdef.partial").write_bytes(b"half")
    merge(finished_run)
    assert run_cli("verify", finished_run)[0] == 0


def test_merge_names_the_shards_that_are_missing(tmp_path: Path, make_plan, make_rows, make_shards, run_cli) -> None:
    plan = make_plan()
    make_shards(tmp_path / "run", plan, make_rows(plan), skip=(0, 2))
    with pytest.raises(RunError, match=r"2 of 3 shards are missing \(0, 2\); run explain again"):
        merge(tmp_path / "run")
    assert run_cli("merge", tmp_path / "run")[0] == 1
    assert not (tmp_path / "run/manifest.json").exists()
    assert not (tmp_path / "run/run.h5").exists()


def test_merge_ends_with_3_when_samples_need_a_look(finished_run: Path, make_run, run_cli) -> None:
    code, stdout, _ = run_cli("merge", finished_run, "--json")
    summary = json.loads(stdout.splitlines()[-1])
    assert (code, summary["findings"]) == (3, 2)
    assert "1 unreadable, 1 non finite" in stdout.replace("; ", ", ")
    assert run_cli("merge", make_run(sample_count=3))[0] == 0


def change(run: Path, edit) -> None:
    """Edit the middle shard behind a digest made right."""
    path = run / damage.MIDDLE
    with h5py.File(path, "r+") as file:
        edit(file)
    line = landing.digest_line(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    landing.digest_path(path).write_text(line)


def test_merge_refuses_a_shard_that_was_changed_before_it_is_parsed(finished_run: Path, monkeypatch) -> None:
    path = finished_run / damage.MIDDLE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    opened = []
    monkeypatch.setattr(master, "open_checked", lambda *each: opened.append(each[0]) or open_checked(*each))
    with pytest.raises(RunError, match=r"shard-00001\.h5: changed after it was written: remove it"):
        merge(finished_run)
    assert path not in opened


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda f: f.attrs.create("run_id", np.bytes_("0" * 64)), "belongs to another run"),
        (lambda f: f["sample_index"].__setitem__(2, 9), "does not hold samples 8 to 15"),
        (lambda f: f.__delitem__("label"), "label: missing"),
        (lambda f: f.move("label", "labels"), "label: missing"),
        (lambda f: (f.__delitem__("label"), f.create_dataset("label", data=np.zeros(7, int))), "label: shape"),
    ],
)
def test_merge_refuses_a_shard_that_does_not_belong_and_leaves_the_manifest(finished_run: Path, edit, message) -> None:
    before = (finished_run / "manifest.json").read_bytes()
    change(finished_run, edit)
    with pytest.raises(RunError, match=rf"shard-00001\.h5: .*{message}"):
        merge(finished_run)
    assert (finished_run / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"not HDF5", b"\x89HDF\r\n\x1a\n"])
def test_merge_refuses_what_is_no_hdf5_file(finished_run: Path, content: bytes) -> None:
    (finished_run / damage.MIDDLE).write_bytes(content)
    with pytest.raises(RunError, match=r"shard-00001\.h5: changed after it was written"):
        merge(finished_run)


def test_merge_refuses_a_shard_whose_digest_file_is_damaged(finished_run: Path) -> None:
    damage.flip(finished_run / (damage.MIDDLE + ".sha256"), 70)
    with pytest.raises(RunError, match=r"1 of 3 shards are missing \(1\); run explain again"):
        merge(finished_run)


def test_merge_of_a_folder_without_a_plan_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run directory"):
        merge(tmp_path)


def test_a_long_error_of_one_sample_is_the_only_text_that_is_stored(
    tmp_path: Path, make_plan, make_rows, make_shards
) -> None:
    plan = make_plan(sample_count=9000, shard_size=9000, maps="none")
    rows = make_rows(plan)
    errors = [""] * 9000
    errors[5000] = "ä" * 5000
    rows.texts["error"][:] = errors
    run = tmp_path / "run"
    make_shards(run, plan, rows)
    merge(run)
    for path in (run / "run.h5", run / "shards" / "shard-00000.h5"):
        with h5py.File(path) as file:
            error = file["error"]
            assert error.id.get_num_chunks() == 1
            assert error.dtype.itemsize == 10_000
            assert error.chunks[0] * error.dtype.itemsize <= 2**20
            assert error.asstr()[...].tolist() == errors
