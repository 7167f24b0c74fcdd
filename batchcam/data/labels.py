"""Which class of the model each label of a dataset is: by name, in any form in which it may be written, or by index."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchcam.data.samples import UNKNOWN_LABEL, Source
from batchcam.errors import ClassesError, DatasetError, one_line
from batchcam.rules import composed

_WHOLE_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*|,(?![0-9]{3}(?![0-9]))[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
"""As spreadsheets and data frames write one: 7, 007, 7.0, "7,0", 7e0. Three digits after a comma may be thousands."""

_MOST_DIGITS: Final = 18

LARGEST_LABEL: Final = 2**31 - 1
"""As a class index."""

NAMED_CLASSES: Final = 10
"""Classes that an error lists."""


class MatchedLabels(NamedTuple):
    """A dataset's labels as the model's classes.

    Attributes:
        indices: -1 where not known, int64 (n,).
        kind: what labels that are whole numbers were read as, names or indices; None: they are none.
        remarks: how they were read, where there was a choice.
    """

    indices: NDArray[np.int64]
    kind: str | None = None
    remarks: tuple[str, ...] = ()


def whole_number(text: str) -> int | None:
    """Return the whole number that `text` says, however it is written; None: it says none, or one of no class."""
    if not _WHOLE_NUMBER.fullmatch(text):
        return None
    value = Decimal(text.replace(",", "."))
    return int(value) if value.adjusted() < _MOST_DIGITS and value == value.to_integral_value() else None


def own_classes(source: Source, kind: str | None = None) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return the class names of a dataset whose order is to count, None where it has none, and what to know of them.

    Args:
        kind: what labels that are whole numbers are, names or indices; None: indices.

    Raises:
        DatasetError: they can't be told apart, or are numbers that may be meant otherwise.
    """
    if source.several and source.multi_hot is None:
        raise DatasetError(source.several)
    names = source.class_names
    if source.numeric and kind == "names":
        labels = np.asarray(source.labels)
        written = names or map(str, labels[labels >= 0].tolist())
        numbers = sorted({number for name in written if (number := whole_number(name)) is not None})
        return tuple(map(str, numbers)), ("class names are numbers, in their order",)
    if names is None:
        return None, ()
    if source.numeric:
        raise _no_indices(source, names)
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(composed(name), name)) != name:
            raise DatasetError(
                f"{source.spec}: two classes are named {one_line(other)}, in different Unicode forms: make them one"
            )
    return names, tuple(_doubts(names))


def match_classes(source: Source, model_classes: Sequence[str], kind: str | None = None) -> MatchedLabels:
    """Return a dataset's labels as indices of the model's classes, matched by name where both name them.

    Labels of a manifest that are whole numbers are names where the model knows each as a name, else indices.

    Args:
        model_classes: the model's class names by index.
        kind: what whole numbers are, names or indices; None: what fits.

    Raises:
        ClassesError: the model does not know a class.
        DatasetError: it knows only names or numbers that can't be told apart.
    """
    if source.several:
        raise DatasetError(source.several)
    names = source.class_names
    if names is None:
        if source.numeric and kind != "indices":
            return _numbers(source, model_classes, kind)
        return MatchedLabels(_checked_range(source, len(model_classes)), "indices" if source.numeric else None)
    if source.numeric and (kind == "indices" or KnownClasses(model_classes).unknown(names)):
        raise _no_indices(source, names)
    if kind == "indices" and any(whole_number(name) is not None for name in names):
        word = next((name for name in names if whole_number(name) is None), names[0])
        raise DatasetError(
            f"{source.spec}: names its classes, such as {one_line(word)}, where --label-kind, or the run, says that "
            "labels are class indices: give indices, or leave the option out"
        )
    if tuple(names) == tuple(model_classes):
        return MatchedLabels(_checked_range(source, len(names)), "names" if source.numeric else None)
    return _by_name(source, _checked_range(source, len(names)), names, model_classes)


def _numbers(source: Source, model_classes: Sequence[str], kind: str | None) -> MatchedLabels:
    """Return the labels of a manifest of whole numbers: names where the model knows all of them as such."""
    labels = np.asarray(source.labels)
    given = np.unique(labels[labels >= 0])
    names = tuple(map(str, given.tolist()))
    known = KnownClasses(model_classes)
    unknown = known.unknown(names)
    if kind == "names" or not unknown:
        positions = np.where(labels < 0, UNKNOWN_LABEL, np.searchsorted(given, labels))
        named = _by_name(source, positions, names, model_classes)
        if kind == "names" or not np.array_equal(named.indices, labels):
            remark = "labels are numbers that the model knows as class names, and count as such, not as class indices"
            return named._replace(remarks=(remark, *named.remarks))
    try:
        indices = _checked_range(source, len(model_classes))
        return MatchedLabels(indices, "indices", ("labels are class indices",))
    except ClassesError as error:
        raise ClassesError(f"{error}; and as a class name the model does not know {unknown[0]}") from error


