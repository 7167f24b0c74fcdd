"""Two runs of the same samples: which classes and samples are the same in both, and which can't be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from batchcam.errors import ConfigError, OtherClassesError, one_line
from batchcam.job.console import counted
from batchcam.record.study import Reason, first_reasons
from batchcam.rules import Status, composed

NAMED_CLASSES: Final = 10  # that an error lists


class Apart(Reason):
    """Why a sample id of either run is not compared."""

    COMPARED = 0
    ADDED = 1
    REMOVED = 2
    CHANGED_INPUT = 3
    UNREADABLE_IN_BOTH = 4
    UNREADABLE_IN_OLD = 5
    UNREADABLE_IN_NEW = 6
    NOT_FINITE_IN_BOTH = 7
    NOT_FINITE_IN_OLD = 8


@dataclasses.dataclass(frozen=True)
class Classes:
    """The classes of two runs under one numbering.

    Attributes:
        names: the old run's, then those that only the new one has.
        old, new: number of each class of a run, int64 (K,).
        only_old, only_new: names that one run alone has.
        respelt: how many names of the new run have another Unicode form than the old run's.
        renamed: names of the old run that are called otherwise in the new one, as the user says, and how.
    """

    names: tuple[str, ...]
    old: np.ndarray
    new: np.ndarray
    only_old: tuple[str, ...] = ()
    only_new: tuple[str, ...] = ()
    respelt: int = 0
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def number(self, classes: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return a run's class indices in the common numbering, -1 as it is; `of` is `old` or `new`."""
        return np.asarray(np.append(of, -1)[classes])

    def index(self, numbers: np.ndarray, of: np.ndarray) -> np.ndarray:
        """Return classes of the common numbering as a run's indices, -1 for those that it does not have."""
        indices = np.full(len(self.names) + 1, -1)
        indices[of] = np.arange(len(of))
        return np.asarray(indices[numbers])


def match_classes(
    old: tuple[str, ...], new: tuple[str, ...], shared_only: bool, renames: Sequence[str] = ()
) -> Classes:
    """Return the classes of two runs matched by name, in whatever Unicode form it is written.

    Args:
        old, new: names by class index.
        shared_only: go on where one run has classes that the other has not.
        renames: classes that the new run calls otherwise, `OLD=NEW` each.

    Raises:
        OtherClassesError: the names differ and that is not wanted, or none is shared.
        ConfigError: one stands twice in differing lists, or the renames can't be meant.
    """
    renamed = _renamed(old, new, renames)
    before = {after: name for name, after in renamed.items()}
    spellings = {composed(name): name for name in old}
    written, known = tuple(before.get(name, name) for name in new), set(old)
    new = tuple(name if name in known else spellings.get(composed(name), name) for name in written)
    respelt = sum(name != other for name, other in zip(written, new, strict=True))
    if old == new:
        return Classes(old, np.arange(len(old)), np.arange(len(new)), respelt=respelt, renamed=renamed)
    if len(set(old)) < len(old) or len(set(new)) < len(new):
        raise ConfigError("class names differ and one stands twice, so that they can't be matched by name")
    only_old, only_new = (tuple(n for n in a if n not in set(b)) for a, b in ((old, new), (new, old)))
    same = "--rename OLD=NEW tells which are the same"
    if len(only_old) == len(old):
        raise OtherClassesError(f"no class is in both runs: OLD has {listed(old)}; NEW has {listed(new)}; {same}")
    if (only_old or only_new) and not shared_only:
        told = f"{'; '.join(own_classes(only_old, only_new))}; --shared-classes compares those that both have"
        raise OtherClassesError(f"classes differ: {told}" + (f"; {same}" if only_old and only_new else ""))
    names = old + only_new
    numbers = {name: number for number, name in enumerate(names)}
    common = np.array([numbers[name] for name in new])
    return Classes(names, np.arange(len(old)), common, only_old, only_new, respelt, renamed)


