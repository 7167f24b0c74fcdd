"""What the fuzzers feed to batchcam, and what has to hold whatever they feed.

A target is a strategy for inputs and a check of one input. Only errors of ours may be raised; a command ends with a
documented code and one line; what is accepted comes back as it went in; nothing takes longer than `HUNG_S`.
"""

from __future__ import annotations

import atexit
import codecs
import contextlib
import csv
import dataclasses
import functools
import io
import json
import os
import resource
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import click
import h5py
import numpy as np
from hypothesis import strategies as st

import batchcam
from batchcam.cli import commands as command_line
from batchcam.cli.commands import COMMANDS, OF_SCRIPTS
from batchcam.commands.localize.annotations import read_annotations, read_mask
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.data.csv_manifest import open_csv
from batchcam.errors import BatchcamError, ConfigError, DatasetError, RunError
from batchcam.store.document import DIGEST_KEY, read_document, seal
from batchcam.store.manifest import read_manifest, read_task, write_manifest
from batchcam.store.plan import Plan, read_plan, shard_table
from batchcam.store.structure import attribute
from tests.helpers.hostile_runs import ARRAYS, TYPES, reseal
from tests.helpers.synthetic import run_command, synthetic_run

HUNG_S = 60.0  # torch alone may take 20 s to load on a busy machine
EXIT_CODES = (0, 1, 2, 3, 75)


@dataclasses.dataclass(frozen=True)
class Target:
    """An input, and what has to hold of it.

    Attributes:
        inputs: strategy.
        check: fails when something does not hold; it may write into the folder that it is given.
        about: what is fed, in a few words.
    """

    inputs: st.SearchStrategy[Any]
    check: Callable[[Any, Path], None]
    about: str


TARGETS: dict[str, Target] = {}


def target(name: str, about: str, inputs: st.SearchStrategy[Any]) -> Callable[..., Any]:
    def enter(check: Callable[[Any, Path], None]) -> Callable[[Any, Path], None]:
        TARGETS[name] = Target(inputs, check, about)
        return check

    return enter


