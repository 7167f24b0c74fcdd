"""What reviewers said of a run's samples: checked against the draw and the record, then summed up."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from batchcam.errors import BatchcamError, ConfigError
from batchcam.record.agreement import Agreement, agreement
from batchcam.record.draw import DRAW_FILE, Draw, read_draw
from batchcam.record.intervals import LEVEL, Interval
from batchcam.record.verdicts import Verdict, read_verdicts
from batchcam.rules import OPEN, OWN_VERDICTS, VERDICTS, composed
from batchcam.store import landing
from batchcam.store.reader import COLUMN_BYTES
from batchcam.store.run import Run

AS_DRAWN: Final = ("run_id", "input_sha256", "prediction", "label", "reason")


@dataclasses.dataclass(frozen=True)
class ReviewFile:
    """A file with verdicts, its digest, and when it was last written by the file system, UTC."""

    file: str
    sha256: str
    changed: str


@dataclasses.dataclass(frozen=True)
class Share:
    """How many samples are judged so.

    Attributes:
        verdict: a word of reviewers, `disputed` or `open`.
        samples: of those drawn, or looked at.
        share: estimate for all samples drawn from; None without a draw.
        interval: of that; None of those that are open, which tell of the review alone.
        most: the share, were all samples so that are open, or of which anybody says so; None without a draw.
        most_interval: of that.
    """

    verdict: str
    samples: int
    share: float | None
    interval: Interval | None
    most: float | None
    most_interval: Interval | None


@dataclasses.dataclass(frozen=True)
class Case:
    """A sample that is disputed or open; what each reviewer says of it, by name."""

    sample_id: str
    state: str
    verdicts: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Review:
    """What reviewers said.

    Attributes:
        run_id: of the run whose samples they judged.
        draw: the document of the draw, None: samples were not drawn, so that nothing follows for others.
        pool: the options that chose the samples drawn from, "": all of the run.
        size: how many samples were drawn from, None without a draw.
        samples: that were drawn, or judged without a draw.
        level: of confidence of the intervals.
        files: that were read.
        reviewers: how many samples each one judged, by name.
        agreement: of several reviewers, over the samples that two or more judged, each counted once.
        shares: of each verdict: they add up to all samples drawn from.
        cases: that are disputed or open.
        notes: what a reader should know, a line each.
    """

    run_id: str
    draw: str | None
    pool: str
    size: int | None
    samples: int
    level: float
    files: tuple[ReviewFile, ...]
    reviewers: dict[str, int]
    agreement: Agreement | None
    shares: tuple[Share, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...]


def read_review(
    paths: Iterable[Path],
    run: Run | None = None,
    draw_file: Path | None = None,
    words: Sequence[str] | None = None,
    level: float = LEVEL,
) -> Review:
    """Return what files with verdicts, or folders of them, say.

    Args:
        run: whose samples they have to be; None: that is not checked.
        draw_file: document of the draw; default: the one beside the files, if there is one.
        words: that verdicts can be; default: those of the draw.

    Raises:
        ConfigError: there are no such files, or they are of several draws.
        BatchcamError: a line was edited, is of another run, or says something unknown; the message names the line.
    """
    files = _files(paths)
    where = draw_file or _draw_beside(files)
    drawn = read_draw(where) if where else None
    words = words or (drawn.verdicts if drawn else VERDICTS)
    said = _Said(drawn)
    for file in files:
        for verdict in read_verdicts(file, words):
            said.take(file, verdict)
    samples = {each.sample_id: each for each in drawn.samples} if drawn else said.samples
    if run is not None:
        _require_recorded(run, samples)
    reviewers, ratings = said.ratings(samples, words)
    return Review(
        run_id=said.run_id,
        draw=None if where is None else str(where),
        pool=drawn.pool if drawn else "",
        size=drawn.size if drawn else None,
        samples=len(samples),
        level=level,
        files=tuple(map(_about, files)),
        reviewers=dict(zip(reviewers, (ratings >= 0).sum(0).tolist(), strict=True)),
        agreement=agreement(ratings, level),
        shares=tuple(_shares(drawn, ratings, words, level)),
        cases=tuple(_cases([*samples], reviewers, ratings, words)),
        notes=tuple(said.notes()),
    )


def _files(paths: Iterable[Path]) -> list[Path]:
    found = []
    for path in paths:
        inside = sorted(path.glob("*.csv")) if path.is_dir() else [path]
        if not inside:
            raise ConfigError(f"{path}: holds no .csv file: name files with verdicts, or their folder")
        found += inside
    return [*{path.resolve(): path for path in found}.values()]


def _draw_beside(files: Sequence[Path]) -> Path | None:
    found = {path.resolve(): path for file in files if (path := file.parent / DRAW_FILE).exists()}
    if len({landing.file_digest(path) for path in found}) > 1:
        raise ConfigError(f"{' and '.join(map(str, found.values()))}: two draws: review each by itself")
    return next(iter(found.values()), None)


def _about(file: Path) -> ReviewFile:
    changed = datetime.datetime.fromtimestamp(int(file.stat().st_mtime), datetime.timezone.utc)
    return ReviewFile(str(file), landing.file_digest(file), changed.isoformat())


class _Said:
    """Verdicts as they are read.

    Attributes:
        samples: what is said of each sample, by its id, where there is no draw.
        run_id: of the run.
    """

    def __init__(self, drawn: Draw | None) -> None:
        self.samples: dict[str, Verdict] = {}
        self._drawn = {each.sample_id: each for each in drawn.samples} if drawn else None
        self.run_id = drawn.run_id if drawn else ""
        self._names: dict[str, str] = {}
        self._last: dict[tuple[str, str], tuple[Path, Verdict]] = {}
        self._changed = self._beside = 0
        self._unnamed: dict[str, None] = {}

    def take(self, file: Path, verdict: Verdict) -> None:
        """Count a line.

        Raises:
            BatchcamError: it is not as drawn, or another file has another verdict of the same person.
        """
        if not self._is_meant(verdict) or not (verdict.verdict or verdict.reviewer):
            return
        if not verdict.reviewer:
            self._unnamed[file.name] = None
        name = verdict.reviewer or file.stem
        key = (self._names.setdefault(composed(name).casefold(), name), verdict.sample_id)
        before = self._last.get(key)
        if before is not None and before[1].verdict not in ("", verdict.verdict):
            if before[0] == file:
                self._changed += 1
            elif not verdict.verdict:
                return
            else:
                raise BatchcamError(
                    f"{verdict.where}: {key[0]} says {verdict.verdict} of {verdict.sample_id}, and "
                    f"{before[1].verdict} at {before[1].where}: leave the one that counts"
                )
        self._last[key] = file, verdict

    def _is_meant(self, verdict: Verdict) -> bool:
        """Return whether a line is of a sample that counts; refuse one that says something else of it."""
        known = self.samples if self._drawn is None else self._drawn
        as_drawn = known.get(verdict.sample_id)
        if as_drawn is None and self._drawn is None:
            as_drawn = known[verdict.sample_id] = verdict
            self.run_id = self.run_id or verdict.run_id
        elif as_drawn is None and not verdict.reason and verdict.run_id == self.run_id:
            self._beside += bool(verdict.verdict)
            return False
        if as_drawn is None:
            raise BatchcamError(f"{verdict.where}: sample {verdict.sample_id!r} was not drawn from run {self.run_id}")
        stated = dataclasses.replace(as_drawn, run_id=self.run_id)
        for name in AS_DRAWN:
            found, want = getattr(verdict, name), getattr(stated, name)
            if found != want and (found or name in ("run_id", "input_sha256")):
                raise BatchcamError(
                    f"{verdict.where}: {name} of {verdict.sample_id} is {found!r}, not {want!r}: the line was edited, "
                    "as by a spreadsheet that takes texts for numbers, or is of another draw"
                )
        return True

    def ratings(self, samples: Iterable[str], words: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Return the reviewers, and the number of the word that each says of each sample, -1: none, int64 (n, R)."""
        reviewers = [*dict.fromkeys(name for (name, _), (_, last) in self._last.items() if last.verdict)]
        place = {sample_id: row for row, sample_id in enumerate(samples)}
        ratings = np.full((len(place), len(reviewers)), -1)
        for (name, sample_id), (_, last) in self._last.items():
            if last.verdict:
                ratings[place[sample_id], reviewers.index(name)] = words.index(last.verdict)
        return reviewers, ratings

    def notes(self) -> Iterable[str]:
        if self._drawn is None:
            yield f"no {DRAW_FILE} beside the files: these samples were not drawn; nothing follows for others"
        if self._unnamed:
            yield f"no reviewer in {', '.join(self._unnamed)}: the file's name stands for theirs"
        if self._changed:
            yield f"verdicts changed by their reviewers: {self._changed}; the last one counts"
        if self._beside:
            yield f"verdicts on samples that were not drawn left out: {self._beside}"


