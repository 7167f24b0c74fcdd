"""One field says an option: the command line, the variable, `--config` and the check have it from there."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from batchcam.cli.commands import COMMANDS, Command, cli
from batchcam.cli.options import build
from batchcam.config.options import Option, Part, argument, field, passed_on
from batchcam.config.shared import Config
from batchcam.errors import ConfigError

LEAST: dict[str, tuple[list[str], dict[str, str]]] = {
    "demo": ([], {}),
    "train": (["data"], {"out": "model.pth"}),
    "evaluate": (["a.pth", "data"], {}),
    "explain": (["a.pth", "data"], {"out": "run"}),
    "merge": (["run"], {}),
    "verify": (["run"], {"checkpoint": "a.pth", "data": "data"}),
    "info": (["run"], {}),
    "render": (["run"], {"out": "sheet.png"}),
    "report": (["run"], {"out": "page.html", "against": "old"}),
    "sample": (["run"], {"out": "review"}),
    "review": (["verdicts.csv"], {}),
    "view": (["run"], {}),
    "localize": (["run"], {"annotations": "boxes.csv"}),
    "faithfulness": (["run"], {"checkpoint": "a.pth", "data": "data"}),
    "discover": (["run"], {"checkpoint": "a.pth", "data": "data"}),
    "export": (["run"], {"to": "virelay", "out": "exported"}),
    "compare": (["old", "new"], {}),
    "trend": (["runs"], {}),
    "nightly": (["a.pth", "data", "runs", "--device"], {}),
    "retrain": (["data", "test", "models/new", "--epochs"], {}),
    "promote": (["a.pth", "test", "models/new", "--device"], {}),
    "submit": (["a.pth", "data", "run", "--device"], {"against": "old"}),
    "jobs": (["folder"], {}),
}
"""Arguments of each command, and options that it can't do without, or others can't."""

GATED = ("compare", "promote", "report", "retrain", "submit")
MORE = {
    ("export", "palette"): {"to": "png"},
    ("export", "train-run"): {"to": "csv"},
    **{(name, "max-group-drop"): {"group-by": "site"} for name in GATED},
    **{(name, "decide"): {"max-flips": "7"} for name in GATED},
}
"""What an option needs besides."""

WRITTEN = {
    "BITS": "12",
    "HEX": "0" * 64,
    "PRESET": "imagenet",
    "TIME": "90s",
    "N|HxW": "32x48",
    "R,G,B": "0.25,0.5,1",
    "S|auto": "0.5",
    "LOW,HIGH": "0,4095",
    "SELECTION": "topk:3",
    "HxW": "8x16",
    "HxW[+N]": "14x14+1",
    "A B": "a b",
    "COLUMN=VALUE": "site=b",
    "OLD=NEW": "cat=tiger",
    "NAME=TEXT": "reviewer=Ann",
    "WORD=P": "open=5",
    "WORD,…": "fine,artefact",
    "K": "0.5",
    "KIND=NAME,…": "path=image_id,label=dx",
}
"""What people write for what the help calls so."""


PROCESS = {"json", "config", "debug", "findings-ok", "log-json", "no-log-times", "version"}


def own(command: Command) -> dict[str, click.Option]:
    """The options that come from the command's config, by long name."""
    options = [p for p in cli.commands[command.name].params if isinstance(p, click.Option)]
    named = {max(p.opts, key=len).lstrip("-"): p for p in options}
    return {name: p for name, p in named.items() if name not in PROCESS}


