"""Bits that flip, files that end early or change places: verify names the file, readers refuse it or never touch it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import batchcam
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.errors import RunError
from tests.helpers import damage

FIRST, MIDDLE, LAST = (f"shards/shard-0000{i}.h5" for i in range(3))
FILES = ("run.json", "manifest.json", "run.h5", FIRST, MIDDLE, FIRST + ".sha256", "run.h5.sha256")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One shard of three samples with maps of a few pixels; each test leaves it as it was."""
    from tests.helpers import synthetic

    run = tmp_path_factory.mktemp("tiny") / "run"
    synthetic.synthetic_run(run, sample_count=3, shard_size=3, grid_size=(2, 3), input_size=(4, 6))
    return run


def files_found(run: Path) -> set[str]:
    """Return the files that verify has findings about; a file's digest is about the file."""
    found = verify(VerifyConfig(run, quiet=True), confine=False).found
    return {f.file.removesuffix(".sha256") for f in found}


def flips(run: Path, name: str, count: int, seed: int) -> Iterator[int]:
    """Flip one bit after the other in a file, at `count` positions over all of it; the file is sound afterwards."""
    path = run / name
    sound = path.read_bytes()
    rng = np.random.default_rng(seed)
    for position in np.linspace(0, len(sound) - 1, count, dtype=int).tolist():
        changed = bytearray(sound)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        yield position
    path.write_bytes(sound)


@pytest.mark.parametrize("name", ["run.json", "manifest.json", "run.h5", FIRST, FIRST + ".sha256", "run.h5.sha256"])
def test_verify_names_the_file_of_every_flipped_bit(tiny: Path, name: str) -> None:
    for position in flips(tiny, name, 40, seed=0):
        assert files_found(tiny) == {name.removesuffix(".sha256")}, position
    assert files_found(tiny) == set()


def test_verify_names_the_task_of_every_flipped_bit(tiny: Path) -> None:
    (task,) = tiny.glob("task-*.json")
    for position in flips(tiny, task.name, 20, seed=1):
        assert files_found(tiny) == {task.name}, position


@pytest.mark.parametrize("name", ["run.json", "manifest.json", "run.h5", FIRST, FIRST + ".sha256"])
def test_verify_names_the_file_of_every_truncation(tiny: Path, name: str) -> None:
    path = tiny / name
    sound = path.read_bytes()
    for length in np.linspace(0, len(sound) - 1, 40, dtype=int).tolist():
        path.write_bytes(sound[:length])
        assert files_found(tiny) == {name.removesuffix(".sha256")}, length
    path.write_bytes(sound)


@pytest.mark.parametrize("name", ["run.json", "manifest.json", "run.h5", FIRST])
def test_verify_names_the_file_that_something_is_appended_to(tiny: Path, name: str) -> None:
    sound = (tiny / name).read_bytes()
    for more in (b"\0", b"\n", sound):
        (tiny / name).write_bytes(sound + more)
        assert files_found(tiny) == {name}
    (tiny / name).write_bytes(sound)


def exchange(run: Path, first: str, second: str) -> None:
    for suffix in ("", ".sha256"):
        one, other = run / (first + suffix), run / (second + suffix)
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)


def reseal_manifest(run: Path) -> None:
    damage._make_manifest_right(run, sorted((run / "shards").glob("*.h5")))


@pytest.mark.parametrize("sealed", [False, True], ids=["digests-as-they-were", "digests-made-right"])
def test_verify_names_both_of_two_exchanged_shards(finished_run: Path, sealed: bool) -> None:
    exchange(finished_run, FIRST, MIDDLE)
    for name in (FIRST, MIDDLE):
        damage.write_digest(finished_run / name)
    if sealed:
        reseal_manifest(finished_run)
    assert files_found(finished_run) >= {FIRST, MIDDLE}
    with pytest.raises(RunError, match="shard-0000"), batchcam.open_run(finished_run) as run:
        run.cams[:]


