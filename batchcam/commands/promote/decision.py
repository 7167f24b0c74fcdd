"""How a version of a model is judged, and becomes the promoted one or not; `retrain` does so too."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from batchcam.config.gates import Gates
from batchcam.config.options import Option, Part, flag, flag_of, members
from batchcam.config.places import PROMOTED
from batchcam.config.shared import Classifier
from batchcam.errors import CLASSES_DIFFER, EXIT_DONE, EXIT_FINDINGS, EXIT_STOPPED_EARLY, ConfigError, RunError
from batchcam.job.console import counted
from batchcam.job.lock import locked
from batchcam.job.steps import Steps, parted
from batchcam.store import landing
from batchcam.store.document import read_document
from batchcam.store.manifest import holds_images
from batchcam.store.problem import is_multi_label
from batchcam.store.schema import MANIFEST_FILE

RECOMPUTED: Final = 16
NOISE: Final = "noise"
"""Folder of a version's retrainings, each with its number."""

WITH_FINDINGS: Final = "promoted, with findings: some images could not be read, see above"
DEFAULT_GATES: Final = {False: ("--max-accuracy-drop", "1"), True: ("--max-auroc-drop", "1")}
"""Where none was asked for, by whether the runs are multi-label."""


@dataclasses.dataclass(frozen=True)
class DecisionSummary:
    """What became of a version.

    Attributes:
        decision: what was decided, and why.
        promoted: name of the promoted version now, None where there is none.
        exit_code: 0 promoted, 3 refused, or promoted with findings; else that of the step that failed.
    """

    version: str
    decision: str
    promoted: str | None
    exit_code: int


class NotPromotedError(Exception):
    """A version does not become the promoted one; the message says why."""

    def __init__(self, decision: str, code: int) -> None:
        super().__init__(decision)
        self.code = code


class Candidate:
    """A version that may become the promoted one: VERSION/model.pth, VERSION/run, VERSION/compare.

    Args:
        test: the dataset that it is judged by.
        gates: how far its run may be from that of the promoted version.

    Raises:
        ConfigError: a gate means nothing for the promoted version's run, or is auto and the version has no retrainings.
    """

    def __init__(self, version: Path, test: str, gates: Gates, steps: Steps) -> None:
        multi_label = is_multi_label(version.parent / PROMOTED / "run")
        if multi_label is not None:
            gates.require_meant(multi_label)
        self.version, self.test, self._steps = version, test, steps
        self._gates = _with_retrainings(gates, version.parent / PROMOTED)
        self.findings = False

    def step(self, *words: str) -> int:
        """Run a command; return its exit code, 0 or 3."""
        return run_step(self._steps, *words)[0]

    def judge(self, checkpoint: Path, *options: str) -> None:
        """Explain the test images, prove the record, and compare it with that of the promoted version.

        Args:
            checkpoint: of this version.
            options: of `batchcam explain`.

        Raises:
            NotPromotedError: a step failed, or the version is refused.
        """
        run = self.version / "run"
        if self.step("explain", str(checkpoint), self.test, "--out", str(run), *options):
            self.findings = True
        again = ("--checkpoint", str(checkpoint), "--data", self.test, *options_of(Classifier, options, ["--device"]))
        if self.step("verify", str(run), "--recompute", str(RECOMPUTED), *again):
            raise NotPromotedError("refused: the record of its explanation is not true, see above", EXIT_FINDINGS)
        if not holds_images(run):
            raise NotPromotedError("refused: most images of TEST could not be read", EXIT_FINDINGS)
        if (promoted := self.version.parent / PROMOTED).is_symlink():
            gates = self._gates.words
            if not self._gates.asks:
                gates = [*DEFAULT_GATES[bool(is_multi_label(run))], *gates]
            self._compare(promoted.resolve() / "run", run, gates)
        elif (alone := self._gates.of_one_run).asks:
            self._compare(run, run, alone.words)

    def _compare(self, old: Path, new: Path, words: list[str]) -> None:
        out = self.version / "compare"
        code, text = run_step(self._steps, "compare", str(old), str(new), "--out", str(out), *words)
        landing.land(out.with_suffix(".txt"), text.encode())
        if code:
            raise NotPromotedError(f"refused: {_reasons(out / 'compare.json')}", EXIT_FINDINGS)