class HungError(Exception):
    """An input took longer than `HUNG_S`."""


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """End what runs too long; only the main thread can."""

    def hung(number: int, frame: FrameType | None) -> None:
        raise HungError(f"took longer than {HUNG_S:.0f} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.setitimer(signal.ITIMER_REAL, HUNG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def try_input(name: str, value: Any) -> None:
    """Check one input of a target in a folder of its own, which is also the working directory."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="batchcam-fuzz-", dir=memory()) as folder, bounded():
        os.chdir(folder)
        try:
            TARGETS[name].check(value, Path(folder))
        finally:
            os.chdir(before)


def memory() -> Path | None:
    """Return a folder in memory, None where there is none."""
    place = Path("/dev/shm")
    return place if os.access(place, os.W_OK) else None


def resident_bytes() -> int:
    """Return what this process takes of the memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@functools.cache
def tiny_run() -> Path:
    """A finished run of six samples in two shards; it lies in a folder that goes with the process."""
    folder = tempfile.mkdtemp(prefix="batchcam-fuzz-run-", dir=memory())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    run = Path(folder) / "run"
    synthetic_run(run, sample_count=6, shard_size=3, input_size=(12, 20), sample_id_bytes=40)
    return run


# JSON

ANY_CHARACTER = st.characters(exclude_categories=())  # lone surrogates, too: JSON can spell them
ANY_TEXT = st.text(ANY_CHARACTER, max_size=12)
BIG = st.sampled_from([-1, 2**31, 2**40, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30]) | st.sampled_from(
    (400, 5000)
).map(lambda digits: 10**digits)
SCALARS = st.none() | st.booleans() | st.integers() | BIG | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(ANY_TEXT, JSON, max_size=5)


def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value with one part replaced, left out, or added."""
    inside = isinstance(value, (dict, list)) and value and draw(st.integers(0, 3))
    if not inside:
        if isinstance(value, dict) and draw(st.booleans()):
            return {**value, draw(ANY_TEXT): draw(JSON)}
        return draw(JSON)
    key = draw(st.sampled_from(sorted(value) if isinstance(value, dict) else range(len(value))))
    copy = value.copy()
    if draw(st.integers(0, 5)) == 0:
        del copy[key]
    else:
        copy[key] = changed(draw, value[key])
    return copy


@st.composite
def documents_like(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """A document of the tiny run, changed in a few places."""
    file = next(tiny_run().glob(name))
    content = json.loads(file.read_bytes())
    del content[DIGEST_KEY]
    for _ in range(draw(st.integers(1, 3))):
        content = changed(draw, content)
        if not isinstance(content, dict):
            return {"": content}
    return content


def named(error: BatchcamError, path: Path) -> None:
    """Check that an error names its file, in one line."""
    assert str(error).startswith(str(path)), error
    assert str(error).isprintable(), error


def write_sealed(path: Path, content: dict[str, Any]) -> bytes | None:
    """Write a document as its writer would; None when it can't be written, as NaN or a number without end."""
    content.pop(DIGEST_KEY, None)
    try:
        path.write_bytes(seal(content))
    except ValueError:
        return None
    return path.read_bytes()


@target("document", "any JSON object, sealed", TABLES)
def document_is_read_or_refused(content: dict[str, Any], folder: Path) -> None:
    written = write_sealed(folder / "a.json", content)
    if written is None:
        return
    try:
        read = read_document(folder / "a.json")
    except RunError:  # one pair of surrogates is another text than two halves
        assert "\\ud" in written.decode()
        return
    assert seal(read) == written


@target("document bytes", "any bytes, and JSON that no writer spells so", st.binary(max_size=200) | ANY_TEXT | TABLES)
def bytes_are_read_or_refused(raw: object, folder: Path) -> None:
    path = folder / "a.json"
    if not isinstance(raw, bytes):
        try:
            raw = (raw if isinstance(raw, str) else json.dumps(raw)).encode("utf-8", "surrogatepass")
        except ValueError:  # a number of more digits than Python writes
            raw = b'{"a": ' + b"9" * 5000 + b"}"
    path.write_bytes(raw)
    try:
        assert seal(read_document(path)) == raw
    except RunError as error:
        named(error, path)


@target("plan", "run.json, changed and sealed; run id and table of shards made right where they can be",
        st.tuples(documents_like("run.json"), st.booleans()))  # fmt: skip
def plan_is_read_or_refused(given: tuple[dict[str, Any], bool], folder: Path) -> None:
    content, consistent = given
    if consistent:
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            plan = Plan.from_dict(content["plan"])
            if plan.sample_count <= 10_000 * plan.shard_size:
                content = {**content, "run_id": plan.run_id, "shards": shard_table(plan)}
    if write_sealed(folder / "run.json", content) is None:
        return
    try:
        plan = read_plan(folder)
    except RunError as error:
        named(error, folder)
        return
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    assert plan.run_id == content["run_id"]
    assert json.loads(plan.config_text()) == {k: v for k, v in content["plan"].items() if k != "class_names"}


@target("manifest", "manifest.json, changed and sealed, and the command info over it", documents_like("manifest.json"))
def manifest_is_read_or_refused(content: dict[str, Any], folder: Path) -> None:
    run = Path(shutil.copytree(tiny_run(), folder / "run"))
    if write_sealed(run / "manifest.json", content) is None:
        return
    plan = read_plan(run)
    try:
        manifest = read_manifest(run, plan)
    except RunError as error:
        named(error, run)
    else:
        (folder / "again").mkdir()
        write_manifest(folder / "again", manifest)
        assert read_manifest(folder / "again", plan) == manifest
    ended("info", run)


@target("task", "a task's record, changed and sealed, and the command info over it", documents_like("task-*.json"))
def task_is_read_or_refused(content: dict[str, Any], folder: Path) -> None:
    run = Path(shutil.copytree(tiny_run(), folder / "run"))
    (run / "manifest.json").unlink()  # info reads the records of a run that is not complete
    record = next(run.glob("task-*.json"))
    if write_sealed(record, content) is None:
        return
    with contextlib.suppress(RunError):
        assert read_task(record).items() <= read_document(record).items()
    assert ended("info", run) in (0, 3)


# text files

ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "shift-jis")
LINE_ENDS = ("\n", "\r\n", "\r")
HUGE_NUMBERS = ("9" * 30, "9" * 5000, "٣", "1e999", "-0", "nan", "inf", "1_0", "²", "+1")
CELLS = st.one_of(
    st.text(max_size=8), st.sampled_from(("", " ", "\0", '"', "a.png", "0", "1", "2", *HUGE_NUMBERS)), st.integers()
)


