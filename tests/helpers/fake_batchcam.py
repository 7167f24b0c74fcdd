"""A batchcam whose steps do as they are told and note how they were called: for nightly, retrain and promote."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import io
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any
from unittest import mock

from batchcam.cli import main
from batchcam.commands.nightly import nightly
from batchcam.job import steps
from batchcam.rules import Status, flag_name
from batchcam.store.document import seal
from batchcam.store.landing import MAKE_ROOM, file_digest
from batchcam.store.manifest import FileRecord, Manifest, ShardSum, write_manifest
from batchcam.store.plan import write_plan
from batchcam.store.schema import MASTER_FILE
from tests.helpers import ROOT
from tests.helpers.synthetic import ORIGIN, synthetic_plan

JOBS = ROOT / "jobs"

JOB_HERE = f"""#!/usr/bin/env bash
here=$(dirname "$0") command=$1 words=("$@")
case $command in nightly | retrain | promote)
    PYTHONPATH="{ROOT}" exec "{sys.executable}" -m tests.helpers.fake_batchcam "$here" "$@" ;;
esac
"""

BATCHCAM = rf"""{JOB_HERE}
printf '%s\n' "$(printf '%s\t' "$@")" >>"$here/calls" # one write: others may call at the same time
while [ $# -gt 0 ]; do
    [ "$1" != --out ] || out=$2
    [ "$1" != --dry-run ] || command=dry-run
    [ "$1" != --json ] || json=1
    shift
done
echo "fake $command says this"
[ -z "${{json-}}" ] || cat "$here/json" 2>/dev/null ||
    echo "{{\"to_do_bytes\": $(cat "$here/to-do" 2>/dev/null || echo 0)}}"
[ "$command" != explain ] || [ ! -e "$here/nothing-new" ] || exit 0
[ "$command" != explain ] || {{ mkdir -p "$out" && {{ [ -e "$out/run.json" ] || cp "$here/run.json" "$out"; }}; }}
[ ! -e "$here/hang-$command" ] || exec sleep 60
code=$(cat "$here/code-$command" 2>/dev/null || echo 0)
if [ "$command" = explain ] && [ -e "$(cat "$here/full-while" 2>/dev/null)" ]; then
    echo "batchcam: error: $out/shards: No space left on device; {MAKE_ROOM}" && code=75
fi
case $command-$code in
    explain-[03]) [ -e "$out/manifest.json" ] || cp "$here/manifest.json" "$out" ;;
    train-[03] | report-[03]) echo "${{words[*]}}" >"$out" ;;
    compare-3) mkdir -p "$out" && cp "$here/compare.json" "$out" ;;
esac
exit "$code"
"""


def write_documents(run: Path, samples: int = 30, unreadable: int = 0, checkpoint: str = "c" * 64) -> None:
    """Write plan and manifest of a run of which so many images could not be read; nothing else of it."""
    run.mkdir(parents=True, exist_ok=True)
    plan = synthetic_plan(checkpoint_sha256=checkpoint)
    write_plan(run, plan, ORIGIN)
    status = {flag_name(flag): 0 for flag in Status if flag} | {flag_name(Status.UNREADABLE): unreadable}
    totals = {"samples": samples, "labelled": 0, "correct": 0, "accuracy": None, "status": status}
    shards = ShardSum(len(plan.shards), len(plan.shards), "0" * 64)
    master = FileRecord(MASTER_FILE, 0, plan.sample_count, 1, "0" * 64)
    totals |= {"largest_identity_residual": None}
    write_manifest(run, Manifest(plan.run_id, shards, master, totals, [], [], {}, plan.schema_version))


def latest(runs: Path, link: str = "latest") -> str | None:
    return os.readlink(runs / link) if (runs / link).is_symlink() else None


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of every file but the lock."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p): (hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_mtime_ns) for p in files}


def wait_until(true, timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Fake:
    """A batchcam in `folder`, and a way to run a job with nothing else of batchcam on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.exists():
            folder.mkdir()
            (folder / "batchcam").write_text(BATCHCAM)
            (folder / "batchcam").chmod(0o755)
            write_documents(folder)
            gate = {"passed": False, "reason": "--max-flips 2: exceeded: 9 % flipped"}
            (folder / "compare.json").write_bytes(seal({"gates": [gate, {**gate, "passed": True}]}))

    def do_real_steps(self) -> None:
        """Let the steps be the real batchcam's from now on; only the date is not."""
        (self.folder / "batchcam").write_text(f'{JOB_HERE}exec "{sys.executable}" -m batchcam "$@"\n')

    def answer(self, **codes: int) -> None:
        """Let commands end with these exit codes from now on; `dry_run` is that of explain."""
        for command, code in codes.items():
            (self.folder / f"code-{command.replace('_', '-')}").write_text(f"{code}\n")

    def hang(self, command: str, on: bool = True) -> None:
        """Let a command do nothing for a minute."""
        (self.folder / f"hang-{command}").touch()
        if not on:
            (self.folder / f"hang-{command}").unlink()

    def explains(self, checkpoint: Path) -> None:
        """Let runs be those of a checkpoint."""
        for name in ("run.json", "manifest.json"):
            (self.folder / name).unlink()
        write_documents(self.folder, checkpoint=file_digest(checkpoint))

    def is_full_while(self, path: Path) -> None:
        """Let explain find the disk full while something is there."""
        (self.folder / "full-while").write_text(str(path))

    def set_to_do(self, size: int) -> None:
        """Let explain announce so many bytes."""
        (self.folder / "to-do").write_text(str(size))

    def say(self, **document: object) -> None:
        """Let commands end with this object where JSON is asked for."""
        (self.folder / "json").write_text(f"{json.dumps(document)}\n")

    def set_date(self, day: str) -> None:
        """Let it be that day."""
        (self.folder / "date-is").write_text(day)

    def calls(self) -> list[list[str]]:
        """Return the words of every call since the last look, in order."""
        try:
            lines = (self.folder / "calls").read_text().splitlines()
        except FileNotFoundError:
            return []
        (self.folder / "calls").unlink()
        return [line.removesuffix("\t").split("\t") for line in lines]

    @property
    def environment(self) -> dict[str, str]:
        """What a script sees."""
        return {"PATH": f"{self.folder}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a script of jobs/."""
        return subprocess.Popen(
            [JOBS / words[0], *words[1:]],
            env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def script(self, *words: str | Path) -> tuple[int, str, str]:
        """Run a script of jobs/; return exit code, stdout, stderr."""
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=30)
        return process.returncode, stdout, stderr

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        """Run nightly, retrain or promote in this process; return exit code, stdout, stderr."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = self.run_here(*map(str, words))
        return code, stdout.getvalue(), stderr.getvalue()

    def run_here(self, *words: str) -> int:
        """Run a command whose steps are this one's, on the day that it is said to be."""
        day = self.folder / "date-is"
        today = datetime.date.fromisoformat(day.read_text()) if day.exists() else datetime.date.today()
        calendar: Any = types.SimpleNamespace(date=types.SimpleNamespace(today=lambda: today))
        batchcam = [str(self.folder / "batchcam")]
        with (
            mock.patch.object(steps, "batchcam", return_value=batchcam),
            mock.patch.object(nightly, "datetime", calendar),
        ):
            try:
                main([*words])
            except SystemExit as end:
                return int(end.code or 0)
        raise AssertionError("main returned")


if __name__ == "__main__":
    sys.exit(Fake(Path(sys.argv[1])).run_here(*sys.argv[2:]))