@pytest.mark.parametrize("sealed", [False, True], ids=["digests-as-they-were", "digests-made-right"])
def test_verify_names_the_shard_of_another_run(finished_run: Path, make_run, sealed: bool) -> None:
    shutil.copy(make_run("other", checkpoint_sha256="e" * 64) / MIDDLE, finished_run / MIDDLE)
    damage.write_digest(finished_run / MIDDLE)
    if sealed:
        reseal_manifest(finished_run)
    assert MIDDLE in files_found(finished_run)
    with pytest.raises(RunError, match=r"shard-00001\.h5"), batchcam.open_run(finished_run) as run:
        run.cams[:]


def test_a_shard_of_the_same_run_with_other_numbers_is_found_by_its_digest(finished_run: Path, make_run) -> None:
    """The same plan, so the same run id; only the digest tells them apart."""
    shutil.copy(make_run("other", seed=9) / MIDDLE, finished_run / MIDDLE)
    assert files_found(finished_run) == {MIDDLE}
    with pytest.raises(RunError, match=r"shard-00001\.h5.*SHA-256 is another"), batchcam.open_run(finished_run) as run:
        run.cams[:]


def outputs(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def words_of(run: Path, out: Path) -> dict[str, list[object]]:
    return {
        "info": ["info", run],
        "render": ["render", run, "--top", "3", "--out", out / "p.png", "-q"],
        "export": ["export", run, "--to", "csv", "--out", out / "csv", "-q"],
        "export-png": ["export", run, "--to", "png", "--out", out / "png", "-q"],
        "compare": ["compare", run, run, "--out", out / "compared", "-q"],
        "report": ["report", run, "--out", out / "r.html", "-q"],
    }


@pytest.fixture(scope="module")
def sound_outputs(sound_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """A copy of the run at a fixed place, and what each command prints and writes about it."""
    from tests.helpers import synthetic

    base = tmp_path_factory.mktemp("rot")
    run = Path(shutil.copytree(sound_run, base / "run"))
    given: dict[str, object] = {}
    for command, words in words_of(run, base / "out").items():
        shutil.rmtree(base / "out", ignore_errors=True)
        code, stdout, stderr = synthetic.run_command(*words)
        given[command] = (code, stdout, stderr, outputs(base / "out"))
        assert code in (0, 3), (words, stderr)
    return run, given


Damage = Callable[[Path], None]


def flipped(name: str, share: float) -> Damage:
    return lambda run: damage.flip(run / name, int((run / name).stat().st_size * share), 3)


DAMAGES: dict[str, Damage] = {
    **{
        f"{name}-flipped-at-{share}": flipped(name, share) for name in (FIRST, "run.h5") for share in (0, 0.3, 0.6, 0.9)
    },
    **{f"{name}-flipped": flipped(name, 0.5) for name in ("run.json", "manifest.json", MIDDLE, LAST)},
    "shard-cut": damage.shard_truncated,
    "shard-empty": damage.shard_empty,
    "shard-missing": damage.shard_missing,
    "run.h5-missing": damage.run_h5_missing,
}


LOST = ("shard-cut", "shard-empty", "shard-missing")
LOST_TEXT = "(NOT complete any more: 1 of 3 shards are gone or cut short)"


@pytest.mark.parametrize("broken", DAMAGES)
def test_commands_refuse_what_is_damaged_by_name_or_do_not_need_it(
    sound_outputs, tmp_path: Path, run_cli, broken: str
) -> None:
    """What they give is what they give for the sound run, or nothing: never damaged numbers."""
    run, given = sound_outputs
    kept = Path(shutil.copytree(run, tmp_path / "kept"))
    DAMAGES[broken](run)
    try:
        for command, words in words_of(run, run.parent / "out").items():
            shutil.rmtree(run.parent / "out", ignore_errors=True)
            code, stdout, stderr = run_cli(*words)
            if code == 1:
                assert len(stderr.splitlines()) == 1, (command, stderr)
                assert str(run) in stderr, (command, stderr)
                assert "unexpected" not in stderr, (command, stderr)
            elif command == "info" and broken in LOST:
                assert (code, stderr, LOST_TEXT in stdout) == (0, "", True)
            else:
                assert (code, stdout, stderr, outputs(run.parent / "out")) == given[command], command
    finally:
        shutil.rmtree(run)
        shutil.copytree(kept, run)