def _require_recorded(run: Run, samples: Mapping[str, Verdict]) -> None:
    """Refuse verdicts on samples that a run does not have, or has other images of."""
    missing = dict(samples)
    for _, block in run.blocks(("sample_id", "input_sha256"), budget=COLUMN_BYTES):
        for place, sample_id in enumerate(block["sample_id"].tolist()):
            if (said := missing.pop(sample_id, None)) is None:
                continue
            recorded = block["input_sha256"][place].tobytes().hex(), run.plan.run_id
            if (said.input_sha256, said.run_id) != recorded:
                raise BatchcamError(
                    f"{said.where or sample_id}: judged is run {said.run_id[:12]}, image {said.input_sha256[:12]} of "
                    f"{sample_id}; {run.path} is run {recorded[1][:12]}, image {recorded[0][:12]}"
                )
    if missing:
        first = next(iter(missing.values()))
        raise BatchcamError(f"{run.path}: run {run.plan.run_id[:12]} has no sample {first.sample_id} that was judged")


def _shares(drawn: Draw | None, ratings: np.ndarray, words: Sequence[str], level: float) -> Iterable[Share]:
    states = _states(ratings, len(words))
    for number, word in enumerate((*words, *OWN_VERDICTS)):
        there = states == number
        possible = there if word in OWN_VERDICTS else (ratings == number).any(1) | (states == len(words) + 1)
        (share, interval), (most, ends) = (
            drawn.share(some.tolist(), level) if drawn else (None, None) for some in (there, possible)
        )
        yield Share(word, int(there.sum()), share, None if word == OPEN else interval, most, ends)


def _states(ratings: np.ndarray, words: int) -> np.ndarray:
    """Return the number of each sample's verdict; that of `words` where reviewers differ, one more where it is open."""
    if not ratings.shape[1]:
        return np.full(len(ratings), words + 1)
    most, least = ratings.max(1), np.where(ratings < 0, words, ratings).min(1)
    return np.where(most < 0, words + 1, np.where(most == least, most, words))


def _cases(
    sample_ids: Sequence[str], reviewers: Sequence[str], ratings: np.ndarray, words: Sequence[str]
) -> Iterable[Case]:
    states = _states(ratings, len(words))
    for row in np.flatnonzero(states >= len(words)).tolist():
        said = {name: words[word] for name, word in zip(reviewers, ratings[row].tolist(), strict=True) if word >= 0}
        yield Case(sample_ids[row], OWN_VERDICTS[states[row] - len(words)], said)
