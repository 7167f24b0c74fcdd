"""nightly: explain, verify, point `latest` to the run, trend, report, remove old runs."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from batchcam.commands.nightly import mails, retention
from batchcam.commands.nightly.config import LATEST, TREND, NightlyConfig
from batchcam.commands.nightly.log import Log
from batchcam.commands.nightly.on_end import outcome, tell
from batchcam.commands.nightly.signing import sign, signature_file
from batchcam.errors import EXIT_DONE, EXIT_FINDINGS, EXIT_STOPPED_EARLY, BatchcamError, ConfigError
from batchcam.job.lock import locked, owner_of
from batchcam.job.steps import Steps
from batchcam.store import landing
from batchcam.store.manifest import holds_images
from batchcam.store.plan import read_plan
from batchcam.store.schema import MANIFEST_FILE, PLAN_FILE

LEAST_SHARE: Final = 0.2
"""Of the bytes that explain announces, for which nothing counts as compressed, those that a run takes at least."""

PROBE_BYTES: Final = 2**20
"""A disk on which so little can't be written is full."""


@dataclasses.dataclass(frozen=True)
class NightSummary:
    """How a night ended.

    Attributes:
        outcome: done, findings, stopped or failed.
        latest: name of the newest run that was verified, None where there is none.
        removed: names of the old runs that were removed.
        mails: what a person should read; none after a good night.
    """

    run: str
    outcome: str
    latest: str | None
    removed: list[str]
    mails: list[str]
    exit_code: int


