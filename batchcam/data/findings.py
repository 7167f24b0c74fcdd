"""Several labels a sample, each class true or not by itself: lists, a column for each class, or vectors of 0 and 1."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from batchcam.data.csv_manifest import NO_LABEL_COLUMN, NOT_KNOWN_NUMBER
from batchcam.data.labels import KnownClasses, whole_number
from batchcam.data.samples import UNKNOWN_LABEL, Numbers, Source
from batchcam.errors import ClassesError, ConfigError, DatasetError, one_line
from batchcam.images.tables import as_text
from batchcam.rules import MULTI_LABEL, SINGLE_LABEL, array_name, column_name, composed

SEPARATOR: Final = "|"
NO_FINDING: Final = "no finding"
"""What a list says, in any case, that is empty and known to be, unless it is a class: NIH's ChestX-ray14 does."""

_WORDS: Final = {"true": 1, "yes": 1, "false": 0, "no": 0}
_NAMED: Final = 5

MOSTLY: Final = 0.9
"""Share of the labelled samples that are of exactly one class from which the user has to say what is meant."""


@dataclasses.dataclass(frozen=True)
class LabelReading:
    """How labels are to be read, as far as it was said.

    Attributes:
        problem_type: single-label or multi-label; None: what the data says.
        separator: between the classes of a label.
        columns: by class, the manifest's column that says whether it is true; where labels are lists, what it is called
            there.
    """

    problem_type: str | None = None
    separator: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ConfigError for what excludes each other."""
        if self.separator and self.problem_type == SINGLE_LABEL:
            raise ConfigError("--label-separator: goes with --problem-type multi-label")

    @property
    def is_said(self) -> bool:
        """Whether the user says that samples have several labels."""
        return self.problem_type == MULTI_LABEL or bool(self.columns or self.separator)

    @classmethod
    def of(cls, problem_type: str | None, separator: str | None, findings: Sequence[str] | None) -> LabelReading:
        """Return what the options say; each of `findings` is CLASS, or CLASS=COLUMN."""
        pairs = [each.partition("=") for each in findings or ()]
        return cls(problem_type, separator or "", {name: column or name for name, _, column in pairs})


AS_THE_DATA_SAYS: Final = LabelReading()


@dataclasses.dataclass(frozen=True, eq=False)
class Findings:
    """Of each sample whether each class of the model is true.

    Attributes:
        values: 1: yes; 0: no; -1: not known; int8 (n, K).
        remarks: how they were read, a line each.
        separator, columns: as `LabelReading`, where labels are lists or columns.
    """

    values: Numbers
    remarks: tuple[str, ...] = ()
    separator: str = ""
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def labelled(self) -> tuple[int, int]:
        """How many samples have any label, and of how many one class is true, and no other, and all are known."""
        values = np.asarray(self.values)
        one = (values >= 0).all(1) & ((values == 1).sum(1) == 1)
        return int((values >= 0).any(1).sum()), int(one.sum())

    def one_each(self, where: str) -> NDArray[np.int64]:
        """Return the one class of each sample, -1 where none is known, int64 (n,).

        Raises:
            DatasetError: a sample has several, or none.
        """
        values = np.asarray(self.values)
        true, unknown = (values == 1).sum(1), (values < 0).all(1)
        if wrong := np.flatnonzero((true != 1) & ~unknown).tolist():
            raise DatasetError(
                f"{where}: sample {wrong[0]} is of {true[wrong[0]]} classes, where --problem-type says one"
            )
        return np.where(unknown, UNKNOWN_LABEL, values.argmax(1))


def read_findings(source: Source, classes: Sequence[str], reading: LabelReading) -> Findings | None:
    """Return several labels a sample, where that is what the data, or the user, says; None: a sample has one label.

    Data says it by vectors, by lists, or by columns of 0 and 1 named as all of the classes. The user has to say it
    where nearly all samples are of exactly one class, where only some columns are there, or where they say nothing.

    Args:
        classes: of the model.

    Raises:
        ConfigError: what was said is not there.
        ClassesError: a class is none of the model's.
        DatasetError: labels can be read in two ways, or not at all.
    """
    is_said = reading.is_said
    if source.multi_hot is not None:
        found = _of_vectors(source, source.multi_hot, classes, source.class_names)
    elif columns := _columns(source, classes, reading, is_said):
        if (values := _of_columns(source, classes, columns, reading)) is None:
            return None
        named = f"{', '.join([*columns.values()][:_NAMED])}{', …' if len(columns) > _NAMED else ''}"
        told = f"labels are the manifest's columns {one_line(named)}"
        other = [f"{column_name(c)} for {n}" for n, c in columns.items() if composed(c) != composed(array_name(n))]
        loose = () if reading.columns or not other else (f"columns named otherwise: {one_line(', '.join(other))}",)
        found = Findings(values, (told, *loose, *_remarks(values, classes)), columns=columns)
    elif is_said or source.several:
        found = _of_lists(source, classes, reading)
        if reading.problem_type == SINGLE_LABEL and (np.asarray(found.values) == 1).sum(1).max() > 1:
            return None
    else:
        return None
    count, one = found.labelled
    if not is_said and reading.problem_type is None and one >= (count if found.separator else MOSTLY * count):
        whose = "each sample is" if one == count else f"{one} of {count} labelled samples are"
        raise _undecided(source, f"{whose} of exactly one class")
    return found


def own_findings(source: Source, reading: LabelReading) -> tuple[tuple[str, ...], Findings] | None:
    """Return the classes that a dataset itself names, and `read_findings` of them; None: a sample has one label.

    Where nobody said which columns are labels, those are that hold nothing but 1, 0, and what is not known.

    Raises:
        DatasetError, ConfigError: as `read_findings`; or columns may be classes, and nobody said so.
    """
    if source.multi_hot is not None:
        names = source.class_names or tuple(map(str, range(source.multi_hot.shape[1])))
    elif reading.columns:
        names = tuple(reading.columns)
    elif not (np.asarray(source.labels) >= 0).any():
        columns = {} if reading.separator else _truth_columns(source, reading)
        names, reading = tuple(columns), dataclasses.replace(reading, columns=columns)
    elif reading.problem_type != SINGLE_LABEL and (reading.is_said or source.several):
        names = _listed_classes(source, reading.separator or SEPARATOR)
    else:
        names = ()
    found = read_findings(source, names, reading) if names else None
    return None if found is None else (names, found)


def _truth_columns(source: Source, reading: LabelReading) -> dict[str, str]:
    """Return by class the further columns that say of each sample whether it is true."""
    truths = {name: {_truth(text) for text in {*texts.raws()}} for name, texts in source.meta.items()}
    found = {column_name(name): name for name, values in truths.items() if None not in values and values != {-1}}
    if found and reading.problem_type is None:
        listed = ", ".join([*found][:_NAMED]) + ", …" * (len(found) > _NAMED)
        raise _undecided(source, f"{NO_LABEL_COLUMN}, and columns {one_line(listed)} hold 1 and 0 (--findings: which)")
    return found


def _listed_classes(source: Source, separator: str) -> tuple[str, ...]:
    """Return the classes that lists name, numbers in their order."""
    labels = np.unique(np.asarray(source.labels))
    texts = [source.class_names[k] if source.class_names else str(k) for k in labels[labels >= 0].tolist()]
    if source.several and not any(separator in text and text[0] != "[" for text in texts):
        raise DatasetError(f"{source.spec}: labels are lists, not separated by {separator!r}: say --label-separator")
    parts = {composed(part.strip()): part.strip() for text in texts for part in text.split(separator)}
    names = [part for part in parts.values() if part and not _is_none(part)]
    return tuple(sorted(names, key=lambda name: (whole_number(name) is None, whole_number(name) or 0, name)))


def notes_of(source: Source, is_labelled: bool) -> list[str]:
    """Return what was passed over while listing, but for what is no loss where other columns are labels."""
    return [note for note in source.notes if not (is_labelled and note.startswith(NO_LABEL_COLUMN))]


def _undecided(source: Source, why: str) -> DatasetError:
    return DatasetError(
        f"{source.spec}: {why}: say --problem-type single-label (one class a sample, by softmax) or multi-label (each "
        "class by itself, by sigmoid)"
    )


def _columns(source: Source, classes: Sequence[str], reading: LabelReading, is_said: bool) -> dict[str, str]:
    """Return which of the manifest's further columns each class has, by class."""
    if reading.separator:
        return {}
    there = {composed(name): name for name in source.meta}
    is_labelled = bool((np.asarray(source.labels) >= 0).any())
    if reading.columns:
        called = _called(classes, reading)
        keys = {
            n: next((k for k in (composed(c), composed(array_name(c))) if k in there), "") for n, c in called.items()
        }
        if is_labelled and not any(keys.values()):
            return {}
        if lacking := next((called[name] for name, key in keys.items() if not key), None):
            raise ConfigError(f"--findings {lacking}: {source.spec} has no such column")
        return {name: there[key] for name, key in keys.items()}
    found = _like_named(source, classes)
    if len(found) < len(classes) and not is_said:
        if 2 * len(found) >= len(classes) > 1 and not is_labelled and reading.problem_type is None:
            lacking = next(name for name in classes if name not in found)
            raise _undecided(source, f"columns are named as {len(found)} of {len(classes)} classes, not {lacking}")
        return {}
    if found and is_labelled:
        if source.several or is_said:
            raise DatasetError(
                f"{source.spec}: labels are a column label, and columns {', '.join([*found][:_NAMED])}: say which "
                f"count, by --label-separator {SEPARATOR!r} or by --findings"
            )
        return {}
    return found


