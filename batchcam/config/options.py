"""How one field of a config says its option, by which it is also checked."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from batchcam.errors import ConfigError
from batchcam.store.bringing import is_url
from batchcam.store.places import local

if sys.version_info >= (3, 11):
    from typing import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Callable[[type], type]:
        """Return a decorator that does nothing: type checkers know what it means."""
        return lambda kind: kind


AnyPath = str | os.PathLike[str]
AnySize = tuple[int, ...] | int | str | None
AnyNumbers = tuple[float, ...] | float | str | None

Read = TypeVar("Read")
Asked = TypeVar("Asked")

if TYPE_CHECKING:

    class Given(Generic[Read, Asked]):
        """A field that reads as one type and may be given as another, which the check makes the first."""

        def __get__(self, config: object, kind: type) -> Read: ...

        def __set__(self, config: object, value: Asked) -> None: ...

else:

    class Given:
        """The type that a field reads as."""

        def __class_getitem__(cls, kinds: tuple[Any, Any]) -> Any:
            return kinds[0]


@dataclasses.dataclass(frozen=True)
class Option:
    """How a field is asked for: what the command line, the variable, `--config` and the check know of it.

    Attributes:
        help: what it is for; ends with the default where code or another file decides that.
        flags: its name where that is not the field's, and a short one; of a bool that is True the one that denies it.
        choices: its only values.
        low: its smallest value.
        high: its largest value.
        above: what every value is larger than.
        below: what every value is smaller than.
        metavar: what stands for a value in the help.
        parse: makes a value of a text, or raises ValueError; the message begins with the text.
        is_argument: whether its place says what it is.
        passed_to: of words that are another command's options: that command.
        reads_run: whether its paths are of runs that are read, which may also be URLs or zip files.
    """

    help: str = ""
    flags: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    metavar: str | None = None
    parse: Callable[[str], Any] | None = None
    is_argument: bool = False
    passed_to: str = ""
    reads_run: bool = False

    def check(self, name: str, value: object) -> None:
        """Raise ConfigError if `value` is no choice, or out of range."""
        if self.choices and value not in self.choices:
            raise ConfigError(f"{name} {value}: choose one of {', '.join(self.choices)}")
        if not isinstance(value, (int, float)):
            return
        if self.low <= value <= self.high and self.above < value < self.below:
            return
        if math.isfinite(self.low) and math.isfinite(self.high):
            raise ConfigError(f"{name} {value}: must be from {self.low} to {self.high}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} {value}: must be a finite number")
        bounds = {"at least": self.low, "at most": self.high, "above": self.above, "below": self.below}
        told = " and ".join(f"{words} {bound}" for words, bound in bounds.items() if math.isfinite(bound))
        raise ConfigError(f"{name} {value}: must be {told}")


def field(help: str, *flags: str, default: Any = None, **settings: Any) -> Any:
    """Return a dataclass field that knows its option; `settings` are further fields of `Option`."""
    return dataclasses.field(default=default, metadata={Option: Option(help, flags, **settings)})


def required(help: str, *flags: str, **settings: Any) -> Any:
    """Return such a field without a default."""
    return field(help, *flags, default=dataclasses.MISSING, **settings)


def argument(metavar: str | None = None) -> Any:
    """Return a field without a default that the command line asks for by its place."""
    return required("", metavar=metavar, is_argument=True)


def run_argument(metavar: str | None = None) -> Any:
    """Return such a field for a run that is read, or several, wherever they lie."""
    return required("", metavar=metavar, is_argument=True, reads_run=True)


def passed_on(command: str) -> Any:
    """Return a field, a tuple of texts, for all words after the arguments: another command's options, untouched."""
    metavar = f"[option of batchcam {command}]..."
    return field("", default=(), metavar=metavar, is_argument=True, passed_to=command)


def like(kind: type, name: str) -> Any:
    """Return a field that is asked for as the one of this name in `kind`."""
    model = next(field for field, _ in members(kind) if field.name == name)
    return dataclasses.field(default=model.default, metadata=model.metadata)


def members(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    """Return the fields of a config and the type of each, without the None that an optional one may be."""
    hints = typing.get_type_hints(kind)
    return [(field, _without_none(hints[field.name])) for field in dataclasses.fields(kind)]


def first_member(kind: Any) -> tuple[dataclasses.Field[Any], Any]:
    """Return the field of a part of a config that its option asks for: the one that is not given by name."""
    return next(member for member in members(kind) if not member[0].kw_only)


def _without_none(hint: Any) -> Any:
    if not isinstance(hint, types.UnionType):
        return hint
    return next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)


def option_of(field: dataclasses.Field[Any]) -> Option:
    """Return how a field is asked for."""
    option: Option = field.metadata.get(Option, Option())
    return option


def flag(name: str) -> str:
    """Return an option by the name of its field."""
    return "--" + name.replace("_", "-")


def flag_of(field: dataclasses.Field[Any]) -> str:
    """Return the long name of a field's option, with its dashes."""
    long = [each for each in option_of(field).flags if each.startswith("--")]
    return long[0] if long else flag(field.name)


# not frozen_default: mypy reads an inherited field of a frozen class as what it may be given as
@dataclass_transform(field_specifiers=(required, argument, run_argument, dataclasses.field))
class Part:
    """A frozen dataclass of what a command is asked, or of a part of it; it is checked when it is built.

    Where a field holds a Path, or what its option parses, a text will do. The docstring lists what the options say.
    """

    def __init_subclass__(cls) -> None:
        kind: Any = dataclasses.dataclass(frozen=True)(cls)
        told = [f"    {f.name}: {option_of(f).help}" for f in dataclasses.fields(kind) if option_of(f).help]
        cls.__doc__ = "\n".join([inspect.cleandoc(cls.__doc__ or ""), "", "Attributes:", *told])

    def __post_init__(self) -> None:
        """Refuse what can't be meant.

        Raises:
            ConfigError: the message names the option.
        """
        for field, kind in members(type(self)):
            object.__setattr__(self, field.name, _checked(field, kind, getattr(self, field.name)))


def _checked(field: dataclasses.Field[Any], kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if kind in (Path, str) and isinstance(value, (str, os.PathLike)):
        value = kind(os.fspath(value))
    option = option_of(field)
    if option.reads_run:
        value = tuple(map(local, value)) if isinstance(value, tuple) else local(value)
    elif isinstance(value, Path) and is_url(value):
        name = field.name.upper() if option.is_argument else flag_of(field)
        raise ConfigError(f"{name}: has to be a path of this machine, not a URL")
    is_one_for_all = typing.get_origin(kind) is tuple and not isinstance(value, tuple)
    if option.parse and (is_one_for_all or isinstance(value, str)):
        try:
            value = option.parse(str(value))
        except ValueError as error:
            raise ConfigError(f"{flag_of(field)} {error}") from error
    option.check(flag_of(field), value)
    return value