def _renamed(old: Sequence[str], new: Sequence[str], renames: Sequence[str]) -> dict[str, str]:
    """Return what the new run calls classes of the old one; a name may hold a = itself.

    Raises:
        ConfigError: a run has no such class, or a class would be two, or two would be one.
    """
    sides = [{composed(name): name for name in names} for names in (old, new)]
    found: dict[str, str] = {}
    back: dict[str, str] = {}
    for text in renames:
        splits = [(text[:at], text[at + 1 :]) for at, character in enumerate(text) if character == "="]
        meant = [(sides[0].get(composed(a), ""), sides[1].get(composed(b), "")) for a, b in splits]
        readings = [pair for pair in meant if all(pair)]
        if len(readings) > 1:
            raise ConfigError(f"--rename {text}: can be read in {len(readings)} ways, as these names hold a = too")
        if not readings:
            told = zip(("OLD", "NEW"), (old, new), splits[0], meant[0], strict=True)
            lacks = [
                f"{side} has no class {name}: it has {listed(names)}" for side, names, name, own in told if not own
            ]
            raise ConfigError(f"--rename {text}: {'; '.join(lacks)}")
        before, after = readings[0]
        if found.setdefault(before, after) != after or back.setdefault(after, before) != before:
            raise ConfigError(f"--rename {text}: another --rename names {before} or {after} too: a class is one class")
    for before, after in found.items():
        twice = f"--rename {before}={after}: {{}} has a class {{}} too: say by another --rename {{}}"
        if sides[1].get(composed(before), after) not in back:
            raise ConfigError(twice.format("NEW", before, "which of OLD's that is"))
        if sides[0].get(composed(after), before) not in found:
            raise ConfigError(twice.format("OLD", after, "what NEW calls that"))
    return found


def own_classes(only_old: Sequence[str], only_new: Sequence[str]) -> list[str]:
    """Return which classes one run alone has, as people read it."""
    sides = (("OLD", only_old), ("NEW", only_new))
    return [f"{counted(len(names), 'class')} only in {side}: {listed(names)}" for side, names in sides if names]


def listed(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - NAMED_CLASSES} more" if len(names) > NAMED_CLASSES else ""
    return ", ".join(map(one_line, names[:NAMED_CLASSES])) + more


@dataclasses.dataclass(frozen=True)
class Matching:
    """Rows of two runs that are one sample, and rows that have no partner; old rows ascend.

    Attributes:
        old, new: rows of each pair, int64 (n,), or a range.
        removed: other rows of the old run, int64.
        added: other rows of the new run, int64.
        respelt: old rows whose ids the runs write in two Unicode forms, int64.
        moved: old rows that have another id in the new run and the same bytes, int64.
        ambiguous: how many of `removed` and `added` have bytes that both have, and one of them several times.
    """

    old: np.ndarray | range
    new: np.ndarray | range
    removed: np.ndarray
    added: np.ndarray
    respelt: np.ndarray
    moved: np.ndarray
    ambiguous: int = 0


NONE: Final = np.zeros(0, np.int64)


def matched_in_order(count: int) -> Matching:
    """Return the rows of two runs that list the same `count` samples in the same order."""
    return Matching(range(count), range(count), NONE, NONE, NONE, NONE)


def match_ids(old: np.ndarray, new: np.ndarray) -> Matching:
    """Return which rows have the same sample id, in whatever Unicode form those are that have no partner otherwise.

    By sorting, so that a million of them take no objects.

    Args:
        old, new: encoded ids, type S(width), each once.

    Raises:
        ValueError: an id stands twice on one side.
    """
    for ids, side in ((old, "OLD"), (new, "NEW")):
        ordered = ids[np.argsort(ids, kind="stable")]  # fast where ids are in order already, as they mostly are
        if (ordered[1:] == ordered[:-1]).any():
            raise ValueError(f"a sample id stands twice in {side}")
    found = _partners(old, new)
    removed, added = np.flatnonzero(found < 0), np.ones(len(new), bool)
    added[found[found >= 0]] = False
    others, respelt = np.flatnonzero(added), NONE
    if len(removed) and len(others):
        again = _partners(_composed_ids(old[removed]), _composed_ids(new[others]))
        respelt = removed[again >= 0]
        found[respelt] = others[again[again >= 0]]
        added[found[found >= 0]] = False
    matched = found >= 0
    rows = np.flatnonzero(matched), found[matched], np.flatnonzero(~matched), np.flatnonzero(added)
    return Matching(*rows, respelt, NONE)