def _like_named(source: Source, classes: Sequence[str]) -> dict[str, str]:
    """Return by class the column of its name, or else the one that differs in case, blanks or underscores."""
    names = [*source.meta]
    known = KnownClasses([column_name(name) for name in names], loosely=True)
    found = {name: names[k] for name in classes if (k := known.find(name.strip())) is not None and k >= 0}
    # where several classes have one column, it is that of the class of its very name
    taken = Counter(found.values())
    return {name: column for name, column in found.items() if taken[column] == 1 or column == array_name(name)}


def _called(classes: Sequence[str], reading: LabelReading) -> dict[str, str]:
    """Return what --findings says that each class is called, by the model's name of it."""
    known = KnownClasses(classes, loosely=True)
    places = {name: known.find(name) for name in reading.columns}
    for name, index in places.items():
        if index is None or index < 0:
            raise ConfigError(f"--findings {name}: no class of the model: {', '.join(classes[:_NAMED])}, …")
    return {classes[places[name] or 0]: called for name, called in reading.columns.items()}


def _of_columns(
    source: Source, classes: Sequence[str], columns: Mapping[str, str], reading: LabelReading
) -> NDArray[np.int8] | None:
    """Return what columns say, -1 for classes without one; None: of one class a sample they say nothing."""
    values = np.full((len(source), len(classes)), UNKNOWN_LABEL, np.int8)
    for name, column in columns.items():
        texts = list(source.meta[column].raws())
        said: dict[bytes, Any] = {text: _truth(text) for text in set(texts)}
        if None in said.values():
            if reading.problem_type == SINGLE_LABEL:
                return None
            index = next(i for i, text in enumerate(texts) if said[text] is None)
            raise DatasetError(
                f"{source.spec}: column {one_line(column)} of sample {one_line(source.sample_ids[index])}: "
                f"{one_line(source.meta[column][index])[:40]}: want 1, 0, or nothing or -1 where not known"
                f"{'' if reading.is_said else '; or say --problem-type single-label, and they are no labels'}"
            )
        values[:, classes.index(name)] = np.fromiter(map(said.__getitem__, texts), np.int8, len(texts))
    if not reading.is_said and not (values >= 0).any():
        if reading.problem_type is None:
            raise _undecided(source, "columns are named as the classes, and say nothing of any sample")
        return None
    return values


