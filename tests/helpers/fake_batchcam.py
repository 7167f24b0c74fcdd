"""A batchcam and a date that do as they are told and note how they were called: for the scripts in jobs/."""

from __future__ import annotations

import subprocess
from pathlib import Path

from batchcam.store.document import seal
from tests.helpers import ROOT

JOBS = ROOT / "jobs"

BATCHCAM = r"""#!/usr/bin/env bash
here=$(dirname "$0") command=$1 words=("$@")
printf '%s\t' "$@" >>"$here/calls" && echo >>"$here/calls"
while [ $# -gt 0 ]; do
    [ "$1" != --out ] || out=$2
    [ "$1" != --dry-run ] || command=dry-run
    shift
done
echo "fake $command says this"
[ "$command" != explain ] || { mkdir -p "$out" && sha256sum "${words[1]}" >"$out/run.json" 2>&1; }
[ ! -e "$here/hang-$command" ] || exec sleep 60
code=$(cat "$here/code-$command" 2>/dev/null || echo 0)
case $command-$code in
    explain-[03]) echo >>"$out/manifest.json" ;;
    train-[03] | report-[03]) echo "${words[*]}" >"$out" ;;
    compare-3) echo "gate        --max-flips 2: exceeded: 9 % flipped" ;;
esac
exit "$code"
"""

DATE = """#!/usr/bin/env bash
cat "$(dirname "$0")/date-is" 2>/dev/null || exec /bin/date "$@"
"""


def write_totals(run: Path, samples: int, unreadable: int) -> None:
    """Give a run the manifest of one of which so many images could not be read."""
    run.mkdir(parents=True, exist_ok=True)
    totals = {"labelled": 0, "samples": samples, "status": {"constant map": 0, "unreadable": unreadable}}
    tasks = [{"samples": 1, "unreadable": 1}]
    (run / "manifest.json").write_bytes(seal({"tasks": tasks, "totals": totals, "run_id": ""}))


class Fake:
    """Programs in `folder`, and a way to run a script of jobs/ with nothing else of batchcam on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, text in (("batchcam", BATCHCAM), ("date", DATE)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def answer(self, **codes: int) -> None:
        """Let commands end with these exit codes from now on; `dry_run` is that of explain."""
        for command, code in codes.items():
            (self.folder / f"code-{command.replace('_', '-')}").write_text(f"{code}\n")

    def hang(self, command: str, on: bool = True) -> None:
        """Let a command do nothing for a minute."""
        (self.folder / f"hang-{command}").touch()
        if not on:
            (self.folder / f"hang-{command}").unlink()

    def set_date(self, day: str) -> None:
        """Let it be that day."""
        (self.folder / "date-is").write_text(f"{day}\n")

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
        return {"PATH": f"{self.folder}:/usr/bin:/bin"}

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start a script of jobs/."""
        return subprocess.Popen(
            [JOBS / words[0], *words[1:]],
            env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str | Path) -> tuple[int, str, str]:
        """Run a script of jobs/; return exit code, stdout, stderr."""
        process = self.start(*words)
        stdout, stderr = process.communicate(timeout=30)
        return process.returncode, stdout, stderr