def leaves(config: Part, where: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every value of a config, and of its parts, by where it is."""
    found = {}
    for f in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, f.name)
        found.update(leaves(value, (*where, f.name)) if isinstance(value, Part) else {(*where, f.name): value})
    return found


def differing(one: Part, other: Part) -> set[tuple[str, ...]]:
    ours, theirs = leaves(one), leaves(other)
    return {where for where in ours.keys() | theirs.keys() if ours.get(where) != theirs.get(where)}


def asked(command: Command, words: list[str]) -> Config:
    """The config that a command line makes."""
    with cli.make_context("batchcam", [], resilient_parsing=True) as root:
        context = cli.commands[command.name].make_context(command.name, words, parent=root)
    values = {name: value for name, value in context.params.items() if name not in ("as_json", "findings_ok")}
    return build(command.config, values)


def written(option: click.Option) -> str:
    """A value for an option that is not its default."""
    if isinstance(option.type, click.Choice):
        return str(next(c for c in reversed(option.type.choices) if c != option.default))
    if option.name == "out":
        return "other.html"
    if option.name in ("min_accuracy", "confidence"):
        return "60"
    return WRITTEN.get(str(option.metavar), "0.5" if option.type is click.FLOAT else "7")


def least(command: Command, name: str = "") -> dict[str, str]:
    """The options that a command line needs besides one."""
    options = {**LEAST[command.name][1], **MORE.get((command.name, name), {})}
    return {key: value for key, value in options.items() if key != name}


def line(command: Command, options: dict[str, str]) -> list[str]:
    return [*(word for key, value in options.items() for word in (f"--{key}", value)), *LEAST[command.name][0]]


def without(command: Command, name: str) -> Config:
    return asked(command, line(command, {**LEAST[command.name][1], **least(command, name)}))


def with_option(command: Command, name: str, option: click.Option) -> Config:
    value = [] if option.is_flag else written(option).split(" ")
    return asked(command, [f"--{name}", *value, *line(command, least(command, name))])


EVERY = [pytest.param(c, name, o, id=f"{c.name} --{name}") for c in COMMANDS for name, o in own(c).items()]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BATCHCAM_ENGINE")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_every_field_of_a_config_has_one_option_or_argument_and_every_one_of_them_a_field(command: Command) -> None:
    before = asked(command, line(command, LEAST[command.name][1]))
    set_by = [
        differing(without(command, name), with_option(command, name, option)) for name, option in own(command).items()
    ]
    for place in range(len(LEAST[command.name][0])):
        words = line(command, LEAST[command.name][1])
        words[place - len(LEAST[command.name][0])] = "other"
        set_by.append(differing(before, asked(command, words)))
    assert all(len(places) == 1 for places in set_by)
    places = [place for places in set_by for place in places]
    assert len(places) == len(set(places))
    assert set(places) == set(leaves(before))


@pytest.mark.parametrize(("command", "name", "option"), EVERY)
def test_a_variable_says_what_the_option_says(
    command: Command, name: str, option: click.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = with_option(command, name, option)
    variable = f"BATCHCAM_{name.upper().replace('-', '_')}"
    monkeypatch.setenv(variable, "1" if option.is_flag else written(option))
    assert asked(command, line(command, least(command, name))) == expected


@pytest.mark.parametrize(("command", "name", "option"), EVERY)
def test_a_file_says_what_the_option_says(command: Command, name: str, option: click.Option, tmp_path: Path) -> None:
    value = "true" if option.is_flag else repr(written(option))
    if option.nargs > 1:
        value = repr(written(option).split(" "))
    (tmp_path / "a.toml").write_text(f"[{command.name}]\n{name} = {value}\n")
    words = ["--config", str(tmp_path / "a.toml"), *line(command, least(command, name))]
    assert asked(command, words) == with_option(command, name, option)


def changed(config: Any, where: tuple[str, ...], value: object) -> Part:
    name, *rest = where
    return dataclasses.replace(config, **{name: changed(getattr(config, name), (*rest,), value) if rest else value})


def wrong_values(option: Option) -> Iterator[Any]:
    if option.choices:
        yield "no\nsuch"
    for bound, beyond in ((option.low, -1), (option.high, 1), (option.above, 0), (option.below, 0)):
        if math.isfinite(bound):
            yield bound + beyond


def limited() -> Iterator[Any]:
    for command in COMMANDS:
        for name, option in own(command).items():
            (where,) = differing(without(command, name), with_option(command, name, option))
            kind: Any = with_option(command, name, option)
            for part in where[:-1]:
                kind = getattr(kind, part)
            (field,) = (f for f in dataclasses.fields(kind) if f.name == where[-1])
            says = field.metadata.get(Option, Option())
            for value in () if says.parse else wrong_values(says):
                value = float(value) if option.type is click.FLOAT else value
                yield pytest.param(command, name, where, value, id=f"{command.name} --{name} {value!r}")


@pytest.mark.parametrize(("command", "name", "where", "value"), list(limited()))
def test_what_is_no_choice_or_out_of_range_is_refused_in_the_same_words_by_command_line_and_config(
    command: Command, name: str, where: tuple[str, ...], value: object
) -> None:
    with pytest.raises(ConfigError) as by_config:
        changed(without(command, name), where, value)
    with pytest.raises(ConfigError) as by_command_line:
        cli.main([command.name, *line(command, {**least(command, name), name: str(value)})], standalone_mode=False)
    assert str(by_command_line.value) == str(by_config.value)
    assert str(by_config.value).startswith(f"--{name} {' '.join(str(value).split())}: ")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_the_help_has_the_choices_from_the_config_and_each_option_and_its_default(command: Command) -> None:
    text = cli.commands[command.name].get_help(click.Context(cli.commands[command.name], terminal_width=200))
    for name, option in own(command).items():
        assert f"--{name} " in text
        if isinstance(option.type, click.Choice):
            assert f"--{name} [{'|'.join(option.type.choices)}]" in text
        else:
            assert "|" not in str(option.metavar).replace("N|HxW", "").removesuffix("|auto")
        if option.show_default:
            assert f"[default: {option.default}" in " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_the_function_of_a_command_and_of_its_text_are_where_the_table_says(command: Command) -> None:
    assert callable(command.function)
    assert callable(command.to_text)


class PassingConfig(Config):
    """What a command is asked that passes words on."""

    run: str = argument()
    rest: tuple[str, ...] = passed_on("another")
    keep: str | None = field("A number of runs.")


@pytest.mark.parametrize(
    ("words", "keep", "rest"),
    [
        (["run"], None, ()),
        (["--keep", "3", "run"], "3", ()),
        (["run", "--keep", "3", "-q", "--json", "-h", "--", "--no-such", "x y"], None,
         ("--keep", "3", "-q", "--json", "-h", "--", "--no-such", "x y")),
        (["--keep=3", "--", "run", "--keep", "4"], "3", ("--keep", "4")),
    ],
)  # fmt: skip
def test_words_after_the_arguments_of_a_command_that_passes_them_on_stay_as_they_are(
    words: list[str], keep: str | None, rest: tuple[str, ...]
) -> None:
    command = Command("pass", PassingConfig, "run", "Pass words on.").to_click()
    context = command.make_context("pass", words)
    config = build(PassingConfig, context.params)
    assert (config.run, config.keep, config.rest) == ("run", keep, rest)
    assert command.get_usage(context) == "Usage: pass [OPTIONS] RUN [option of batchcam another]..."
