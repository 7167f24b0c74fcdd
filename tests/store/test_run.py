"""The reader: the same numbers as in the files, whatever is asked for and however far the run is."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import batchcam
from batchcam.errors import RunError
from batchcam.rules import Status
from batchcam.store import files as files_module
from batchcam.store.opening import open_partial
from batchcam.store.plan import read_plan
from batchcam.store.reader import open_structured
from batchcam.store.run import Column, Run
from batchcam.store.schema import SAMPLE_ARRAYS
from tests.helpers.wellformed import Page


def stored(run: Path, name: str) -> np.ndarray:
    """An array over all shards, by plain h5py."""
    parts = []
    for path in sorted(run.glob("shards/*.h5")):
        with h5py.File(path) as file:
            values = file[name][...]
            parts.append(np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values)
    return np.concatenate(parts)


NAMES = ("sample_index", "sample_id", "label", "prediction", "confidence", "logits", "cam_class", "cams", "maps",
         "map_range", "crop_box", "image_size", "identity_residual", "status", "error", "input_sha256")  # fmt: skip


@pytest.fixture
def run(sound_run):
    with batchcam.open_run(sound_run) as opened:
        yield opened


@pytest.mark.parametrize("name", NAMES)
def test_every_array_reads_as_plain_h5py_reads_the_shards(sound_run, run, name):
    expected = stored(sound_run, name)
    array = getattr(run, name)
    assert array.shape == expected.shape
    assert np.array_equal(np.asarray(array), expected, equal_nan=expected.dtype.kind == "f")


@pytest.mark.parametrize("name", ["prediction", "cams", "sample_id", "status"])
@pytest.mark.parametrize(
    "index",
    [0, -1, slice(2, 15), slice(None, None, -3), [5, 1, 1, 17], np.array([], int)],
    ids=["first", "last", "across-shards", "backwards", "unsorted-with-repeats", "none"],
)
def test_indexing_is_that_of_numpy(sound_run, run, name, index):
    expected = stored(sound_run, name)[index]
    given = getattr(run, name)[index]
    assert np.array_equal(given, expected, equal_nan=getattr(expected, "dtype", np.dtype(int)).kind == "f")


def test_mask_and_further_axes_are_those_of_numpy(sound_run, run):
    mask = run.prediction[:] != run.label[:]
    assert 0 < mask.sum() < len(run)
    np.testing.assert_array_equal(run.cams[mask, 1], stored(sound_run, "cams")[mask, 1])
    np.testing.assert_array_equal(run.cams[4, 1, 2], stored(sound_run, "cams")[4, 1, 2])


@pytest.mark.parametrize("row", [10_000, -10_000])
def test_row_that_is_not_there_is_an_index_error(run, row):
    with pytest.raises(IndexError, match=f"row {row} of {len(run)}"):
        run[row]
    with pytest.raises(IndexError):
        run.cams[row]


def test_sample_tells_everything_about_a_row(sound_run, run):
    sample = run[7]
    assert sample.id == stored(sound_run, "sample_id")[7]
    assert sample.prediction == run.class_names[stored(sound_run, "prediction")[7]]
    assert sample.input_sha256 == stored(sound_run, "input_sha256")[7].tobytes().hex()
    np.testing.assert_array_equal(sample.cams, stored(sound_run, "cams")[7])
    assert run.sample(sample.id).row == 7


def test_unreadable_sample_says_why_and_has_no_prediction(run):
    row = int(np.flatnonzero(run.status[:] == Status.UNREADABLE)[0])
    sample = run[row]
    assert sample.prediction is None
    assert sample.error
    assert sample.status == Status.UNREADABLE


def test_cam_of_a_class_by_name_or_index_is_the_stored_one(sound_run, run):
    cams = stored(sound_run, "cams")
    for k, name in enumerate(run.class_names):
        np.testing.assert_array_equal(run.cam(8, name), cams[8, k])
        np.testing.assert_array_equal(run.cam(run[8].id, k), cams[8, k])
    np.testing.assert_array_equal(run.cam(8), cams[8, stored(sound_run, "prediction")[8]])
    np.testing.assert_array_equal(run.map(8), stored(sound_run, "maps")[8])


@pytest.mark.parametrize("wanted", ["no such class", 99, -1])
def test_class_that_is_not_there_is_a_key_error(run, wanted):
    with pytest.raises(KeyError, match="class"):
        run.cam(0, wanted)


def test_sample_that_is_not_there_is_a_key_error(run):
    with pytest.raises(KeyError, match="no sample 'elsewhere'"):
        run.sample("elsewhere")


def test_class_without_a_stored_map_is_a_key_error_that_says_what_is_stored(make_run):
    with batchcam.open_run(make_run(cams="predicted", maps="none")) as run:
        other = (int(run.prediction[0]) + 1) % len(run.class_names)
        with pytest.raises(KeyError, match="'predicted'"):
            run.cam(0, other)
        with pytest.raises(KeyError, match="stores no maps"):
            run.map(0)
        with pytest.raises(AttributeError, match="stores no maps"):
            run.maps  # noqa: B018


@pytest.mark.parametrize("at", ["latest", "latest/.", "outer/run"])
def test_a_run_is_read_and_checked_through_a_link(finished_run, tmp_path, run_cli, at):
    (tmp_path / "latest").symlink_to(finished_run.name)
    (tmp_path / "outer").symlink_to(".")
    (tmp_path / "run").symlink_to(finished_run.name)
    for words in (["verify"], ["info"], ["merge"]):
        code, _, stderr = run_cli(*words, tmp_path / at)
        assert code in (0, 3), stderr
    assert "no findings" in run_cli("verify", tmp_path / at)[1]
    with batchcam.open_run(tmp_path / at) as run:
        assert len(run.cams[:]) == len(run) == 21


def test_run_in_progress_gives_the_shards_that_have_landed_and_says_so(finished_run):
    expected = stored(finished_run, "sample_index")
    (finished_run / "manifest.json").unlink()
    gone = read_plan(finished_run).shards[1]
    for path in finished_run.glob(f"shards/{gone.file}*"):
        path.unlink()
    with batchcam.open_run(finished_run) as run:
        assert not run.complete
        assert "2 of 3 shards" in repr(run)
        kept = np.r_[expected[: gone.first], expected[gone.first + gone.count :]]
        np.testing.assert_array_equal(run.sample_index[:], kept)
        assert run[gone.first].index == gone.first + gone.count


def test_complete_run_with_a_shard_gone_is_refused(finished_run):
    next(finished_run.glob("shards/shard-00001.h5")).unlink()
    with pytest.raises(RunError, match="1 of 3 shards gone from a complete run; see batchcam verify"):
        batchcam.open_run(finished_run)


def swap_shards(run: Path) -> None:
    one, other = (run / "shards" / f"shard-0000{i}.h5" for i in (0, 1))
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def edit(path: Path) -> None:
    """Change one number with an HDF5 library, which renews every checksum inside the file."""
    with h5py.File(path, "r+") as file:
        file["cams"][2, 0, 1, 1] += 1


@pytest.mark.parametrize(("prove", "reason"), [(True, "its SHA-256 is another"), (False, "not this run's file")])
def test_swapped_shards_are_refused_by_name_and_not_read_as_data(finished_run, prove, reason):
    swap_shards(finished_run)
    with (
        batchcam.open_run(finished_run, prove=prove) as run,
        pytest.raises(RunError, match=f"shard-00000.h5: .*{reason}"),
    ):
        run.cams[0]


@pytest.mark.parametrize("prove", [True, False])
def test_truncated_shard_is_refused_by_name(finished_run, prove):
    truncate(finished_run / "shards" / "shard-00001.h5")
    with batchcam.open_run(finished_run, prove=prove) as run, pytest.raises(RunError, match=r"shard-00001.h5"):
        run.cams[:]


@pytest.mark.parametrize("state", ["complete", "in progress", "one shard"])
def test_edited_shard_is_refused_by_name_and_read_only_when_asked_not_to_prove(finished_run, state):
    path = finished_run / "shards" / "shard-00001.h5"
    row = read_plan(finished_run).shards[1].first
    edit(path)
    opened = path if state == "one shard" else finished_run
    row = 0 if state == "one shard" else row
    if state == "in progress":
        (finished_run / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"shard-00001.h5: changed after it was written"):
        batchcam.open_run(opened).cams[row]
    with batchcam.open_run(opened, prove=False) as run:
        assert run.cams[row].size


@pytest.mark.parametrize("number", [2**63 - 1, -2])
@pytest.mark.parametrize("array", ["label", "prediction"])
def test_number_that_is_no_class_is_refused_and_names_no_other_class(finished_run, array, number):
    path = finished_run / "shards" / "shard-00000.h5"
    with h5py.File(path, "r+") as file:
        file[array][1] = number
    with (
        batchcam.open_run(finished_run, prove=False) as run,
        pytest.raises(RunError, match=f"row 1: {array} {number} is no class"),
    ):
        run[1]


def test_edited_run_h5_is_refused_where_its_copies_are_read(finished_run):
    with h5py.File(finished_run / "run.h5", "r+") as file:
        file["label"][0] += 1
    with batchcam.open_run(finished_run) as run, pytest.raises(RunError, match=r"run.h5: changed after"):
        run.label[:]


@pytest.mark.parametrize("damage", [Path.unlink, truncate, edit], ids=["gone", "truncated", "edited"])
@pytest.mark.parametrize("complete", [True, False])
def test_partial_reading_marks_the_rows_of_a_damaged_shard_and_reads_the_others(finished_run, damage, complete):
    whole = {name: stored(finished_run, name) for name in NAMES}
    shard = read_plan(finished_run).shards[1]
    lost = np.zeros(len(whole["label"]), bool)
    lost[shard.first : shard.first + shard.count] = True
    damage(finished_run / "shards" / shard.file)
    if not complete:
        (finished_run / "manifest.json").unlink()
    with batchcam.open_run(finished_run, partial=True) as run:
        np.testing.assert_array_equal(run.missing, lost)
        assert "2 of 3 shards" in repr(run)
        for name, values in whole.items():
            given = np.asarray(getattr(run, name))
            assert np.array_equal(given[~lost], values[~lost], equal_nan=values.dtype.kind == "f"), name
        assert np.isnan(run.cams[lost]).all()
        assert (run.status[lost] == 255).all()
        sample = run[shard.first]
        assert (sample.prediction, sample.label, sample.id, int(sample.status)) == (None, None, "", 255)
        assert run.sample(whole["sample_id"][-1]).row == len(lost) - 1
        with pytest.raises(KeyError):
            run.sample(whole["sample_id"][shard.first])


def test_partial_reading_of_a_sound_run_misses_nothing(sound_run):
    with batchcam.open_run(sound_run, partial=True) as run:
        assert not run.missing.any()
        np.testing.assert_array_equal(run.prediction[:], stored(sound_run, "prediction"))


def test_run_without_one_sound_shard_is_refused_even_partially(finished_run):
    for path in finished_run.glob("shards/*.h5"):
        truncate(path)
    with pytest.raises(RunError, match=r"shard-00000.h5: changed"):
        batchcam.open_run(finished_run, partial=True)


def test_pipe_in_place_of_a_shard_is_refused_without_waiting(finished_run):
    path = finished_run / "shards" / "shard-00001.h5"
    path.unlink()
    os.mkfifo(path)
    with batchcam.open_run(finished_run) as run, pytest.raises(RunError, match="not a file of its own"):
        run.cams[:]


def test_single_shard_opens_alone(sound_run, tmp_path):
    shutil.copy(sound_run / "shards" / "shard-00001.h5", tmp_path / "copy.h5")
    with batchcam.open_run(tmp_path / "copy.h5") as run, h5py.File(tmp_path / "copy.h5") as file:
        assert len(run) == file.attrs["sample_count"]
        assert run[0].index == file.attrs["first_sample"]
        assert run.class_names == tuple(file["class_name"].asstr()[:])


@pytest.mark.parametrize("content", [b"", b"not hdf5"])
def test_file_that_is_no_shard_is_refused(tmp_path, content):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(RunError, match="not a shard"):
        batchcam.open_run(tmp_path / "a.h5")


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a run directory"):
        batchcam.open_run(tmp_path)
    with pytest.raises(RunError, match="none: no such folder"):
        batchcam.open_run(tmp_path / "none")


ROW_BYTES = 8 + 5 * 3 * 5 * 4  # of a sample's index and its CAMs


@pytest.mark.parametrize("budget", [1, 3 * ROW_BYTES, 2**20])
def test_blocks_hold_the_rows_asked_for_in_order_within_their_budget_and_one_shard(sound_run, run, budget):
    mask = np.arange(len(run)) % 3 != 1
    blocks = list(run.blocks(("sample_index", "cams"), mask, budget))
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in blocks]), np.flatnonzero(mask))
    cams = stored(sound_run, "cams")
    for rows, block in blocks:
        np.testing.assert_array_equal(block["sample_index"], rows)
        np.testing.assert_array_equal(block["cams"], cams[rows])
        assert rows[-1] - rows[0] < max(1, budget // ROW_BYTES)
        assert rows[0] // 8 == rows[-1] // 8


def test_what_a_block_holds_depends_on_its_shard_and_not_on_what_else_is_asked_for(run):
    few, all_ = ([rows.tolist() for rows, _ in run.blocks(("cams",), r, 900)] for r in ([4, 5, 6, 7, 20], None))
    assert all_ == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9, 10], [11, 12, 13], [14, 15], [16, 17, 18], [19, 20]]
    assert few == [[4, 5], [6, 7], [20]]


def test_blocks_are_smaller_where_the_caller_holds_more_of_each_row(run):
    assert [len(rows) for rows, _ in run.blocks(("cams",), range(6), 1200, held=300)] == [2, 2, 2]


def test_blocks_of_what_lies_in_the_master_reach_over_shards(run):
    ((rows, block),) = run.blocks(("label", "sample_id"))
    assert rows.tolist() == list(range(len(run)))
    assert block["sample_id"].tolist() == run.sample_id[:].tolist()


def test_blocks_open_each_shard_once_and_no_other_than_those_asked_for(run, monkeypatch):
    opened = []
    monkeypatch.setattr(files_module, "OPEN_FILES", 1)
    monkeypatch.setattr(
        files_module, "open_structured", lambda path, *rest: opened.append(path.name) or open_structured(path, *rest)
    )
    assert len(list(run.blocks(("cams", "maps", "sample_id"), [0, 3, 7, 16, 20], budget=1))) == 5
    assert opened == ["run.h5", "shard-00000.h5", "shard-00002.h5"]  # the first says what proves the others


def test_blocks_keep_the_order_asked_for(sound_run, run):
    order = [20, 3, 3, 9]
    cams = [block["cams"] for _, block in run.blocks(("cams",), order)]
    np.testing.assert_array_equal(np.concatenate(cams), stored(sound_run, "cams")[order])


def test_blocks_of_no_rows_are_none(run):
    assert list(run.blocks(("cams",), np.zeros(len(run), bool))) == []


def test_blocks_of_an_array_or_row_that_is_not_there_are_refused(run):
    with pytest.raises(KeyError, match=r"no array 'cam'; there are .*cams"):
        next(run.blocks(("cam",)))
    with pytest.raises(IndexError):
        next(run.blocks(("cams",), [21]))


def test_few_files_stay_open_however_many_shards(make_run, monkeypatch):
    monkeypatch.setattr(files_module, "OPEN_FILES", 2)
    with batchcam.open_run(make_run(shard_size=2)) as run:
        assert len(run.shards) > 5
        assert len(run.cams[:]) == len(run)
        assert len(run._files) <= 2


def test_threads_read_the_right_rows_while_they_close_each_others_files(make_run, monkeypatch):
    monkeypatch.setattr(files_module, "OPEN_FILES", 1)
    path = make_run(shard_size=2)
    cams = stored(path, "cams")
    rows = np.random.default_rng(0).integers(len(cams), size=(4, 200))
    with batchcam.open_run(path) as run, concurrent.futures.ThreadPoolExecutor(4) as threads:
        for asked, read in zip(rows, threads.map(lambda asked: [run.cams[row] for row in asked], rows), strict=True):
            np.testing.assert_array_equal(read, cams[asked])


def test_close_leaves_no_file_open(sound_run):
    before = len(os.listdir("/proc/self/fd"))
    with batchcam.open_run(sound_run) as run:
        run.cams[:]
        assert len(os.listdir("/proc/self/fd")) > before
    assert len(os.listdir("/proc/self/fd")) == before


def test_read_only_run_opens(finished_run):
    for path in [*finished_run.rglob("*"), finished_run]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    with batchcam.open_run(finished_run) as run:
        assert run[0].cams.size
    for path in [finished_run, *finished_run.rglob("*")]:
        path.chmod(0o755)


def test_file_system_without_locks_is_read_without(sound_run, monkeypatch):
    real = h5py.File

    def without_locks(path, mode, locking=None, **options):
        if locking is None:
            raise OSError(37, "No locks available")
        return real(path, mode, locking=locking, **options)

    monkeypatch.setattr(h5py, "File", without_locks)
    with batchcam.open_run(sound_run) as run:
        assert run[0].cams.size
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "TRUE")
    with batchcam.open_run(sound_run) as run, pytest.raises(RunError, match="No locks available"):
        run.cams[0]


def test_dataframe_has_a_row_per_sample_and_names_of_classes(sound_run, run):
    pandas = pytest.importorskip("pandas")
    frame = run.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.index.tolist() == stored(sound_run, "sample_index").tolist()
    assert frame["prediction"].tolist() == stored(sound_run, "prediction").tolist()
    known = frame[frame["label"] >= 0]
    assert [run.class_names[k] for k in known["label"]] == known["label_name"].tolist()


def test_xarray_has_named_dimensions_and_class_names(sound_run, run):
    pytest.importorskip("xarray")
    dataset = run.to_xarray()
    assert dataset["cams"].dims == ("sample_index", "map_rank", "cam_y", "cam_x")
    name = run.class_names[1]
    np.testing.assert_array_equal(dataset["logits"].sel(class_name=name), stored(sound_run, "logits")[:, 1])


def test_reader_needs_no_torch(sound_run):
    code = (
        f"import sys; sys.modules['torch'] = None; import batchcam; print(len(batchcam.open_run({str(sound_run)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_a_run_has_exactly_the_schemas_arrays_as_attributes():
    assert [name for name, value in vars(Run).items() if isinstance(value, Column)] == [a.name for a in SAMPLE_ARRAYS]


def test_an_attribute_tells_its_meaning_and_shape_and_takes_no_value(run):
    assert Run.cam_class.__doc__ == "class that each map of cams explains: int64 (sample_index, map_rank)."
    with pytest.raises(AttributeError, match="cams is read from the run's files"):
        run.cams = np.zeros(3)
    with pytest.raises(AttributeError, match="predicton"):
        run.predicton  # noqa: B018


def row_elsewhere(run: Run, row: int) -> tuple[int, np.ndarray, str]:
    return os.getpid(), run.cams[row], run.sample_id[row]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_an_open_run_is_read_by_other_processes(sound_run, run, method):
    expected = stored(sound_run, "cams"), stored(sound_run, "sample_id")
    run.cams[:]  # its files are open
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, context) as pool:
        found = list(pool.map(row_elsewhere, [run] * len(run), range(len(run))))
    assert os.getpid() not in {process for process, _, _ in found}
    np.testing.assert_array_equal([cam for _, cam, _ in found], expected[0])
    assert [sample_id for _, _, sample_id in found] == list(expected[1])


def test_a_fork_reads_through_files_of_its_own(run):
    def place(move_to: int | None = None) -> int:
        """Where the first shard's file is read next, which processes share that share an open file."""
        run.cams[0]
        descriptor = run._files.shard(run.shards[0]).id.get_vfd_handle()
        return os.lseek(descriptor, *((0, os.SEEK_CUR) if move_to is None else (move_to, os.SEEK_SET)))

    before = place()
    child = os.fork()
    if child == 0:
        moved = place(move_to=before + 7)
        os._exit(0 if moved == before + 7 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert place() == before
    assert run.cams[0].size


def pickled(run: Run) -> Run:
    return pickle.loads(pickle.dumps(run))


def test_a_pickled_run_is_its_path_and_no_data(run):
    run.cams[:], run.row(run[3].id)
    assert len(pickle.dumps(run)) < 1000


@pytest.mark.parametrize("opened", ["run", "one shard"])
def test_a_pickled_run_is_proven_again_unless_opened_without(finished_run, opened):
    shard = finished_run / "shards" / "shard-00000.h5"
    path = shard if opened == "one shard" else finished_run
    with batchcam.open_run(path) as run, batchcam.open_run(path, prove=False) as unproven:
        assert run.cams[0].size
        data = pickle.dumps((run, unproven))
    edit(shard)
    with pytest.raises(RunError, match=r"shard-00000.h5: changed after it was written"):
        pickle.loads(data)[0].cams[0]
    assert pickled(unproven).cams[0].size


def test_a_pickled_run_keeps_its_rows_whatever_has_landed_since(finished_run, tmp_path):
    gone = read_plan(finished_run).shards[1]
    kept = [shutil.move(path, tmp_path / path.name) for path in finished_run.glob(f"shards/{gone.file}*")]
    (finished_run / "manifest.json").rename(tmp_path / "manifest.json")
    run = batchcam.open_run(finished_run)
    ids = list(run.sample_id[:])
    for path in kept:
        shutil.move(path, finished_run / "shards" / path.name)
    again = pickled(run)
    assert (list(again.sample_id[:]), repr(again)) == (ids, repr(run))
    assert len(batchcam.open_run(finished_run)) > len(ids)


@pytest.mark.parametrize("how", [open_partial, lambda path: batchcam.open_run(path, partial=True)])
def test_a_pickled_partial_run_is_as_partial_as_it_was(finished_run, how):
    truncate(finished_run / "shards" / "shard-00001.h5")
    run = how(finished_run)
    again = pickled(run)
    assert (repr(again), again.absent, again.lost) == (repr(run), run.absent, run.lost)
    np.testing.assert_array_equal(again.cams[:], run.cams[:])


def test_a_pickled_run_in_whose_place_another_lies_is_refused(make_run):
    run = batchcam.open_run(make_run())
    data = pickle.dumps(run)
    shutil.rmtree(run.path)
    make_run(class_names=("d", "e", "f", "g", "h"), seed=3)
    with pytest.raises(RunError, match="not what was there when it was opened"):
        pickle.loads(data)


def test_a_notebook_shows_what_a_run_is_and_its_arrays(sound_run, run):
    page = Page(run._repr_html_())
    assert page.wrong == []
    correct = stored(sound_run, "label") == stored(sound_run, "prediction")
    counted = (stored(sound_run, "label") >= 0) & (stored(sound_run, "prediction") >= 0)
    for told in (
        f"{sound_run} (complete)",
        f"21, {correct[counted].sum()} of {counted.sum()} labelled predicted right",
        ".cams 21 × 5 × 3 × 5 float32",
    ):
        assert told in page.text, told
    assert all(f".{array.name}" in page.text for array in run.plan.arrays)


def test_a_notebook_shows_names_as_text(make_run):
    names = ("<script>alert(1)</script>", "a&b", 'c"d', "e\u202ef", "g\nh")
    run = batchcam.open_run(make_run('<img src=x onerror="alert(1)">', class_names=names))
    markup = run._repr_html_()
    assert Page(markup).wrong == []
    assert "<script" not in markup
    assert "<img" not in markup
    assert r"e\u202ef" in markup


def test_a_notebook_shows_a_run_in_progress_and_one_shard(finished_run):
    (finished_run / "manifest.json").unlink()
    assert "3 of 3 shards" in batchcam.open_run(finished_run)._repr_html_()
    shard = batchcam.open_run(finished_run / "shards" / "shard-00001.h5")
    assert "1 of 3 shards" in shard._repr_html_()