def tables(*columns: str) -> st.SearchStrategy[bytes]:
    """CSV files, some with the columns that count: any cells, quotes, ends of lines and encodings."""

    @st.composite
    def table(draw: st.DrawFn) -> bytes:
        header = draw(st.lists(st.sampled_from(columns) | st.text(max_size=4), min_size=1, max_size=7))
        header = draw(st.just(list(columns)) | st.permutations(columns) | st.just(header))
        ragged = draw(st.integers(0, 4)) == 0
        widths = st.integers(0, 8) if ragged else st.just(len(header))
        rows = [
            draw(st.lists(CELLS, min_size=n, max_size=n)) for n in draw(st.lists(widths, max_size=5))
        ]  # fmt: skip
        stream = io.StringIO()
        quoting = draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)))
        writer = csv.writer(stream, quoting=quoting, lineterminator=draw(st.sampled_from(LINE_ENDS)))
        with contextlib.suppress(csv.Error):
            writer.writerows([header, *rows])
        return stream.getvalue().encode(draw(st.sampled_from(ENCODINGS)), "replace")

    raw = st.text().map(lambda text: (",".join(columns) + "\n" + text).encode())
    return table() | raw | st.binary(max_size=100).map(lambda rest: codecs.BOM_UTF8 * (len(rest) % 2) + rest)


@target("csv manifest", "CSV datasets of any cells, quotes, ends of lines, encodings and bytes",
        tables("path", "label", "id") | tables("path", "label") | tables("path"))  # fmt: skip
def dataset_is_listed_or_refused(content: bytes, folder: Path) -> None:
    file = folder / "samples.csv"
    file.write_bytes(content)
    try:
        source = open_csv(str(file), str(file))
    except DatasetError as error:
        named(error, file)
        return
    with file.open(encoding="utf-8-sig", newline="") as stream:
        header, *rows = [row for row in csv.reader(stream) if row]
    names = [name.strip().lower() for name in header]
    ids = names.index("id" if "id" in names else "path")
    assert list(source.sample_ids) == [row[ids] for row in rows]
    assert len(source.labels) == len(rows)
    assert (np.asarray(source.labels) >= -1).all()


BOXES = ("id", "x0", "y0", "x1", "y1", "height", "width", "mask", "ignore")
NAMED = st.sampled_from(("蝶/фото 00000.png", "./蝶/фото 00001.png", "x/蝶/фото 00002.png", "a.png")) | st.text(
    max_size=6
)
NUMBERS = st.sampled_from(("0", "5", "7.5", "", *HUGE_NUMBERS)) | st.text(max_size=3)
MASKS = st.sampled_from(("", "m.png", "..", ".", "\0", "a\0b.png", "x" * 5000)) | st.text(max_size=5)