def _truth(raw: bytes) -> int | None:
    """Return what a text says of a class: 1, 0, or -1 for not known; None: none of them."""
    text = raw.decode("utf-8", "replace").strip().lower()
    if text in NOT_KNOWN_NUMBER:
        return UNKNOWN_LABEL
    number = _WORDS.get(text, whole_number(text))
    return number if number in (1, 0, UNKNOWN_LABEL) else None


def _of_lists(source: Source, classes: Sequence[str], reading: LabelReading) -> Findings:
    """Return what lists say, nothing where the dataset has no labels."""
    separator, is_said = reading.separator or SEPARATOR, reading.is_said
    written, of = np.unique(np.asarray(source.labels), return_inverse=True)
    texts = [
        source.class_names[label] if source.class_names else str(label) for label in written.tolist() if label >= 0
    ]
    lists = [_parts(text, separator) for text in texts]
    vectors = _written_vectors(source, texts, lists, len(classes))
    if vectors is not None:
        table = np.concatenate([np.full((len(written) - len(texts), len(classes)), UNKNOWN_LABEL, np.int8), vectors])
        return dataclasses.replace(_of_vectors(source, table[of], classes, None), separator=separator)
    called = _called(classes, reading)
    find, told = _finder(classes, called, lists)
    table = np.full((len(written), len(classes)), UNKNOWN_LABEL, np.int8)
    known = [k for k, name in enumerate(classes) if not called or name in called]
    others: Counter[str] = Counter()
    for row, (text, parts) in enumerate(zip(texts, lists, strict=True), start=len(written) - len(texts)):
        places = {part: find(part) for part in parts if part and (part in classes or not _is_none(part))}
        if places and any(_is_none(part) and part not in classes for part in parts):
            raise DatasetError(
                f"{source.spec}: label {one_line(text)[:80]}: says of one sample that it has none and some"
            )
        unknown = [part for part, place in places.items() if place is None or place < 0]
        if unknown and not called:
            if not is_said:
                raise DatasetError(source.several)
            raise ClassesError(
                f"{source.spec}: label {one_line(text)[:80]}: the model has no one class {one_line(unknown[0])[:40]}; "
                "say --label-separator, or which labels are which classes, and pass over the others, by --findings "
                f"{shlex.quote(f'{classes[0]},…')} or CLASS=LABEL,…"
            )
        others.update(dict.fromkeys(unknown, int((of == row).sum())))
        table[row, known] = 0
        table[row, [place for place in places.values() if place is not None and place >= 0]] = 1
    values = table[of]
    remarks = (
        f"labels are lists of classes, separated by {separator!r}: a class that a list does not name is a no",
        *told,
        *(f"labels passed over: {one_line(name)} of {count} samples" for name, count in others.most_common(_NAMED)),
        *_remarks(values, classes),
    )
    return Findings(values, remarks, separator=separator, columns=called)


