"""Draws by chance from a run: which samples, why and with what weight; and what those drawn tell of all of them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from batchcam.errors import ConfigError, RunError
from batchcam.record.intervals import LEVEL, Interval, student, wilson
from batchcam.record.names import stored_columns
from batchcam.record.rows import class_names, label_texts, status_words
from batchcam.record.verdicts import Verdict
from batchcam.store.document import read_document
from batchcam.store.reader import COLUMN_BYTES
from batchcam.store.run import Run
from batchcam.store.schema import meta_array

DRAW_FILE: Final = "draw.json"

FEWEST: Final = 2
"""Samples drawn of a stratum that has as many: of fewer nobody knows how much they differ."""

RULE: Final = (
    "of each stratum the samples with the smallest SHA-256 of '<seed>:<sample id>'; strata in proportion (Webster's "
    f"method), at least {FEWEST} each; weight: samples of the stratum / drawn of it"
)

CLASS, PREDICTION, STATUS = "class", "prediction", "status"


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Samples of which some were drawn.

    Attributes:
        reason: why each of these was.
        size: of the stratum.
        drawn: of it.
    """

    reason: str
    size: int
    drawn: int

    @property
    def weight(self) -> float:
        """How many samples each drawn one stands for: 1 / probability of being drawn (Horvitz and Thompson 1952)."""
        return self.size / self.drawn


@dataclasses.dataclass(frozen=True)
class Draw:
    """Samples that were drawn from a run.

    Attributes:
        run_id: of the run.
        pool: the options that choose the samples drawn from, "": all of the run.
        seed: of the draw.
        stratify: what strata are made of, None: there is one.
        verdicts: words that people may say of a sample.
        strata: that were drawn from.
        stratum: place of each sample's in `strata`.
        samples: those drawn, in the order in which they came up, without a verdict.
    """

    run_id: str
    pool: str
    seed: int
    stratify: str | None
    verdicts: tuple[str, ...]
    strata: tuple[Stratum, ...]
    stratum: tuple[int, ...]
    samples: tuple[Verdict, ...]

    @property
    def size(self) -> int:
        """How many samples were drawn from."""
        return sum(stratum.size for stratum in self.strata)

    @property
    def content(self) -> dict[str, Any]:
        """What a document says of it."""
        told = ("sample_id", "input_sha256", "prediction", "label")
        samples = [[getattr(each, name) for name in told] for each in self.samples]
        return {**dataclasses.asdict(self), "samples": samples, "rule": RULE}

    def share(self, chosen: Sequence[bool], level: float = LEVEL) -> tuple[float, Interval]:
        """Return which share of all samples drawn from is as some of those drawn are, and its interval."""
        hits = np.bincount(self.stratum, np.asarray(chosen, float), len(self.strata))
        return stratified_share(hits, [s.drawn for s in self.strata], [s.size for s in self.strata], level)


def read_draw(path: Path) -> Draw:
    """Return the draw of a document.

    Raises:
        RunError: it can't be read, was changed, or is none.
    """
    try:
        content = read_document(path)
        strata = tuple(Stratum(**each) for each in content["strata"])
        counts = np.bincount(content["stratum"], minlength=len(strata)).tolist()
        if any(not 0 < of.drawn == count <= of.size for of, count in zip(strata, counts, strict=True)):
            raise ValueError("its strata are not those of its samples")
        samples = tuple(
            _blank(content["run_id"], told, strata[of])
            for told, of in zip(content["samples"], content["stratum"], strict=True)
        )
        lists = {"strata": strata, "samples": samples}
        lists |= {name: tuple(content[name]) for name in ("verdicts", "stratum")}
        return Draw(**{f.name: lists.get(f.name, content[f.name]) for f in dataclasses.fields(Draw)})
    except OSError as error:
        raise RunError(f"{path}: cannot read: {error.strerror}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not a draw of batchcam sample: {error}") from error


def draw(
    run: Run, rows: np.ndarray, count: int, seed: int, stratify: str | None, verdicts: tuple[str, ...], pool: str = ""
) -> tuple[Draw, np.ndarray]:
    """Draw samples; the same whatever the order of rows, the machine and the versions.

    Args:
        rows: of the run to draw from, ascending, int64 (n,).
        count: how many to draw.
        stratify: `class` (the predicted one where there is no label), `prediction`, `status`, or a column of the
            manifest; None: nothing.
        pool: what chose the rows.

    Returns:
        The draw, and the row of each sample, int64 (count,).

    Raises:
        ConfigError: there are fewer samples, there is no such column, or it has too many values.
    """
    if count > len(rows):
        what = f"samples of {pool}" if pool else "samples of the run"
        advice = f"ask for at most {len(rows)}, or look at all" if len(rows) else "choose others"
        raise ConfigError(f"--n {count}: more than the {len(rows)} {what}: {advice}")
    codes, names = _strata(run, rows, stratify)
    sizes = np.bincount(codes, minlength=len(names))
    drawn = allocated(count, sizes, str(stratify))
    keys = _keys(run, rows, seed)
    order = np.lexsort((keys, codes))
    starts = np.cumsum(sizes) - sizes
    places = np.concatenate([order[start : start + n] for start, n in zip(starts, drawn, strict=True)])
    places = places[np.argsort(keys[places], kind="stable")]
    strata = tuple(
        Stratum(f"{n} of {size} at random" + (f", {stratify} {name}" if stratify else ""), size, n)
        for name, size, n in zip(names, sizes.tolist(), drawn.tolist(), strict=True)
    )
    chosen, stratum = rows[places], tuple(codes[places].tolist())
    samples = _samples(run, chosen, (strata[of] for of in stratum))
    return Draw(run.plan.run_id, pool, seed, stratify, verdicts, strata, stratum, samples), chosen