@st.composite
def boxes(draw: st.DrawFn) -> bytes:
    """CSV files that state boxes and masks, most of which name samples of the tiny run."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(BOXES)
    for _ in range(draw(st.integers(1, 4))):
        box = draw(st.sampled_from((("0", "0", "9", "9"), ("", "", "", ""))) | st.tuples(*[NUMBERS] * 4))
        size = draw(st.sampled_from((("", ""), ("48", "80"))) | st.tuples(NUMBERS, NUMBERS))
        writer.writerow((draw(NAMED), *box, *size, draw(MASKS), draw(MASKS)))
    return stream.getvalue().encode()


@st.composite
def wsol_files(draw: st.DrawFn) -> dict[str, bytes]:
    """The text files of WSOL evaluation."""
    files = {}
    for name, cells in (
        ("localization.txt", (NUMBERS,) * 4),
        ("localization.txt", (MASKS, MASKS)),
        ("image_sizes.txt", (NUMBERS, NUMBERS)),
        ("class_labels.txt", (NUMBERS,)),
        ("image_ids.txt", ()),
    ):
        if draw(st.booleans()) or name not in files:
            lines = draw(st.lists(st.tuples(NAMED, *cells), max_size=3))
            files[name] = "\n".join(",".join(line) for line in lines).encode()
    return files


ANNOTATIONS = (boxes() | tables(*BOXES)).map(lambda content: {"boxes.csv": content}) | wsol_files()


@target("annotations", "boxes and masks in CSV and WSOL's files, and the command localize over them", ANNOTATIONS)
def annotations_are_read_or_refused(files: dict[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    source = folder / "boxes.csv" if "boxes.csv" in files else folder
    with batchcam.open_run(tiny_run()) as run:
        ids = list(run.sample_id[:])
    with contextlib.suppress(ConfigError, DatasetError):
        annotations = read_annotations(source, ids)
        assert annotations.annotated.any()
        for row in range(len(ids)):
            objects = annotations.of(row)
            for mask in objects.masks:
                with contextlib.suppress(DatasetError):
                    read_mask(mask)
            assert np.isfinite(objects.boxes).all()
    ended("localize", tiny_run(), "--annotations", source, "--out", folder / "scores")


# the command line


def ended(*words: object) -> int:
    """Run a command; return its exit code, which is documented, as what it told is one line."""
    code, stdout, stderr = run_command(*words)
    told = f"{list(map(str, words))}: exit code {code}: {stderr[-2000:]}"
    assert code in EXIT_CODES, told
    assert "error: unexpected " not in stderr, told
    assert "Traceback" not in stderr, told
    assert all(line.startswith("batchcam: ") for line in stderr.splitlines()), told
    if code in (1, 2, 75):
        assert stderr.splitlines()[-1].startswith("batchcam: error: "), told
    if "--json" in words and not set(words) & {"--help", "-h", "--version"}:
        assert json.loads(stdout.splitlines()[-1])["exit_code"] == code, told
    return code


NEVER = ("watch", "debug", "config", "version", "help")
"""Options that wait for others, print a traceback, or have a target of their own."""

STARTERS = {"submit", "view", *(each.name for each in (*COMMANDS, *OF_SCRIPTS) if each.is_job)}
FED = sorted(set(command_line.cli.commands) - STARTERS)
"""Commands that start no others, nor what an option says, and end by themselves."""

PLACES = ("{run}", "{run}/run.h5", "{run}/shards/shard-00000.h5", "{empty}", "{junk}", "{boxes}", "missing", "")
WORD_CHARACTERS = st.characters(exclude_characters="\0/", exclude_categories=("Cs",)) | st.sampled_from("\udc80\udcff")
WORDS = st.text(WORD_CHARACTERS, max_size=8).filter(lambda word: word not in ("..", "--debug"))
KNOWN_WORDS = st.sampled_from(
    (
        *("label", "predicted", "csv", "png", "wsol", "virelay", "parquet", "0", "ant", "Käfer", "all", "1/2"),
        *("224", "3x5", "0x0", "99999x99999", "0.5,0.5,0.5", "90s", "1:00:00", f"{'9' * 5000}:00:00", "9" * 400, "nan"),
        *("jet", "viridis", "confidence", "entropy", "cpu", "cuda:99999999999", "image", "view", "os:getcwd", "a:b"),
    )
)
INTEGERS = st.sampled_from((-1, 0, 1, 2, 3, 2**31, 2**32, 2**63, 2**64, 10**30, "9" * 5000, "0x10", "١")) | WORDS
FLOATS = st.sampled_from((-1.0, 0.0, 0.5, 1, 1e308, "nan", "inf", "-inf", "1e999", "1_0", "-0.0")) | WORDS


def values_of(parameter: click.Parameter) -> st.SearchStrategy[Any]:
    """What people, and others, write for an option or argument."""
    kind = parameter.type
    if parameter.name == "out":
        return WORDS.map(lambda word: f"{{out}}/{word}") | st.sampled_from(PLACES[3:6])
    if isinstance(kind, click.Choice):
        return st.sampled_from(list(kind.choices)) | WORDS
    if isinstance(kind, click.Path) or parameter.name == "data":
        return st.sampled_from(PLACES) | WORDS
    if isinstance(kind, click.types.FloatParamType):
        return FLOATS
    return INTEGERS if isinstance(kind, click.types.IntParamType) else KNOWN_WORDS | WORDS


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with its arguments and some of its options; not one that has what it needs to train."""
    name = draw(st.sampled_from(FED))
    command = command_line.cli.commands[name]
    words = [name]
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words.append(draw(st.sampled_from(("{run}", "{run}", "{run}")) | values_of(parameter)))
            continue
        if parameter.name in NEVER or not (parameter.required or draw(st.integers(0, 3)) == 0):
            continue
        words.append(draw(st.sampled_from(parameter.opts)))
        if not getattr(parameter, "is_flag", False):
            value = "{junk}" if name == "demo" and parameter.name == "out" else None
            words += [str(draw(values_of(parameter)) if value is None else value) for _ in range(parameter.nargs)]
    if name == "demo" and "--out" not in words:
        words += ["--out", "{junk}"]
    return words + draw(st.just([]) | st.just([]) | st.lists(WORDS, max_size=2))