class _EndedError(Exception):
    """The night has ended, and its mail is written."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


def nightly(config: NightlyConfig) -> NightSummary:
    """Explain into RUNS/<today>, verify, point RUNS/latest to the run, report, and remove old runs.

    A run that was interrupted is finished first; it stays as it is if model, data or options have changed meanwhile.
    Only a run that was verified, and of which most images could be read, moves `latest` and counts for `keep`. One that
    is dated after this day is told.

    Raises:
        ConfigError: --sign names no file.
        StoppedEarlyError: another night is at work.
        BatchcamError: there is no place to work in, or what is to be kept can't be told.
    """
    if config.sign is not None and not config.sign.is_file():
        raise ConfigError(f"--sign {config.sign}: not a key's file")
    landing.make_folder(config.runs)
    with locked(config.runs) as lock, Steps(config.quiet, lock) as steps:
        retention.kept_names(config.runs)  # before a night's work, not after it
        night = _Night(config, steps)
        code = night.ended()
        if config.on_end and (trouble := tell(config.on_end, night.today, code)):
            night.mails.append(f"batchcam nightly: {trouble}")
    return NightSummary(str(night.today), outcome(code), night.latest(), night.removed, night.mails, code)


class _Night:
    """One night: what it does, and what it has to tell."""

    def __init__(self, config: NightlyConfig, steps: Steps) -> None:
        self.config, self.runs, self.steps = config, config.runs, steps
        self.today = self.runs / datetime.date.today().isoformat()
        self.mails: list[str] = []
        self.removed: list[str] = []
        self._findings = False

    def ended(self) -> int:
        """Do the night's work; return its exit code."""
        if ahead := retention.future_runs(self.runs, self.today.name):
            self.mails.append(mails.wrong_clock(ahead, self.today.name))
        try:
            if not self._is_finished():
                self._finish_interrupted()
                self._make(self.today)
                if self.config.keep and holds_images(self.today):
                    retention.finish_removals(self.runs)
                    for old in retention.surplus(self.today, self.config.keep):
                        self._remove(old)
        except _EndedError as end:
            return end.code
        except BatchcamError as error:
            self.mails.append(f"batchcam nightly: {error}")
            return error.exit_code
        return EXIT_FINDINGS if self._findings else EXIT_DONE

    def latest(self) -> str | None:
        """Return the name of the run that `latest` points to."""
        link = self.runs / LATEST
        return os.readlink(link) if link.is_symlink() else None

    def _is_finished(self) -> bool:
        """Return whether this day's run is finished already."""
        run = self.today
        if self.latest() != run.name or not retention.beside(run, retention.REPORT).exists():
            return False
        if self.config.sign and not signature_file(run).exists():
            return False
        checkpoint = self.config.checkpoint
        if checkpoint.is_dir():
            return False  # only explain knows its digest
        if checkpoint.is_file():
            try:
                same = landing.file_digest(checkpoint) == read_plan(run).checkpoint_sha256
            except OSError as error:
                raise BatchcamError(f"cannot read {error.filename}: {error.strerror}") from error
            if not same:
                raise BatchcamError(
                    f"{run} is finished, but explains another checkpoint: move it away to explain today's"
                )
        return True

    def _finish_interrupted(self) -> None:
        """Finish the newest run before this day's if it is not complete, and still can be."""
        before = [run for run in retention.dated_runs(self.runs, self.today.name) if run != self.today]
        if not before or (before[-1] / MANIFEST_FILE).exists():
            return
        run = before[-1]
        with Log(retention.beside(run, retention.LOG)) as log:
            code = self._step(log, *self._words(run), "--dry-run")
            if code == EXIT_STOPPED_EARLY:
                self._fail("explain", code, run, log)
            if code or not os.access(run, os.W_OK):
                advice = f"nothing, if model, data or options have changed. Goes on with {self.today}."
                if not code:
                    advice = f"the run is {owner_of(run)}'s, who can finish it. Goes on with {self.today}."
                self._mail("interrupted, and can't be finished now", advice, run, log)
                return
        self._make(run)

    def _make(self, run: Path) -> None:
        """Make a run and all that belongs to it."""
        if not (run / MANIFEST_FILE).exists():
            retention.mark(run, verified=False)
        with Log(retention.beside(run, retention.LOG)) as log:
            code = self._explain(run, log)
            if not (run / PLAN_FILE).exists():
                retention.mark(run, verified=True)  # there is none
            if code not in (EXIT_DONE, EXIT_FINDINGS):
                self._fail("explain", code, run, log)
            if self.config.incremental and not (run / PLAN_FILE).exists():
                return  # nothing is new
            findings = code == EXIT_FINDINGS
            code = self._step(log, "verify", str(run))
            retention.mark(run, verified=code == EXIT_DONE)
            if code:
                self._fail("verify", code, run, log)
            if not holds_images(run):
                self._findings = True
                self._mail(
                    "most images could not be read (exit code 3)", f"mount their storage and {mails.AGAIN}.", run, log
                )
                return
            if self.config.sign:
                self._sign(run, self.config.sign, log)
            landing.point(self.runs / LATEST, run.name)
            if self.config.trend:
                self._trend(run, log)
            code = self._report(run, log)
            if code not in (EXIT_DONE, EXIT_FINDINGS):
                self._fail("report", code, run, log)
            if findings:
                self._findings = True
                report = str(retention.beside(run, retention.REPORT))
                advice = f"look at them: batchcam info {str(run)!r}, or its report {report!r}."
                self._mail("done, with findings (exit code 3)", advice, run, log)

    def _words(self, run: Path) -> list[str]:
        """Return the words of `batchcam explain`."""
        config = self.config
        since = ["--new-since", str(self.runs)] if config.incremental and not (run / PLAN_FILE).exists() else []
        return ["explain", str(config.checkpoint), config.data, "--out", str(run), *since, *config.options]

    def _explain(self, run: Path, log: Log) -> int:
        """Explain, and where the disk has too little room remove what would go after this night anyway."""
        words = self._words(run)
        if (run / MANIFEST_FILE).exists() and not holds_images(run):
            words.append("--retry-unreadable")
        old = retention.surplus(run, self.config.keep) if self.config.keep else []
        if old and not self._is_roomy():
            old = self._make_room(old, words, log)
        code = self._step(log, *words)
        while old and self._disk_is_full(code, log):
            before = len(old)
            old = self._make_room(old, words, log, at_least=1)
            if len(old) == before:
                break
            code = self._step(log, *words)
        return code

    def _report(self, run: Path, log: Log) -> int:
        """Write the report, and where the disk is full remove what would go after this night anyway."""
        words = ("report", str(run), "--out", str(retention.beside(run, retention.REPORT)))
        code = self._step(log, *words)
        for old in retention.surplus(run, self.config.keep) if self.config.keep else []:
            if not self._disk_is_full(code, log):
                break
            self._remove(old, log)
            code = self._step(log, *words)
        return code

    def _trend(self, run: Path, log: Log) -> None:
        """Hold a run against the nights before it."""
        folder = self.runs / TREND
        code = self._step(log, "trend", str(self.runs), "--alarm", "--out", str(folder))
        if code == EXIT_FINDINGS:
            self._findings = True
            advice = f"look at {str(folder / 'trend.html')!r}; what changed on purpose: batchcam trend {mails.SINCE}."
            self._mail("trend alarm (exit code 3)", advice, run, log)
        elif code:
            self._fail("trend", code, run, log)

    def _is_roomy(self) -> bool:
        """Return whether two runs such as the latest one certainly have room."""
        latest = self.runs / LATEST
        return latest.exists() and shutil.disk_usage(self.runs).free > 2 * retention.size_of(latest.resolve())

    def _make_room(self, old: list[Path], words: list[str], log: Log, at_least: int = 0) -> list[Path]:
        """Remove old runs, the oldest first, until what is left to explain has room; return those that stay.

        None goes where not even the room of all of them could suffice.

        Args:
            old: runs that may go.
            words: of explain.
            log: of the run that needs room.
            at_least: how many go whatever room there seems to be, as a quota does not show.
        """
        if self._step(log, *words, "--dry-run", "--json"):
            return old  # explain is going to tell
        need = int(json.loads(log.said().splitlines()[-1])["to_do_bytes"])
        free = shutil.disk_usage(self.runs).free
        if free + sum(map(retention.size_of, old)) < LEAST_SHARE * need:
            log.write(f"not even without {', '.join(run.name for run in old)} is there room for this run\n")
            return old
        retention.finish_removals(self.runs)
        while old and (at_least > 0 or shutil.disk_usage(self.runs).free < need):
            self._remove(old[0], log)
            old, at_least = old[1:], at_least - 1
        return old

    def _remove(self, run: Path, log: Log | None = None) -> None:
        try:
            retention.remove(run)
        except BatchcamError as error:
            self.mails.append(f"batchcam nightly: {error}")
            return
        self.removed.append(run.name)
        if log:
            log.write(f"removed {run} to make room\n")

    def _sign(self, run: Path, key: Path, log: Log) -> None:
        try:
            sign(run, key)
        except BatchcamError as error:
            log.write(f"{error}\n")
            self._fail("sign", error.exit_code, run, log)

    def _step(self, log: Log, *words: str) -> int:
        log.begin(words)
        return self.steps.run(*words, output=log.file)

    def _disk_is_full(self, code: int, log: Log) -> bool:
        """Return whether a step ended with `code` because the disk of the runs is full."""
        if code != EXIT_STOPPED_EARLY or self.steps.stopped():
            return False
        if landing.MAKE_ROOM in log.said():
            return True
        try:  # what was said may have had no room either
            with tempfile.NamedTemporaryFile(dir=self.runs) as probe:
                probe.write(bytes(PROBE_BYTES))
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as error:
            return error.errno in landing.NO_ROOM
        return False

    def _fail(self, step: str, code: int, run: Path, log: Log) -> None:
        """End the night: a step of it has failed."""
        headline = f"stopped early at {step}" if code == EXIT_STOPPED_EARLY else f"{step} failed"
        to_do = mails.advice(step, code)
        if self._disk_is_full(code, log):
            headline += ": the disk is full"
            to_do = mails.full_disk_advice(
                self.runs, retention.dated_runs(self.runs, self.today.name), self.config.keep
            )
        self._mail(f"{headline} (exit code {code})", to_do, run, log)
        raise _EndedError(code)

    def _mail(self, headline: str, to_do: str, run: Path, log: Log) -> None:
        self.mails.append(mails.mail(run, headline, to_do, self.latest(), log.last_lines()))