def allocated(count: int, sizes: np.ndarray, stratify: str) -> np.ndarray:
    """Return how many to draw of each stratum: in proportion, by Webster's method, and of several at least `FEWEST`.

    Raises:
        ConfigError: these alone are more.
    """
    drawn = np.minimum(sizes, FEWEST if len(sizes) > 1 else 0)
    if (least := int(drawn.sum())) > count:
        raise ConfigError(
            f"--n {count}: {len(sizes)} values of --stratify {stratify} want {FEWEST} each: ask for {least} or more"
        )
    for _ in range(count - least):
        drawn[np.where(drawn < sizes, sizes / (2 * drawn + 1), -1).argmax()] += 1
    return np.asarray(drawn)


def stratified_share(
    hits: Sequence[float] | np.ndarray, drawn: Sequence[int], sizes: Sequence[int], level: float = LEVEL
) -> tuple[float, Interval]:
    """Return the estimate of a share by strata, and its interval: Wilson's, of the effective number of samples.

    That number is Korn and Graubard's (1998), with finite population correction, and at most that of a draw without
    strata: so that strata without a hit, or with hits alone, are not taken for certain. Of all samples it is exact.

    Args:
        hits: of the drawn samples of each stratum, (H,).
        drawn: at least one each, (H,).
        sizes: of the strata, (H,).
    """
    n, size = np.asarray(drawn, float), np.asarray(sizes, float)
    rate, weight, left = np.asarray(hits) / n, size / size.sum(), 1 - n / size
    share = float(weight @ rate)
    alike = float((weight**2 * left / n).sum())  # variance of a share over share (1 - share), were the strata alike
    if not alike:
        return share, (share, share)
    effective = 1 / alike
    variance = float((weight**2 * left * rate * (1 - rate) / np.maximum(n - 1, 1)).sum())
    if variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    freedom = int(n.sum()) - 1, int(n.sum()) - len(n)
    if freedom[1] > 0:
        effective *= (student(level, freedom[0]) / student(level, freedom[1])) ** 2
    low, high = wilson(share * effective, effective, level) or (0.0, 1.0)
    return share, (low, high)


def _strata(run: Run, rows: np.ndarray, stratify: str | None) -> tuple[np.ndarray, list[str]]:
    """Return the number of the stratum of each row, int64 (n,), and the names of all, sorted."""
    if stratify is None:
        return np.zeros(len(rows), np.int64), [""]
    column = stratify
    if stratify not in (CLASS, PREDICTION, STATUS):
        column = meta_array(stored_columns([stratify], run.plan.meta, f"--stratify {stratify}")[0]).name
    names = ("label", PREDICTION) if stratify == CLASS else (column,)
    numbers, codes, first = dict[Any, int](), np.empty(len(rows), np.int64), 0
    for some, block in run.blocks(names, rows, COLUMN_BYTES):
        values = block[names[0]]
        values = np.where(values < 0, block[PREDICTION], values) if stratify == CLASS else values
        codes[first : first + len(some)] = [numbers.setdefault(value, len(numbers)) for value in values.tolist()]
        first += len(some)
    if stratify == STATUS:
        told = [status_words(value) or "ok" for value in numbers]
    elif stratify in (CLASS, PREDICTION):
        told = [name if name is not None else "none" for name in class_names(run, np.array([*numbers]))]
    else:
        told = [*numbers]
    order = sorted(range(len(told)), key=told.__getitem__)
    return np.asarray(np.argsort(order)[codes]), [told[place] for place in order]


def _keys(run: Run, rows: np.ndarray, seed: int) -> np.ndarray:
    """Return what rows are drawn by: the first eight bytes of a SHA-256 of each sample's id, uint64 (n,)."""
    keys, first = np.empty(len(rows), np.uint64), 0
    for some, block in run.blocks(("sample_id",), rows, COLUMN_BYTES):
        texts = (f"{seed}:{sample_id}".encode(errors="surrogatepass") for sample_id in block["sample_id"])
        digests = b"".join(hashlib.sha256(text).digest()[:8] for text in texts)
        keys[first : first + len(some)] = np.frombuffer(digests, ">u8")
        first += len(some)
    return keys


def _samples(run: Run, rows: np.ndarray, strata: Iterable[Stratum]) -> tuple[Verdict, ...]:
    digests = [digest.tobytes().hex() for digest in run.input_sha256[rows]]
    named = [name or "" for name in class_names(run, run.prediction[rows])]
    labels = [label or "" for label in label_texts(run, rows)]
    told = zip(run.sample_id[rows].tolist(), digests, named, labels, strict=True)
    return tuple(_blank(run.plan.run_id, each, of) for each, of in zip(told, strata, strict=True))


def _blank(run_id: str, told: Sequence[str], of: Stratum) -> Verdict:
    """Return a sample without a verdict, from its id, digest, prediction and label."""
    sample_id, digest, prediction, label = told
    return Verdict(run_id, sample_id, digest, prediction, label, of.reason, f"{of.weight:.10g}")