def placed(words: Sequence[str], folder: Path) -> list[str]:
    """Put the places of this case into its words."""
    for name in ("empty", "out"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "junk").write_bytes(b"\x89HDF\r\n\x1a\n junk")
    (folder / "boxes.csv").write_text("id,x0,y0,x1,y1\n蝶/фото 00000.png,0,0,40,40\n", encoding="utf-8")
    places = {"run": folder / "run", "boxes": folder / "boxes.csv", **{n: folder / n for n in ("empty", "out", "junk")}}
    for name, place in places.items():
        words = [word.replace(f"{{{name}}}", str(place)) for word in words]
    return list(words)


@target("command line", "every command with any of its options, values huge, not finite, empty, of any characters",
        command_lines())  # fmt: skip
def command_ends_as_documented(words: list[str], folder: Path) -> None:
    shutil.copytree(tiny_run(), folder / "run")
    ended(*placed(words, folder))


def toml_text(value: object) -> str:
    """Return a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_text(str(k))} = {toml_text(v)}" for k, v in value.items()) + "}"
    return str(value)


TOML_SCALARS = st.one_of(
    *(st.booleans(), st.integers(), st.floats(), st.sampled_from((2**63, 10**30, "9" * 30, "nan", "1979-05-27"))),
    st.text(st.characters(exclude_characters="/", exclude_categories=("Cs",)), max_size=6),
    KNOWN_WORDS,
)
TOML = (
    TOML_SCALARS | st.lists(TOML_SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), TOML_SCALARS, max_size=2)
)


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, bytes]:
    """A command and a TOML file that sets its options, to anything."""
    name = draw(st.sampled_from(FED))
    options = {
        max(p.opts, key=len).lstrip("-"): p
        for p in command_line.cli.commands[name].params
        if isinstance(p, click.Option) and p.name not in (*NEVER, "out")
    }
    chosen = draw(st.lists(st.sampled_from(sorted(options)), unique=True, max_size=5))
    lines = [f"{key} = {toml_text(draw(TOML | values_of(options[key])))}" for key in chosen]
    lines.insert(0, draw(st.sampled_from(("", f"[{name}]", f"[{name}", f"{name} = 1", '"\\u0000" = 1', "[x]"))))
    text = "\n".join(lines).encode("utf-8", "replace")
    return name, text + draw(st.just(b"") | st.binary(max_size=4))


@target("configuration", "--config files that set any option to any TOML value", configurations())
def configuration_is_used_or_refused(given: tuple[str, bytes], folder: Path) -> None:
    name, content = given
    shutil.copytree(tiny_run(), folder / "run")
    (folder / "a.toml").write_bytes(content)
    words = [name, "--config", "a.toml"]
    for parameter in command_line.cli.commands[name].params:
        if isinstance(parameter, click.Argument):
            words.append("{run}")
        elif parameter.name == "out":
            words += ["--out", "{junk}" if name == "demo" else "{out}/a.png"]
    ended(*placed(words, folder))


# HDF5


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of a file of a run; what it needs is drawn before, so that the file can be anywhere."""

    file: str
    kind: str
    name: str
    values: tuple[Any, ...]


