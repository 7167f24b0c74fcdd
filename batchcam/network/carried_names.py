"""Class names that other programs' checkpoints carry beside the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

LISTS: Final = ("class_names", "classes", "CLASSES", "label_names")
NUMBERED: Final = ("id2label", "idx_to_class")
"""Tables from the index to the name."""

NUMBERS: Final = ("class_to_idx", "label2id")
"""Tables from the name to the index."""

DEEPEST: Final = 3  # tables in tables that are looked at: config, meta, hyper_parameters, …
MOST_KEYS: Final = 1000  # of a table that may say something of the weights; with more it is the weights
PLACEHOLDER: Final = re.compile(r"LABEL_[0-9]+")
"""What transformers writes where nobody named the classes."""


def carried_names(content: Any) -> dict[str, tuple[str, ...]]:
    """Return the class names in what a checkpoint holds, by the keys that lead to them, joined by dots.

    A table counts if its indices are 0 to n-1, and a list if it has each name once.
    """
    return dict(_found(content, "", DEEPEST, set()))


def _found(content: Any, where: str, deepest: int, seen: set[int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not isinstance(content, Mapping) or len(content) > MOST_KEYS or deepest == 0 or id(content) in seen:
        return
    seen.add(id(content))  # a file may refer to one table a million times
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        names = _names(key, value)
        if names and len(set(names)) == len(names) and not all(map(PLACEHOLDER.fullmatch, names)):
            yield where + key, names
        elif key not in (*NUMBERED, *NUMBERS):
            yield from _found(value, f"{where}{key}.", deepest - 1, seen)


def _names(key: str, value: Any) -> tuple[str, ...]:
    if key in LISTS and isinstance(value, (list, tuple)):
        return tuple(value) if all(isinstance(name, str) for name in value) else ()
    if key not in (*NUMBERED, *NUMBERS) or not isinstance(value, Mapping):
        return ()
    pairs = [(name, index) if key in NUMBERS else (index, name) for name, index in value.items()]
    names = {_index(index): name for name, index in pairs}
    whole = sorted(names, key=str) == sorted(range(len(pairs)), key=str)
    return (
        tuple(names[i] for i in range(len(pairs))) if whole and all(isinstance(n, str) for n in names.values()) else ()
    )


def _index(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):  # JSON has no other keys
        return int(value)
    return value if type(value) is int else -1
