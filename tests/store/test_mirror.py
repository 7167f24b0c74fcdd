"""A run behind a URL or in a zip file is read as on a disk, and no file of it that was not asked for."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import BatchcamError, RunError
from batchcam.images import remote
from batchcam.store import mirror
from batchcam.store.bringing import shown
from batchcam.store.opening import open_run
from tests.commands.verify.test_check import DAMAGES
from tests.helpers import damage
from tests.helpers.run_pairs import make_rows, write
from tests.helpers.servers import DROPPED, SHELVES, in_a_bucket, in_memory, on_the_web, web_server
from tests.helpers.synthetic import synthetic_run

UNLISTED = "whether files lie there that are none of the run's"
"""What verify can't tell of a web server."""

LINKS = {damage.shard_is_a_link}
"""What stores of objects don't have."""


OF_FILES = {
    *("file-missing", "size-mismatch", "digest-mismatch", "digest-file-damaged", "unexpected-file", "leftover-file"),
    *("manifest-missing", "manifest-damaged", "plan-damaged", "task-damaged", "coverage"),
}
"""Findings about whole files; others follow from the same bytes."""


@pytest.fixture(scope="module")
def run_of_200(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "monday"
    synthetic_run(run, sample_count=200)
    return run


@pytest.fixture
def web(run_of_200: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    monkeypatch.setattr(remote, "_WAITS_S", (0,) * 3)
    shutil.copytree(run_of_200, tmp_path / "web" / "monday")
    with web_server(tmp_path / "web") as server:
        yield server


@contextlib.contextmanager
def in_a_zip(folder: Path) -> Iterator[Callable[[], str]]:
    pytest.importorskip("fsspec")
    yield lambda: f"zip://::{shutil.make_archive(str(folder), 'zip', folder)}"


COMMANDS = {
    "info": ["info", "RUN"],
    "verify": ["verify", "RUN", "-q"],
    "compare": ["compare", "RUN", "LOCAL", "-q"],
    "export": ["export", "RUN", "--to", "csv", "--out", "table", "-q"],
    "report": ["report", "RUN", "--out", "page.html", "-q"],
    "render": ["render", "RUN", "--out", "pictures", "--wrong", "--limit", "2", "-q"],
}


@pytest.mark.parametrize(
    ("shelf", "command"),
    [
        *((in_memory, command) for command in COMMANDS),
        *((shelf, "info") for shelf in (*SHELVES[1:], in_a_zip)),
        (on_the_web, "verify"),
        (in_a_bucket, "verify"),
    ],
)
def test_commands_say_of_a_run_elsewhere_what_they_say_of_its_copy_here(
    run_of_200, tmp_path, monkeypatch, run_cli, shelf, command
):
    shutil.copytree(run_of_200, tmp_path / "shelf" / "monday")
    with shelf(tmp_path / "shelf") as put:
        url = put() if shelf is in_a_zip else f"{put()}/monday"
        answers = []
        for name, place in {"here": str(run_of_200), "there": url.removeprefix("zip://::")}.items():
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            answers.append(_answer(run_cli, COMMANDS[command], place, str(run_of_200)))
    assert answers[0] == answers[1]


def _answer(run_cli: Callable[..., tuple[int, str, str]], words: list[str], place: str, local: str) -> list[object]:
    """What a command says and writes, with one name for the run wherever it lies."""
    words = [word.replace("RUN", place).replace("LOCAL", local) for word in words]
    code, out, err = run_cli(*words, "--json")
    said = json.loads(out.splitlines()[-1])
    if words[0] == "report":
        del said["bytes"]  # of a page that names the run
    said["unchecked"] = [line for line in said.get("unchecked", []) if line != UNLISTED]
    files = [path.read_bytes() for path in sorted(Path().rglob("*.*"))]
    texts = [json.dumps(said, ensure_ascii=False), err, *(each.decode("latin-1") for each in files)]
    assert not any("batchcam-run-" in text for text in texts)
    return [code, *(text.replace(place, "RUN").replace(local, "RUN") for text in texts)]


@pytest.mark.parametrize(
    "harm",
    [harm for harm, found in DAMAGES.items() if harm not in LINKS and {kind for kind, *_ in found} <= OF_FILES],
    ids=lambda harm: harm.__name__,
)
def test_verify_finds_elsewhere_what_it_finds_here(finished_run, harm):
    harm(finished_run)
    with in_memory(finished_run) as put:
        there = verify(VerifyConfig(put(), quiet=True), confine=False)
    here = verify(VerifyConfig(finished_run, quiet=True), confine=False)
    assert (there.found, there.unchecked, there.samples) == (here.found, here.unchecked, here.samples)
    assert there.found


def test_a_run_elsewhere_gives_the_same_rows_and_goes_to_other_processes(web, run_of_200):
    with open_run(f"{web.url}/monday") as there, open_run(run_of_200) as here:
        assert np.array_equal(there.logits[:], here.logits[:], equal_nan=True)
        assert there[150].cams.tobytes() == here[150].cams.tobytes()
        again = pickle.loads(pickle.dumps(there))
        assert again.path != there.path
        assert (again.sample_id[:] == here.sample_id[:]).all()
        assert repr(there).startswith(f"<batchcam run {web.url}/monday: 200 samples")


def test_info_asks_for_no_shard_and_a_sample_for_one(web, run_cli):
    assert run_cli("info", f"{web.url}/monday")[0] == 0
    asked = {path.removeprefix("/monday/") for path, _ in web.asked} - {"samples.h5"}  # which is asked for in vain
    assert asked == {"run.json", "manifest.json", "run.h5"}
    web.asked.clear()
    with open_run(f"{web.url}/monday", prove=False) as run:
        _ = run[150].cams
    assert {path for path, _ in web.asked if "shards/" in path} == {"/monday/shards/shard-00018.h5"}


@pytest.mark.parametrize("name", ["shards/shard-00003.h5", "run.h5"])
def test_a_file_that_is_gone_is_a_finding_by_its_name(web, tmp_path, name):
    (tmp_path / "web" / "monday" / name).unlink()
    found = verify(VerifyConfig(f"{web.url}/monday", quiet=True)).found
    assert [(each.kind.value, each.file) for each in found] == [("file-missing", name)]


def test_a_shard_that_goes_while_it_is_read_is_a_finding(web, tmp_path):
    config = VerifyConfig(f"{web.url}/monday", quiet=True)
    (tmp_path / "web/monday/shards/shard-00003.h5").unlink()
    assert [(each.kind.value, each.file) for each in verify(config).found] == [
        ("file-missing", "shards/shard-00003.h5")
    ]
    (tmp_path / "web/monday/shards/shard-00004.h5").write_bytes(b"another")
    with open_run(f"{web.url}/monday", partial=True) as run:
        assert run.absent == {3, 4}


@pytest.mark.parametrize("change", [b"", b"more"])
def test_a_server_that_lies_about_a_size_is_found_out(web, tmp_path, change):
    shard = tmp_path / "web/monday/shards/shard-00004.h5"
    run = open_run(f"{web.url}/monday")
    whole = shard.read_bytes()
    shard.write_bytes(whole + change if change else whole[:-9])
    with (
        run,
        pytest.raises(RunError, match=rf"^{web.url}/monday/shards/shard-00004\.h5: has .*{len(whole)}.*; see batchcam"),
    ):
        _ = run[35]
    assert not list(run.path.parent.glob("partial*"))


def test_connections_that_are_cut_are_tried_again_and_then_end_the_work_for_now(web, run_cli):
    web.faults = [DROPPED, 503]
    assert run_cli("verify", f"{web.url}/monday", "-q")[0] == 0
    config = VerifyConfig(f"{web.url}/monday", quiet=True)
    web.faults = [503] * 10_000
    with pytest.raises(
        BatchcamError, match=f"{web.url}/monday/[a-z0-9.]+: cannot be read now: 503.*; run the same"
    ) as raised:
        verify(config)
    assert raised.value.exit_code == 75
    assert len(web.faults) > 9_990


def test_an_answer_that_is_cut_short_is_tried_again(web, monkeypatch):
    cut = web.RequestHandlerClass.func.copyfile
    left = [2]

    def copyfile(self, source, target):
        if left[0]:
            left[0] -= 1
            target.write(source.read(100))
            self.close_connection = True
        else:
            cut(self, source, target)

    monkeypatch.setattr(web.RequestHandlerClass.func, "copyfile", copyfile)
    with open_run(f"{web.url}/monday") as run:
        assert len(run) == 200
    assert left == [0]


def test_what_changes_between_two_readings_is_found_out_although_nothing_is_proved(web, tmp_path, monkeypatch):
    monkeypatch.setattr(mirror, "KEPT_BYTES", 0)
    with open_run(f"{web.url}/monday", prove=False) as run:
        _ = run[3], run[35]
        run.close()
        shard = tmp_path / "web/monday/shards/shard-00000.h5"
        damage.flip(shard, shard.stat().st_size // 2)
        with pytest.raises(RunError, match=r"shard-00000\.h5: HDF5 cannot read it: .*changed where it lies since"):
            _ = run[4]


def test_the_disk_holds_few_shards_however_many_are_read(web, monkeypatch):
    monkeypatch.setattr(mirror, "KEPT_BYTES", 10**5)
    with open_run(f"{web.url}/monday") as run:
        most = 0
        for _ in run.blocks(["cams"]):
            most = max(most, sum(path.stat().st_blocks * 512 for path in run.path.rglob("*.h5")))
        assert most < 3 * 10**5 < sum(path.stat().st_size for path in run.path.rglob("*.h5"))


@pytest.mark.parametrize("name", ["../../evil.h5", "/etc/evil.h5", "shards/../../evil.h5", "a/\0b"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "run.zip", "w") as file:
        file.writestr("run.json", b"{}")
        file.writestr(name, b"evil")
    with contextlib.suppress(RunError), open_run(tmp_path / "run.zip"):
        pass
    assert not list(tmp_path.rglob("*evil*"))
    for each in mirror._mirrors:
        folder = Path(each._home.name)
        assert not [path for path in folder.rglob("*evil*") if not path.resolve().is_relative_to(each.root)]
        assert not (folder.parent / "evil.h5").exists()


def test_secrets_of_a_url_are_never_shown(web, run_cli, tmp_path):
    url = f"{web.url.replace('//', '//user:geheim@')}/monday?signature=heimlich"
    code, out, err = run_cli("report", url, "--out", tmp_path / "page.html", "--json")
    texts = [out, err, (tmp_path / "page.html").read_text()]
    web.faults = [503] * 1000
    texts += run_cli("verify", url, "--json")[1:]
    texts += run_cli("info", url.replace("monday", "tuesday"), "--json")[1:]
    assert code == 3
    assert not any(secret in text for text in texts for secret in ("geheim", "heimlich"))
    assert [text.count("127.0.0.1") > 0 for text in texts] == [False, False, True, True, True, True, True]


@pytest.mark.parametrize("shelf", [in_memory, in_a_zip], ids=lambda shelf: shelf.__name__)
def test_a_folder_of_runs_elsewhere_is_a_series(tmp_path, run_cli, shelf):
    for number, name in enumerate(("monday", "tuesday")):
        write(tmp_path / "runs" / name, *make_rows(number))
    here = json.loads(run_cli("info", tmp_path / "runs", "--json")[1].splitlines()[-1])
    with shelf(tmp_path / "runs") as put:
        there = json.loads(run_cli("info", url := put(), "--json")[1].splitlines()[-1])
        with open_run(url) as series, open_run(tmp_path / "runs") as local:
            again = pickle.loads(pickle.dumps(series))
            assert (again.logits[:] == local.logits[:]).any()
            assert again.sample_id[:].tolist() == local.sample_id[:].tolist()
    assert there == here | {"run": url.removeprefix("zip://::")}


def test_a_shard_elsewhere_is_opened_alone(web, run_of_200):
    url = f"{web.url}/monday/shards/shard-00002.h5"
    with open_run(url) as there, open_run(run_of_200 / "shards/shard-00002.h5") as here:
        assert (there.sample_id[:] == here.sample_id[:]).all()
        assert shown(there.path) == url
    assert {path.rpartition("/")[2] for path, _ in web.asked} == {"shard-00002.h5", "shard-00002.h5.sha256"}


@pytest.mark.parametrize("words", [["merge", "URL"], ["explain", "x.pth", "photos", "--out", "URL"], ["jobs", "URL"]])
def test_what_is_written_needs_a_folder_of_this_machine(run_cli, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli(*(word.replace("URL", "s3://bucket/run") for word in words))
    assert (code, err.count("\n")) == (2, 1)
    assert "has to be a path of this machine, not a URL" in err
    assert os.listdir(tmp_path) == []


def test_a_run_that_is_not_there_is_told_by_its_url(web, run_cli):
    assert run_cli("info", f"{web.url}/sunday") == (
        1, "", f"batchcam: error: {web.url}/sunday: no file of a run lies there\n"
    )  # fmt: skip
    code, _, err = run_cli("info", "nosuch://bucket/run")
    assert (code, "nosuch" in err) == (1, True)


def test_hdf5_opens_nothing_but_paths(web, monkeypatch):
    opened = []

    def file(name, *words, **named):
        opened.append(name)
        return real(name, *words, **named)

    real = h5py.File
    monkeypatch.setattr(h5py, "File", file)
    with open_run(f"{web.url}/monday", prove=False) as run:
        assert np.isfinite(run.cams[10:20]).all()
    assert opened
    assert all(isinstance(each, Path) and each.is_relative_to(run.path) for each in opened)


@pytest.mark.parametrize("words", [["info", "URL", "--watch"], ["info", "URL", "--stall", "1m"]])
def test_a_run_elsewhere_is_not_waited_for(web, run_cli, words):
    code, _, err = run_cli(*(word.replace("URL", f"{web.url}/monday") for word in words))
    assert (code, err.count("\n")) == (1, 1)
    assert f"{web.url}/monday: {words[2]} needs a run that lies in a folder of this machine" in err


def test_a_zip_file_on_a_server_without_ranges_has_to_be_downloaded(tmp_path: Path) -> None:
    synthetic_run(tmp_path / "run")
    shutil.make_archive(str(tmp_path / "run"), "zip", tmp_path / "run")
    with web_server(tmp_path) as web:
        web.knows_ranges = False
        with pytest.raises(
            BatchcamError, match=f"^{web.url}/run.zip: its server gives no ranges .* download it first$"
        ):
            open_run(Path(f"{web.url}/run.zip"))