ANY_ARRAY = st.sampled_from((*ARRAYS, "shards", "shards/sha256", "shards/first", "classifier", "extra"))
SHAPES = st.lists(st.sampled_from((0, 1, 2, 3, 5, 6, 7, 12, 20, 2**31, 2**40)), max_size=5).map(tuple)
FILES = ("shards/shard-00000.h5", "shards/shard-00001.h5", "run.h5")
DTYPES = st.sampled_from((*TYPES, "i8", "f4", "u1", "S1", "S40", "S70000", "f8", "u8", "same", "same", "same"))
FILTERS = st.sets(st.sampled_from(("gzip", "lzf", "shuffle", "fletcher32", "scaleoffset", "maxshape")), max_size=3)
FILLS = st.sampled_from((None, 0, 1, -1, 255, 2**63 - 1, float("nan"), float("inf"), -1e300, b"\xff\xfe"))
ATTRIBUTES = st.sampled_from(
    ("run_id", "schema_version", "first_sample", "sample_count", "checkpoint_sha256", "title", "long_name", "extra")
)
ATTRIBUTE_VALUES = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8),
    st.binary(max_size=8).map(np.void).filter(lambda value: value.itemsize > 0),
    st.sampled_from((np.zeros(0), np.zeros((2, 3), "f2"), np.array([b"\xff\xfe"]), h5py.Empty("i8"), True)),
)
CHANGED_FILE = st.sampled_from(FILES)
CHANGED: dict[str, tuple[st.SearchStrategy[str], st.SearchStrategy[tuple[Any, ...]]]] = {
    "array": (ANY_ARRAY, st.tuples(DTYPES, SHAPES | st.none(), FILTERS, FILLS)),
    "attribute": (ATTRIBUTES, st.tuples(st.none() | ANY_ARRAY, ATTRIBUTE_VALUES)),
    "delete": (ANY_ARRAY, st.just(())),
    "value": (ANY_ARRAY, st.tuples(st.integers(0, 10**6), FILLS)),
    "bytes": (st.just(""), st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8))),
    "cut": (st.just(""), st.tuples(st.integers(0, 10**6))),
}
CHANGES = st.one_of(
    *(st.builds(Change, CHANGED_FILE, st.just(kind), names, values) for kind, (names, values) in CHANGED.items())
)


def apply(change: Change, run: Path) -> None:
    """Make a change; what HDF5 won't write is left out."""
    path = run / change.file
    if change.kind in ("bytes", "cut"):
        content = bytearray(path.read_bytes())
        start = change.values[0] % (len(content) or 1)
        if change.kind == "cut":
            del content[start:]
        else:
            content[start : start + len(change.values[1])] = change.values[1]
        path.write_bytes(content)
        return
    refused = (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError, AttributeError, IndexError)
    with contextlib.suppress(*refused), warnings.catch_warnings(), h5py.File(path, "r+") as file:
        warnings.simplefilter("ignore")  # a fill value that the type has not
        KINDS[change.kind](file, change.name, *change.values)


