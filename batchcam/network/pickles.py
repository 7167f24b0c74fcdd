"""Pickles read as data: nothing that they name is looked up, imported or called.

Python's unpickler makes whatever a pickle asks for. This one makes plain values, and hands the rest to its caller by
name; what the caller does not make either becomes an inert `Foreign`.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, Final

MOST_OPCODES: Final = 5_000_000
"""A million class names take half of it; an opcode of one byte makes an object of 60."""

_KEYS: Final = (str, int, float, bool, bytes, type(None))
_MOST_INTEGER_KEY: Final = 2**60  # beyond, keys can be chosen that all have the same hash

Make = Callable[[str, tuple[Any, ...]], Any]


class Foreign(dict[Any, Any]):
    """What a pickle names or would make of it, not made: an object, class or function of whatever library.

    Attributes:
        name: of the class or function, with its module.
        state: what the object would have been given to restore itself.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        """Items are added as the pickle gives them: subclasses of dict are mappings here too."""
        self.name = name
        self.state: object = None


def unpickle(stream: BinaryIO, make: Make, stored: Callable[[Any], Any]) -> Any:
    """Return the content of the next pickle in `stream`; items with keys that are no plain values are left out.

    Args:
        stream: read up to the pickle's end.
        make: called with the name of a function or class and its arguments, returns the object, or a `Foreign`.
        stored: called with the id of an object that lies outside of the pickle, returns the object.

    Raises:
        ValueError, IndexError, KeyError, TypeError: it is no pickle; and whatever the two callables raise.
    """
    machine = _Machine(make, stored)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == MOST_OPCODES:
            raise ValueError(f"a pickle of more than {MOST_OPCODES} opcodes")
        step = _STEPS.get(opcode.name)
        if step:
            step(machine, argument)
        elif opcode.name not in ("PROTO", "FRAME", "STOP"):
            machine.stack.append(argument)  # a text, a number, bytes
    return machine.stack.pop()


class _Machine:
    """The stack, the marks in it, and the memo, which a pickle's opcodes work on."""

    def __init__(self, make: Make, stored: Callable[[Any], Any]) -> None:
        self._make, self._stored = make, stored
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def mark(self, _: object) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def pop(self, _: object) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def pop_mark(self, _: object) -> None:
        self._since_mark()

    def duplicate(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def list_(self, _: object) -> None:
        items = self._since_mark()
        self.stack.append(items)

    def tuple_(self, _: object) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def dict_(self, _: object) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set(items)

    def append(self, _: object) -> None:
        self._extend([self.stack.pop()])

    def extend(self, _: object) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: Iterable[Any]) -> None:
        if isinstance(self.stack[-1], list):  # what else takes items is foreign
            self.stack[-1].extend(items)

    def set_item(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self, _: object) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) in _KEYS and not (type(key) is int and abs(key) > _MOST_INTEGER_KEY):
                target[key] = value

    def global_(self, argument: str) -> None:
        self.stack.append(Foreign(argument.replace(" ", ".")))

    def stack_global(self, _: object) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(Foreign(f"{module:s}.{name:s}"))

    def extension(self, code: int) -> None:
        self.stack.append(Foreign(f"copyreg extension {code}"))

    def reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self._make(function.name, arguments) if isinstance(function, Foreign) else Foreign("?"))

    def new_object_with_names(self, _: object) -> None:
        self.stack.pop()
        self.reduce(None)

    def object_(self, _: object) -> None:
        kind, *arguments = self._since_mark()
        self.stack += [kind, tuple(arguments)]
        self.reduce(None)

    def instance(self, argument: str) -> None:
        arguments = self._since_mark()
        self.stack += [Foreign(argument.replace(" ", ".")), tuple(arguments)]
        self.reduce(None)

    def build(self, _: object) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Foreign):
            self.stack[-1].state = state

    def persistent(self, _: object) -> None:
        self.stack.append(self._stored(self.stack.pop()))

    def refuse(self, _: object) -> None:
        raise ValueError("a pickle with buffers or ids of another program")


_M = _Machine
_STEPS: Final[dict[str, Callable[[_Machine, Any], None]]] = {
    "MARK": _M.mark,
    "POP": _M.pop,
    "POP_MARK": _M.pop_mark,
    "DUP": _M.duplicate,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _M.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _M.get),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda machine, _: machine.stack.append([])),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    **dict.fromkeys(("LIST", "FROZENSET"), _M.list_),  # sets are read as lists: items may have no hash here
    "DICT": _M.dict_,
    "TUPLE": _M.tuple_,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": _M.append,
    **dict.fromkeys(("APPENDS", "ADDITEMS"), _M.extend),
    "SETITEM": _M.set_item,
    "SETITEMS": _M.set_items,
    "GLOBAL": _M.global_,
    "STACK_GLOBAL": _M.stack_global,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _M.extension),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _M.reduce),
    "NEWOBJ_EX": _M.new_object_with_names,
    "OBJ": _M.object_,
    "INST": _M.instance,
    "BUILD": _M.build,
    "BINPERSID": _M.persistent,
    **dict.fromkeys(("PERSID", "NEXT_BUFFER", "READONLY_BUFFER"), _M.refuse),
}
"""What an opcode does, by pickletools' name; one that is not here, and takes an argument, pushes it."""
