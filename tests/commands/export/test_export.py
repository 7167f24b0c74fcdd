"""The command refuses what can't be meant before it writes, and never mixes two exports in one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batchcam.commands.export.config import FORMATS, ExportConfig
from batchcam.commands.export.export import export
from batchcam.errors import ConfigError, RunError
from tests.helpers.export_runs import tree, write_run

WRITABLE = [each for each in FORMATS if each != "parquet"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "jpeg"}, "--to jpeg: choose one of virelay, wsol, png, fiftyone, csv, parquet, npz, h5, zarr, intoto"),
        ({"to": "csv", "target": "label"}, "--target: not an option of csv"),
        ({"to": "csv", "data": "."}, "--data: not an option of csv, only of virelay, png, fiftyone"),
        ({"to": "png", "size": "8x8"}, "--size: not an option of png"),
        ({"to": "wsol", "palette": "jet"}, "--palette: not an option of wsol"),
        ({"to": "png", "target": "truth"}, "--target truth: choose one of predicted, label"),
        ({"to": "png", "palette": "pink"}, "--palette pink: choose one of viridis, jet"),
        ({"to": "wsol", "size": "grid"}, "--size grid: want HxW"),
        ({"to": "wsol", "size": "0x8"}, "--size 0x8: want HxW"),
        ({"to": "wsol", "size": "4097x8"}, "--size 4097x8: want HxW of at most 4096"),
        ({"to": "virelay", "size": "٣x٣"}, "--size ٣x٣: want HxW"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ExportConfig(tmp_path / "run", out=tmp_path / "out", **options)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("name", ["t.csv", "t.PARQUET"])
def test_a_folder_named_like_a_file_is_refused_unless_it_is_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"--out .*/{name}: a folder is made: name it without the ending"):
        ExportConfig(tmp_path / "run", "csv", tmp_path / name)
    (tmp_path / name).mkdir()
    ExportConfig(tmp_path / "run", "csv", tmp_path / name)


def test_data_that_is_not_there_is_refused(sound_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data /no/such: no such folder"):
        export(ExportConfig(sound_run, "png", tmp_path / "out", data="/no/such", quiet=True))


@pytest.mark.parametrize("place", ["", "shards", "export"])
def test_a_run_is_not_written_into(sound_run: Path, place: str) -> None:
    with pytest.raises(ConfigError, match="lies in the run"):
        ExportConfig(sound_run, "csv", sound_run / place)


@pytest.mark.parametrize("to", WRITABLE)
def test_nothing_is_written_outside_the_folder_and_the_run_stays_as_it_was(to: str, tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    before = tree(tmp_path)
    summary = export(ExportConfig(run, to, tmp_path / "deep" / "out", quiet=True))
    after = tree(tmp_path)
    assert {path: after[path] for path in before} == before
    added = set(after) - set(before)
    assert all(path.startswith("deep/out/") for path in added)
    assert summary.files == len(added) - 1  # export.json
    assert (summary.format, summary.kept) == (to, 0)


@pytest.mark.parametrize("to", WRITABLE)
def test_a_second_call_changes_nothing(to: str, tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path)
    config = ExportConfig(run, to, tmp_path / "out", quiet=True)
    first = export(config)
    before = tree(tmp_path / "out")
    again = export(config)
    assert (again.files, again.kept, again.notes) == (first.files, first.files, first.notes)
    assert tree(tmp_path / "out") == before


def test_another_runs_export_is_not_gone_on_with(make_run: Callable[..., Path], tmp_path: Path) -> None:
    old, new = make_run("old"), make_run("new", checkpoint_sha256="e" * 64)
    export(ExportConfig(old, "wsol", tmp_path / "out", quiet=True))
    with pytest.raises(RunError, match=r"holds another export: other plan_sha256, run_id; choose another --out"):
        export(ExportConfig(new, "wsol", tmp_path / "out", quiet=True))


def test_another_target_or_format_does_not_share_a_folder(sound_run: Path, tmp_path: Path) -> None:
    export(ExportConfig(sound_run, "wsol", tmp_path / "out", quiet=True))
    for options in ({"to": "wsol", "target": "predicted"}, {"to": "csv"}, {"to": "wsol", "size": "8x8"}):
        with pytest.raises(RunError, match="holds another export: other"):
            export(ExportConfig(sound_run, out=tmp_path / "out", quiet=True, **options))


def test_a_default_and_the_same_value_spelt_out_are_one_export(sound_run: Path, tmp_path: Path) -> None:
    export(ExportConfig(sound_run, "wsol", tmp_path / "out", quiet=True))
    again = export(ExportConfig(sound_run, "wsol", tmp_path / "out", target="label", size="224x224", quiet=True))
    assert again.kept == again.files


def test_a_folder_with_other_things_in_it_is_left_alone(sound_run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "samples.csv").write_text("mine")
    with pytest.raises(RunError, match="not empty, and no export of batchcam"):
        export(ExportConfig(sound_run, "csv", tmp_path / "out", quiet=True))
    assert tree(tmp_path / "out") == {"samples.csv": b"mine"}


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", "[" * 100_000])
def test_a_damaged_export_json_is_refused_in_one_line(sound_run: Path, tmp_path: Path, text: str) -> None:
    export(ExportConfig(sound_run, "csv", tmp_path / "out", quiet=True))
    (tmp_path / "out" / "export.json").write_text(text)
    with pytest.raises(RunError, match="choose another --out"):
        export(ExportConfig(sound_run, "csv", tmp_path / "out", quiet=True))


@pytest.mark.parametrize("to", [each for each in WRITABLE if each != "intoto"])
def test_a_single_shard_can_be_exported(to: str, sound_run: Path, tmp_path: Path) -> None:
    summary = export(ExportConfig(sound_run / "shards" / "shard-00001.h5", to, tmp_path / "out", quiet=True))
    assert summary.samples + summary.skipped == 8
    assert summary.notes[-1] == "the run is not complete: 1 of 3 shards, 8 of 21 samples"


@pytest.mark.parametrize("cams", ["predicted", "predicted+label", "topk:2"])
@pytest.mark.parametrize("maps", ["none", "float32"])
@pytest.mark.parametrize("to", WRITABLE)
def test_every_kind_of_run_can_be_exported(
    to: str, cams: str, maps: str, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    summary = export(ExportConfig(make_run(cams=cams, maps=maps), to, tmp_path / "out", quiet=True))
    assert summary.samples + summary.skipped == 21
    assert summary.samples > 0


@pytest.mark.parametrize("to", ["png", "wsol", "fiftyone"])
def test_two_samples_of_one_id_are_refused_instead_of_sharing_a_file(to: str, tmp_path: Path) -> None:
    run, _, _ = write_run(tmp_path, ["a.png", "b.png", "a.png"])
    with pytest.raises(RunError, match="a sample id stands twice; see batchcam verify"):
        export(ExportConfig(run, to, tmp_path / "out", quiet=True))
