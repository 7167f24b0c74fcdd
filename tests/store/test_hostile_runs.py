"""A run from someone who means harm: found out or refused, by name; no file outside of it is opened."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

import batchcam
from batchcam.commands.verify import verify as verify_module
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from batchcam.job.confined import DiedError
from batchcam.store.plan import read_plan
from batchcam.store.reader import open_checked
from tests.helpers import hostile_runs
from tests.helpers.hostile_runs import ATTACKS, HARMLESS, HEAVY, MIDDLE, Watch, make_outside

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify tells who opens a file")


@pytest.fixture
def run(sound_run: Path, tmp_path: Path) -> Path:
    """A finished run, to be attacked; beside it `outside`."""
    make_outside(tmp_path / "outside")
    return Path(shutil.copytree(sound_run, tmp_path / "run"))


@contextlib.contextmanager
def nobody_opens(outside: Path) -> Iterator[None]:
    watch = Watch(outside)
    try:
        yield
        assert watch.touched() == set()
    finally:
        watch.close()


def read_everything(run: Path, partial: bool) -> None:
    """Read all arrays as a reader without suspicion would; what is refused is refused by name."""
    try:
        with batchcam.open_run(run, partial=partial) as opened:
            for name in opened._arrays:
                with contextlib.suppress(RunError):
                    getattr(opened, name)[:]
            assert len(opened.classifier) == 2
    except RunError as refused:
        named = str(refused).startswith(str(run))
        assert named


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in HEAVY])
def test_an_attack_is_found_and_opens_nothing_outside(run: Path, name: str) -> None:
    outside = run.parent / "outside"
    ATTACKS[name](run, outside)
    with nobody_opens(outside):
        found = verify(VerifyConfig(run, quiet=True), confine=False).found
        read_everything(run, partial=False)
        read_everything(run, partial=True)
    assert bool(found) != (name in HARMLESS), found


CHOSEN = [
    "external_link_at_label",
    "external_storage_of_sample_id",
    "external_storage_in_a_pipe",
    "virtual_status_of_run_h5",
    "filter_that_needs_a_plugin",
    "claims_two_billion_samples",
    "label_of_type_reference",
    "error_of_huge_width",
    "run_id_as_a_table",
    "run.json_nests_a_million_deep",
    "manifest.json_is_a_device",
    "shards_is_a_symlink",
]
"""One of each kind, for what takes longer; benchmarks/faults tries them all."""


@pytest.mark.parametrize("name", CHOSEN)
def test_every_command_refuses_in_one_line_or_reads_what_is_sound(run: Path, name: str, run_cli) -> None:
    outside, out = run.parent / "outside", run.parent / "out"
    ATTACKS[name](run, outside)
    with nobody_opens(outside):
        for words in (
            ("info", run),
            ("report", run, "--out", out / "r.html"),
            ("render", run, "--out", out / "p.png"),
            ("export", run, "--to", "csv", "--out", out / "csv"),
            ("compare", run, run),
            ("merge", run),
        ):
            code, _, stderr = run_cli(*words)
            assert code in (0, 1, 2, 3), words
            assert "unexpected" not in stderr, (words, stderr)
            assert code in (0, 3) or stderr.splitlines()[-1].startswith("batchcam: error: "), (words, stderr)
            assert all(line.startswith("batchcam: ") for line in stderr.splitlines()), (words, stderr)


@pytest.mark.parametrize("name", CHOSEN[:6])
def test_the_command_verify_finds_it_too(run: Path, name: str, run_cli) -> None:
    ATTACKS[name](run, run.parent / "outside")
    with nobody_opens(run.parent / "outside"):
        code, stdout, stderr = run_cli("verify", run, "--quiet")
    assert (code, stderr) == (3, "")
    assert len(stdout.splitlines()) >= 2


def test_the_watch_sees_who_follows_a_link(run: Path) -> None:
    outside = run.parent / "outside"
    ATTACKS["external_link_at_label"](run, outside)
    watch = Watch(outside)
    with h5py.File(run / MIDDLE) as file:
        assert (file["label"][...] == 1).all()
    assert watch.touched() == {"canary.h5"}
    watch.close()


def test_the_watch_sees_who_reads_external_storage(run: Path) -> None:
    outside = run.parent / "outside"
    ATTACKS["external_storage_of_label"](run, outside)
    watch = Watch(outside)
    with h5py.File(run / MIDDLE) as file:
        assert file["label"][...].tobytes().startswith(b"secret: ")
    assert watch.touched() == {"canary.raw"}
    watch.close()


READ_ALL = "import sys, batchcam\nwith batchcam.open_run(sys.argv[1]) as run: run.status[:], run.cams[:], run.label[:]"


@pytest.mark.parametrize("variable", ["HDF5_VDS_PREFIX", "HDF5_EXTFILE_PREFIX", "HDF5_PLUGIN_PATH"])
def test_hdf5s_variables_lead_no_reader_elsewhere(run: Path, variable: str) -> None:
    outside = run.parent / "outside"
    (outside / "shards").mkdir()
    for path in (run / "shards").glob("*.h5"):
        shutil.copy(path, outside / "shards")
    environment = {**os.environ, variable: str(outside)}
    with nobody_opens(outside), nobody_opens(outside / "shards"):
        for words in (["-c", READ_ALL, run], ["-m", "batchcam", "verify", run, "-q"]):
            done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False)
            assert done.returncode == 0, done.stderr


def test_hdf5s_variable_would_lead_a_plain_reader_elsewhere(run: Path) -> None:
    outside = run.parent / "outside"
    shutil.copytree(run / "shards", outside / "shards")
    code = "import sys, h5py\nwith h5py.File(sys.argv[1]) as file: file['status'][...]"
    environment = {**os.environ, "HDF5_VDS_PREFIX": str(outside)}
    watch = Watch(outside / "shards")
    subprocess.run([sys.executable, "-c", code, run / "run.h5"], env=environment, check=True)
    assert "shard-00000.h5" in watch.touched()
    watch.close()


@pytest.mark.parametrize("array", hostile_runs.ARRAYS)
def test_an_array_of_any_other_type_is_refused(run: Path, array: str) -> None:
    before = (run / MIDDLE).read_bytes()
    plan = read_plan(run)
    for kind in hostile_runs.TYPES:
        if array in ("sample_index", "label", "prediction", "cam_class") and kind == "big_endian":
            continue
        (run / MIDDLE).write_bytes(before)
        with h5py.File(run / MIDDLE, "r+") as file:
            shape = file[array].shape
            del file[array]
            file.create_dataset(array, shape, hostile_runs.TYPES[kind])
        if array in ("cam_y", "channel", "box_edge"):  # read by verify only, which compares their content
            continue
        with pytest.raises(RunError, match=array), open_checked(run / MIDDLE, plan, plan.shards[1]):
            pass


def test_each_file_that_ends_its_reader_is_a_finding_and_the_others_are_checked(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = verify_module.ask

    def dying(module: str, folder: Path, bring: None, deadly: dict[str, str], processes: int):
        for message in asked(module, folder, bring, deadly=deadly, processes=processes):
            yield message
            if message.get("reading") in ("shards/shard-00000.h5", "run.h5"):
                raise DiedError("the HDF5 library crashed (SIGSEGV)")

    monkeypatch.setattr(verify_module, "ask", dying)
    (run / "shards/shard-00002.h5").unlink()
    summary = verify(VerifyConfig(run, quiet=True))
    found = {(f.kind.value, f.file) for f in summary.found}
    assert found == {
        ("file-unreadable", "shards/shard-00000.h5"),
        ("file-unreadable", "run.h5"),
        ("file-missing", "shards/shard-00002.h5"),
    }
    assert summary.samples == 8


@pytest.mark.parametrize("file", ["run.json", "manifest.json"])
def test_a_document_that_ends_its_reader_is_a_finding(run: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = verify_module.ask

    def dying(module: str, folder: Path, bring: None, deadly: dict[str, str], processes: int):
        for message in asked(module, folder, bring, deadly=deadly, processes=processes):
            yield message
            if message.get("reading") == file:
                raise DiedError("the process was killed, maybe for want of memory")

    monkeypatch.setattr(verify_module, "ask", dying)
    (finding,) = verify(VerifyConfig(run, quiet=True)).found
    assert (finding.kind.value, finding.file) == (
        ("plan-damaged" if file == "run.json" else "manifest-damaged"),
        file,
    )
    assert "killed" in finding.message


def test_verify_gives_up_when_every_file_ends_its_reader(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = iter(range(100))

    def dying(module: str, folder: Path, bring: None, deadly: dict[str, str], processes: int):
        yield {"reading": f"shards/shard-{next(number):05d}.h5"}
        raise DiedError("the HDF5 library crashed (SIGSEGV)")

    monkeypatch.setattr(verify_module, "ask", dying)
    found = verify(VerifyConfig(run, quiet=True)).found
    assert len(found) == verify_module.DEATHS + 1
    assert "not checked" in found[-1].message


def test_the_confined_process_finds_what_this_one_finds(run: Path) -> None:
    with h5py.File(run / MIDDLE, "r+") as file:
        file["label"][3] = 99
    hostile_runs.reseal(run)
    (run / "shards/notes.txt").write_text("mine")
    config = VerifyConfig(run, quiet=True)
    confined = verify(config)
    assert confined == dataclasses.replace(verify(config, confine=False), unconfined=confined.unconfined)
    assert len(confined.found) >= 2


def test_a_shard_alone_is_refused_by_the_same_rules(run: Path) -> None:
    outside = run.parent / "outside"
    for name in ("external_link_at_label", "config_of_type_compound", "class_name_of_type_variable_text"):
        case = Path(shutil.copytree(run, run.parent / name))
        ATTACKS[name](case, outside)
        with nobody_opens(outside), pytest.raises(RunError), batchcam.open_run(case / MIDDLE) as opened:
            np.asarray(opened.label)