def run_step(steps: Steps, *words: str) -> tuple[int, str]:
    """Run a command; return its exit code, 0 or 3, and what it said to stdout.

    Raises:
        NotPromotedError: it failed, or was stopped.
    """
    with tempfile.TemporaryFile() as stdout:
        code = steps.run(*words, "--json", stdout=stdout)
        stdout.seek(0)
        text, said = parted(stdout.read().decode(errors="replace"))
    sys.stdout.write(text)
    sys.stdout.flush()
    _require_done(words[0], code, said)
    return code, text


def _with_retrainings(gates: Gates, promoted: Path) -> Gates:
    """Return gates whose limits that are auto come from the promoted version's retrainings, where none are named."""
    if not gates.auto or gates.noise or not promoted.is_symlink():
        return gates
    runs = sorted(path.parent for path in promoted.resolve().glob(f"{NOISE}/*/run/{MANIFEST_FILE}"))
    if len(runs) < 2:
        raise ConfigError(
            f"{flag(gates.auto[0])} auto: {promoted} has {counted(len(runs), 'retraining')}, and two are needed: run "
            "the retrain that promoted it again with --seeds 3, or say --noise RUN"
        )
    return dataclasses.replace(gates, noise=tuple(runs))


def decide(
    version: Path, quiet: bool, work: Callable[[Steps], bool], after: Callable[[Steps], None] = lambda steps: None
) -> DecisionSummary:
    """Point models/promoted to a version if `work` on it does not refuse, and do what comes after.

    Args:
        version: the version.
        quiet: whether the steps are to be quiet.
        work: returns whether there are findings.
        after: what is done for a version that is promoted, or was already.
    """
    promoted = version.parent / PROMOTED
    landing.make_folder(version)

    def summary(decision: str, code: int) -> DecisionSummary:
        return DecisionSummary(str(version), decision, os.readlink(promoted) if promoted.is_symlink() else None, code)

    with locked(version.parent) as lock, Steps(quiet, lock) as steps:
        try:
            if promoted.exists() and promoted.samefile(version):
                decision, code = "is promoted already", EXIT_DONE
            else:
                findings = work(steps)
                landing.point(promoted, version.name)
                decision, code = (WITH_FINDINGS, EXIT_FINDINGS) if findings else ("promoted", EXIT_DONE)
        except NotPromotedError as error:
            return summary(str(error), error.code)
        try:
            after(steps)
        except NotPromotedError as error:
            return summary(f"{decision}, but its retrainings: {error}", error.code)
    return summary(decision, code)


def options_of(part: type[Part], words: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """Return those of a command's options that a part of its config asks for, and `more` of them."""
    flags = {flag_of(field) for field, _ in members(part) if Option in field.metadata} | {*more}
    found: list[str] = []
    for word, following in itertools.pairwise((*words, "")):
        if word.partition("=")[0] in flags:
            found += [word] if "=" in word else [word, following]
    return found


def _require_done(step: str, code: int, said: Mapping[str, Any]) -> None:
    if code == EXIT_STOPPED_EARLY:
        raise NotPromotedError(f"stopped early at {step}; run the same command again to go on", code)
    if said.get("error_kind") == CLASSES_DIFFER:  # which TEST or the promoted version does not have
        raise NotPromotedError(f"refused: {said['error']}", EXIT_FINDINGS)
    if code not in (EXIT_DONE, EXIT_FINDINGS):
        raise NotPromotedError(f"not promoted: {step} failed (exit code {code}), see above", code)


def _reasons(document: Path) -> str:
    """Return why a comparison refuses."""
    try:
        gates = read_document(document)["gates"]
        reasons = [str(gate["reason"]) for gate in gates if not gate["passed"]]
    except (OSError, RunError, LookupError, TypeError):
        reasons = []
    return "; ".join(reasons) or "see above"
