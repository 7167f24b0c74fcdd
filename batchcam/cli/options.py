"""The command line's side of a config: its arguments and options, and the config that their values make."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from batchcam.cli.config_file import read_config
from batchcam.cli.variables import variable_of
from batchcam.config.options import Option, Part, first_member, flag_of, members, option_of
from batchcam.version import version

P = TypeVar("P", bound=Part)

FILE = click.Path(readable=False, path_type=Path)  # what can't be read each command tells with what to do

if TYPE_CHECKING:
    TextChoice = click.Choice[str]
else:  # not generic in every click
    TextChoice = click.Choice


class Choice(TextChoice):
    """Choices for help and completion; what is none of them the config refuses, in the same words for everyone."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value as it is."""
        return value


def _print_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"batchcam, version {version()}")
        context.exit()


version_option = click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version,
    help="Show the version and exit.",
)  # fmt: skip

findings_ok_option = click.option(
    "--findings-ok", is_flag=True, help="End with 0 also where there are findings, for what knows no other success."
)
"""What every command is asked that may end with 3. No variable: what a job starts would hide its findings from it."""

PROCESS_OPTIONS = (
    click.option("--json", "as_json", is_flag=True, envvar=variable_of("json"),
                 help="End stdout with one line: a JSON object."),
    click.option(
        "--config", type=FILE, callback=read_config, expose_value=False, is_eager=True, envvar=variable_of("config"),
        help="TOML file with options of this command, at its top level or under [COMMAND].",
    ),
    click.option("--log-json", is_flag=True, expose_value=False, envvar=variable_of("log-json"),
                 help="Each line of stderr as a JSON object."),
    click.option("--no-log-times", is_flag=True, expose_value=False, envvar=variable_of("no-log-times"),
                 help="No time before lines of stderr where it is no terminal."),
    click.option("--debug", is_flag=True, expose_value=False, envvar=variable_of("debug"),
                 help="Traceback on failure."),
    version_option,
)  # fmt: skip
"""What every command is asked that is no part of its config."""


def parameters(config: type[Part]) -> list[click.Parameter]:
    """Return a click argument or option for each field of a config, in the order of help.

    A class's own fields come before those of its bases, and of the own ones those last that several commands share. The
    option of a field that is a part of a config, such as a classifier, asks for the part's own first field.
    """
    found: list[tuple[int, click.Parameter]] = []
    for field, kind in members(config):
        place = 2 * next(i for i, base in enumerate(config.__mro__) if field.name in inspect.get_annotations(base))
        if Option in field.metadata:
            found.append((place, _parameter(field, first_member(kind)[1] if _is_part(kind) else kind)))
        if _is_part(kind):
            is_shared = kind.__module__ == Part.__module__
            found += [(place + is_shared, parameter) for parameter in parameters(kind)]
    return [parameter for _, parameter in sorted(found, key=lambda each: each[0])]


def build(config: type[P], values: Mapping[str, Any], **given: Any) -> P:
    """Return the config that the values of `parameters` make, by their names; `given` are fields that are known."""
    for field, kind in members(config):
        is_asked = Option in field.metadata
        value = values[_name(field)] if is_asked else None
        if _is_part(kind):
            first = {first_member(kind)[0].name: value} if is_asked else {}
            given[field.name] = None if is_asked and value is None else build(kind, values, **first)
        elif is_asked:
            given[field.name] = not value if field.default is True else value
    return config(**given)


def without_variables(values: Mapping[str, Any], config: type[Part]) -> dict[str, Any]:
    """Return the values of options without those of a config that variables gave: they are for other commands."""
    source, given = click.get_current_context().get_parameter_source, click.core.ParameterSource.ENVIRONMENT
    own = {_name(field): field.default for field, _ in members(config)}
    return {name: own[name] if name in own and source(name) is given else value for name, value in values.items()}


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Part)


def _name(field: dataclasses.Field[Any]) -> str:
    return field.name if option_of(field).is_argument else flag_of(field)[2:].replace("-", "_")


def _parameter(field: dataclasses.Field[Any], kind: Any) -> click.Parameter:
    option, flag = option_of(field), flag_of(field)
    settings: dict[str, Any]
    if option.is_argument:
        settings = {"type": _click_type(option, kind)}
        if to := option.passed_to:
            settings = {"required": False, "type": click.UNPROCESSED, "nargs": -1, "callback": _passed(to)}
        elif typing.get_origin(kind) is tuple:
            settings = {"required": True, "type": FILE, "nargs": -1}
        return click.Argument([field.name], metavar=option.metavar, **settings)
    settings = {"is_flag": True}
    if kind is not bool:
        settings = {"type": _click_type(option, kind), "metavar": option.metavar, **_count(option, kind)}
        if field.default is dataclasses.MISSING:
            settings["required"] = True
        else:
            settings.update(default=field.default, show_default=field.default not in (None, ()))
    names = dict.fromkeys((*option.flags, flag))
    return click.Option([*names], help=option.help, envvar=variable_of(flag[2:]), **settings)


def _passed(to: str) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[str, ...]]:
    """Return what refuses words that are options of the own command, and none of the one that they are passed to."""

    def require_passed(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
        group = context.find_root().command
        other = group.commands[to] if isinstance(group, click.Group) else context.command
        own = _flags(context.command) - _flags(other)
        if misplaced := [flag for word in words if (flag := word.partition("=")[0]) in own]:
            first = context.command.params[0].human_readable_name
            raise click.UsageError(f"put {misplaced[0]} before {first}: what follows the arguments is of batchcam {to}")
        return words

    return require_passed


def _flags(command: click.Command) -> set[str]:
    return {flag for each in command.params if isinstance(each, click.Option) for flag in each.opts}


def _click_type(option: Option, kind: Any) -> click.ParamType[Any] | type:
    if option.choices:
        return Choice(option.choices)
    if kind is Path:
        return FILE
    return kind if kind in (int, float) and not option.parse else str


def _count(option: Option, kind: Any) -> dict[str, Any]:
    """Return how many values an option takes, where that is not one."""
    if option.parse or typing.get_origin(kind) is not tuple:
        return {}
    members = typing.get_args(kind)
    return {"multiple": True} if ... in members else {"nargs": len(members)}