def _no_indices(source: Source, names: Sequence[str]) -> DatasetError:
    wrong = next(name for name in names if not 0 <= (whole_number(name) or 0) <= LARGEST_LABEL)
    return DatasetError(
        f"{source.spec}: label {wrong:.40}: class indices start at 0; leave the field empty where the label is not "
        "known, or name the classes with --class-names if these are names"
    )


def _by_name(
    source: Source, labels: NDArray[np.int64], names: Sequence[str], model_classes: Sequence[str]
) -> MatchedLabels:
    known = KnownClasses(model_classes)
    found = [known.find(name) for name in names]
    if unknown := known.unknown(names):
        listed = ", ".join(one_line(name) for name in unknown[:NAMED_CLASSES])
        more = f" and {len(unknown) - NAMED_CLASSES} more" if len(unknown) > NAMED_CLASSES else ""
        raise ClassesError(
            f"{source.spec}: the model does not know these classes of the dataset: {listed}{more}; name "
            "them as the model does"
        )
    repeated = [name for name, index in zip(names, found, strict=True) if index == known.SEVERAL]
    if repeated:
        raise DatasetError(
            f"{source.spec}: two classes of the model are named {repeated[0]}: label by class index instead"
        )
    # the last place is what label -1 picks
    table = np.array([*found, UNKNOWN_LABEL], np.int64)
    return MatchedLabels(table[labels], "names" if source.numeric else None, tuple(known.remarks(names)))


def loosely_written(name: str) -> str:
    """Return a name without what lists of the same findings differ in: case, blanks, underscores."""
    return "".join(composed(name).casefold().replace("_", " ").split())


class KnownClasses:
    """The model's classes by what names may have in common: all of it, the text in any Unicode form, a number.

    Args:
        model_classes: their names.
        loosely: whether case, blanks and underscores count for nothing where a name is no class otherwise.
    """

    SEVERAL: Final = -2
    _WAYS: Final[tuple[tuple[Callable[[str], Hashable], str], ...]] = (
        (str, ""),
        (composed, "in Unicode form"),
        (whole_number, "in how a number is written"),
    )
    _LOOSE: Final = (loosely_written, "in case, blanks or underscores")

    def __init__(self, model_classes: Sequence[str], loosely: bool = False) -> None:
        self._ways = (*self._WAYS, *([self._LOOSE] if loosely else []))
        self._tables: list[dict[Hashable, int]] = []
        for way, _ in self._ways:
            table: dict[Hashable, int] = {}
            for index, name in enumerate(model_classes):
                key = way(name)
                table[key] = index if key not in table else self.SEVERAL
            table.pop(None, None)
            self._tables.append(table)

    def find(self, name: str) -> int | None:
        """Return the index of a class by its name, SEVERAL if two have it, None for none."""
        return self._find(name)[0]

    def unknown(self, names: Sequence[str]) -> list[str]:
        """Return those of `names` that the model does not know."""
        return [name for name in names if self.find(name) is None]

    def remarks(self, names: Sequence[str]) -> list[str]:
        """Return how those of `names` differ that are not the model's letter by letter."""
        hows = [self._find(name)[1] for name in names]
        return [
            f"{hows.count(how)} class names of the dataset are not the model's letter by letter: they differ {how}, "
            f"such as {one_line(names[hows.index(how)])}"
            for _, how in self._ways
            if how and how in hows
        ]

    def _find(self, name: str) -> tuple[int | None, str]:
        for (way, how), table in zip(self._ways, self._tables, strict=True):
            if (index := table.get(way(name))) is not None:
                return index, how
        return None, ""


def _doubts(names: Sequence[str]) -> list[str]:
    """Return what makes it doubtful that a model of unnamed classes has them in this order."""
    doubts = []
    forms = [sorted(names, key=lambda name: unicodedata.normalize(form, name)) for form in ("NFC", "NFD")]
    if forms[0] != forms[1]:
        doubts.append(
            "class names sort differently in Unicode forms NFC (Linux, Windows) and NFD (Mac); here "
            f"{one_line(names[0])} comes first: say the model's order by --class-names"
        )
    numbers = [whole_number(name) for name in names]
    if None not in numbers and numbers != sorted(number for number in numbers if number is not None):
        doubts.append(f"class names are numbers in the order of text, {', '.join(names[:3])}, …, as ImageFolder does")
    return doubts


def _checked_range(source: Source, class_count: int) -> NDArray[np.int64]:
    labels = np.asarray(source.labels)
    wrong = np.flatnonzero((labels < UNKNOWN_LABEL) | (labels >= class_count))
    if len(wrong):
        raise ClassesError(
            f"{source.spec}: label {labels[wrong[0]]} of sample {wrong[0]} is outside the {class_count} classes: "
            f"labels are 0…{class_count - 1}, -1 where not known"
        )
    return labels.astype(np.int64)