_NUMBERS: Final = {"1": 1, "0": 0, "-1": -1, "": -1}
"""What a place of a vector says that is written as a list."""


def _is_written_list(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def _written_vectors(
    source: Source, texts: Sequence[str], lists: Sequence[Sequence[str]], count: int
) -> NDArray[np.int8] | None:
    """Return lists that JSON writes as vectors, int8 (n, count), None where they are others."""
    if not texts or not all(map(_is_written_list, texts)) or {*map(len, lists)} != {count}:
        return None
    if not {*itertools.chain(*lists)} <= {*_NUMBERS}:
        return None
    if count == 2:
        raise DatasetError(
            f"{source.spec}: label {texts[0]}: yes and no of two classes, or their indices: write their names"
        )
    return np.array([[_NUMBERS[part] for part in parts] for parts in lists], np.int8)


def _parts(text: str, separator: str) -> list[str]:
    """Return the items of a list, which JSON writes, or which separators part; whole numbers as their digits."""
    if _is_written_list(text):
        with contextlib.suppress(ValueError, RecursionError):
            return [item if isinstance(item, str) else _word(as_text(item)) for item in json.loads(text)]
    return [part.strip() for part in text.split(separator)]


def _word(text: str) -> str:
    number = _WORDS.get(text, whole_number(text))
    return text if number is None else str(number)


def _finder(
    classes: Sequence[str], called: Mapping[str, str], lists: Sequence[Sequence[str]]
) -> tuple[Callable[[str], int | None], tuple[str, ...]]:
    """Return what gives the index of the class that a label names, None for none, and what to tell of it."""
    if called:
        places = {composed(name): classes.index(kept) for kept, name in called.items()}
        return lambda part: places.get(composed(part)), ()
    known = KnownClasses(classes, loosely=True)
    numbers = {part: whole_number(part) for part in itertools.chain(*lists) if part and not _is_none(part)}
    if known.unknown([*numbers]) and all(n is not None and 0 <= n < len(classes) for n in numbers.values()):
        return numbers.get, ("labels in lists are class indices",)
    return known.find, tuple(known.remarks([*numbers]))


def _is_none(part: str) -> bool:
    return part.lower().replace("_", " ") == NO_FINDING


def _of_vectors(
    source: Source, vectors: NDArray[np.int8], classes: Sequence[str], names: Sequence[str] | None
) -> Findings:
    """Return what vectors say, by the names of their places, or else in the model's order."""
    count = vectors.shape[1]
    if names is None:
        if count != len(classes):
            raise ClassesError(f"{source.spec}: labels are vectors of {count}, the model has {len(classes)} classes")
        told = "labels are vectors, whose places count as the model's classes in their order"
        return Findings(vectors, (told, *_remarks(vectors, classes)))
    if len(names) != count:
        raise ClassesError(f"{source.spec}: labels are vectors of {count}, its classes are {len(names)}")
    known = KnownClasses(classes)
    places = {name: known.find(name) for name in names}
    if unknown := [name for name, place in places.items() if place is None or place < 0]:
        raise ClassesError(f"{source.spec}: the model has no one class {one_line(unknown[0])[:40]}")
    values = np.full((len(vectors), len(classes)), UNKNOWN_LABEL, np.int8)
    values[:, [places[name] or 0 for name in names]] = vectors
    return Findings(values, _remarks(values, classes))


def hot_vectors(where: str, labels: Any, count: int) -> NDArray[np.int8] | None:
    """Return labels that are vectors, int8 (n, k) of 1, 0, and -1 where not known; None: they are none.

    Args:
        labels: one a sample, None where not known.
        count: n.

    Raises:
        DatasetError: they are, of other numbers or of several lengths.
    """
    if getattr(labels, "ndim", None) == 1 or not isinstance(labels, Iterable):
        return None
    each = list(labels)
    first: Any = next((one for one in each if one is not None), None)
    if first is None or np.ndim(first) != 1:
        return None
    width = len(first)
    try:
        unknown = np.full(width, np.nan)
        values = np.stack([unknown if one is None else np.asarray(one, np.float64) for one in each])
    except (TypeError, ValueError) as error:
        raise DatasetError(f"{where}: labels are vectors, but not all of {width} numbers") from error
    values[np.isnan(values)] = UNKNOWN_LABEL
    if (wrong := ~np.isin(values, (1, 0, UNKNOWN_LABEL))).any():
        number = values[wrong][0]
        raise DatasetError(
            f"{where}: labels are vectors that hold {number:g}: want 1, 0, and -1 or NaN where not known"
        )
    if len(values) != count:
        raise DatasetError(f"{where}: {len(values)} labels for {count} samples: give one for each")
    return values.astype(np.int8)


def _remarks(values: NDArray[np.int8], classes: Sequence[str]) -> tuple[str, ...]:
    """Return what to tell of labels."""
    yes, no = int((values == 1).sum()), int((values == 0).sum())
    told = f"labels: of {values.size}, {yes} are yes, {no} no, {values.size - yes - no} not known (empty or -1)"
    nothing = [name for k, name in enumerate(classes) if (values[:, k] < 0).all()]
    more = f", and {len(nothing) - _NAMED} more" if len(nothing) > _NAMED else ""
    return (told, *([f"no label at all of {one_line(', '.join(nothing[:_NAMED]))}{more}"] if nothing else []))