def _replace(file: h5py.File, name: str, dtype: str, shape: Any, filters: set[str], fill: Any) -> None:
    old = file.get(name)
    is_array = isinstance(old, h5py.Dataset)
    kind = old.dtype if dtype == "same" and is_array else TYPES.get(dtype, "i8" if dtype == "same" else dtype)
    shape = (old.shape if is_array else (3,)) if shape is None else shape
    settings: dict[str, Any] = dict.fromkeys(filters & {"shuffle", "fletcher32"}, True)
    settings |= {"compression": next(iter(filters & {"gzip", "lzf"}), None)} if shape else {}
    if "scaleoffset" in filters:
        settings["scaleoffset"] = 1
    if "maxshape" in filters and shape:
        settings["maxshape"] = (None,) * len(shape)
    if old is not None:
        del file[name]
    file.create_dataset(name, shape, kind, fillvalue=fill, **settings)


def _attribute(file: h5py.File, name: str, array: str | None, value: Any) -> None:
    (file if array is None else file[array]).attrs[name] = value


def _delete(file: h5py.File, name: str) -> None:
    del file[name]


def _value(file: h5py.File, name: str, place: int, value: Any) -> None:
    dataset = file[name]
    index = np.unravel_index(place % dataset.size, dataset.shape)
    dataset[tuple(map(int, index))] = value


KINDS: dict[str, Callable[..., None]] = {
    "array": _replace, "attribute": _attribute, "delete": _delete, "value": _value,
}  # fmt: skip
READERS: dict[str, tuple[str, ...]] = {
    "info": ("info", "{run}"),
    "report": ("report", "{run}", "--out", "{out}/a.html"),
    "compare": ("compare", "{run}", "{run}", "--out", "{out}/compared"),
    "compare with sound": ("compare", "{sound}", "{run}"),
    "export csv": ("export", "{run}", "--to", "csv", "--out", "{out}/csv"),
    "localize": ("localize", "{run}", "--annotations", "{boxes}"),
    "render": ("render", "{run}", "--out", "{out}/a.png"),
    "merge": ("merge", "{run}"),
}
NEEDS_NOTHING_ELSE = ("info", "report", "compare", "compare with sound", "export csv", "merge")
"""Readers that read every run in which verify finds nothing."""


@target("hdf5", "files of a run with other types, shapes, fill values, filters, attributes, bytes; digests made right",
        st.tuples(st.lists(CHANGES, min_size=1, max_size=3), st.sampled_from(sorted(READERS))))  # fmt: skip
def run_is_read_or_refused(given: tuple[list[Change], str], folder: Path) -> None:
    changes, reader = given
    run = Path(shutil.copytree(tiny_run(), folder / "run"))
    for change in changes:
        apply(change, run)
    with contextlib.suppress(OSError, KeyError, ValueError, TypeError, RuntimeError):
        reseal(run)
    found = verify(VerifyConfig(run, quiet=True), confine=False).found
    for each in found:
        assert str(each).isprintable()
    read_everything(run)
    with contextlib.suppress(OSError), h5py.File(run / FILES[0]) as file:
        names: list[str] = []
        with contextlib.suppress(KeyError, RuntimeError):  # h5py's own walk over damaged metadata
            names = list(file.attrs)
        for name in names:
            attribute(file, name)
    words = [word.replace("{sound}", str(tiny_run())) for word in READERS[reader]]
    code = ended(*placed(words, folder))
    if not found and reader in NEEDS_NOTHING_ELSE:
        assert code in (0, 3), f"verify finds nothing, {reader} ends with {code}"


def read_everything(run: Path) -> None:
    """Read every array, sample and map of a run, of a shard alone, and of what is left of the run."""
    for path, partial in ((run, False), (run, True), (run / FILES[0], False)):
        with contextlib.suppress(BatchcamError), batchcam.open_run(path, partial=partial) as opened:
            for name in opened._arrays:
                with contextlib.suppress(BatchcamError):
                    getattr(opened, name)[:]
            for row in range(min(len(opened), 6)):
                with contextlib.suppress(BatchcamError):
                    str(opened[row])
                with contextlib.suppress(BatchcamError, KeyError):
                    opened.cam(row)
                with contextlib.suppress(BatchcamError, KeyError):
                    opened.map(row)