def match_bytes(by_id: Matching, removed: np.ndarray, added: np.ndarray) -> Matching:
    """Return the same with pairs of rows that have no partner by their ids, and whose number no other such row has.

    Args:
        removed, added: numbers of the bytes of these rows of the old and the new run, uint64; 0: there are none.
    """
    (old, old_at, old_counts), (new, new_at, new_counts) = (
        np.unique(each, return_index=True, return_counts=True) for each in (removed, added)
    )
    first = np.flatnonzero(np.isin(old, new) & (old > 0))
    second = np.searchsorted(new, old[first])
    once = (old_counts[first] == 1) & (new_counts[second] == 1)
    places, partners = old_at[first[once]], new_at[second[once]]
    rows = np.concatenate([by_id.old, by_id.removed[places]]), np.concatenate([by_id.new, by_id.added[partners]])
    order = np.argsort(rows[0], kind="stable")
    return dataclasses.replace(
        by_id,
        old=rows[0][order],
        new=rows[1][order],
        removed=np.delete(by_id.removed, places),
        added=np.delete(by_id.added, partners),
        moved=np.sort(by_id.removed[places]),
        ambiguous=int(old_counts[first[~once]].sum() + new_counts[second[~once]].sum()),
    )


def _partners(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the row of `new` that has each id of `old`, -1 for none, int64."""
    order = np.argsort(new, kind="stable")
    place = np.minimum(np.searchsorted(new, old, sorter=order), len(new) - 1)
    partner = order[place]
    return np.asarray(np.where(new[partner] == old, partner, -1))


def _composed_ids(ids: np.ndarray) -> np.ndarray:
    """Return encoded ids in the Unicode form in which they are compared; one that is another's then stays as it is."""
    other_than_ascii = (ids.view(np.uint8).reshape(len(ids), -1) >= 0x80).any(1)
    texts = [composed(each.decode(errors="surrogateescape")) for each in ids[other_than_ascii].tolist()]
    respelt = ids.copy()
    respelt[other_than_ascii] = [text.encode(errors="surrogateescape") for text in texts]
    first = np.zeros(len(ids), bool)
    first[np.unique(respelt, return_index=True)[1]] = True
    return np.where(first, respelt, ids)


def why_apart(
    old_status: np.ndarray, new_status: np.ndarray, old_usable: np.ndarray, new_usable: np.ndarray, same: np.ndarray
) -> np.ndarray:
    """Return for pairs of one id why they are not compared, uint8 (n,) of `Apart`; not for being finite in OLD alone.

    Args:
        old_status, new_status: flags of each row.
        old_usable, new_usable: which rows have a prediction.
        same: which pairs have the same input.
    """
    old_bad, new_bad = ((status & Status.UNREADABLE) > 0 for status in (old_status, new_status))
    old_nan, new_nan = (
        ((status & Status.NON_FINITE) > 0) | ~usable
        for status, usable in ((old_status, old_usable), (new_status, new_usable))
    )
    return first_reasons(
        {
            Apart.UNREADABLE_IN_BOTH: old_bad & new_bad,
            Apart.UNREADABLE_IN_OLD: old_bad,
            Apart.UNREADABLE_IN_NEW: new_bad,
            Apart.CHANGED_INPUT: ~same,
            Apart.NOT_FINITE_IN_BOTH: old_nan & new_nan,
            Apart.NOT_FINITE_IN_OLD: old_nan,
        }
    )
