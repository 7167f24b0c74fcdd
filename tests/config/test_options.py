"""What commands share: what can't be meant is refused when a config is built, by the option's name."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

from batchcam.cli.commands import cli
from batchcam.config.gates import Gates
from batchcam.config.options import Part, argument, field, like, required
from batchcam.config.shared import Classifier, Compute, Config
from batchcam.config.texts import PRESET_NAMES, parse_bytes, parse_duration, parse_numbers, parse_size
from batchcam.data.preprocessing import PRESETS
from batchcam.errors import EXIT_USAGE, ConfigError

CHECKPOINT = Path("a.pth")
NAN, INFINITY = float("nan"), float("inf")


class Meal(Part):
    """A part of an order."""

    dish: Path
    spice: str = field("How hot.", "--heat", default="mild", choices=("mild", "hot"))


class Order(Config):
    """What a kitchen is asked."""

    guest: str = argument()
    meal: Meal = required("What to eat.", "--dish")
    plates: int = field("How many.", default=1, low=1, high=9)
    tip: float | None = field("On top, in per cent.", default=None, above=0, below=100)
    wait: float = field("How long.", default="1m", parse=parse_duration)
    share: float = field("Of the table.", default=1.0, low=0)
    again: Path | None = field("Where the last one is.", default=None)


def order(**changes: Any) -> Order:
    return Order("ann", Meal("soup"), **changes)  # type: ignore[arg-type]


def test_a_config_is_a_frozen_dataclass_and_needs_what_has_no_default():
    assert order(quiet=True).quiet
    with pytest.raises(dataclasses.FrozenInstanceError):
        order().plates = 2  # type: ignore[misc]
    with pytest.raises(TypeError, match="meal"):
        Order("ann")  # type: ignore[call-arg]


def test_a_text_will_do_for_a_path_and_for_what_is_parsed_also_as_a_default():
    one = order(again="last/order.txt", wait="00:01:30")
    assert (one.meal.dish, one.again, one.wait, order().wait) == (Path("soup"), Path("last/order.txt"), 90, 60)
    assert order(wait=90.0, again=Path("last/order.txt")) == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plates": 0}, "--plates 0: must be from 1 to 9"),
        ({"plates": 10**400}, f"--plates {10**400}: must be from 1 to 9"),
        ({"tip": 0}, "--tip 0: must be above 0 and below 100"),
        ({"tip": 100.0}, "--tip 100.0: must be above 0 and below 100"),
        ({"tip": NAN}, "--tip nan: must be a finite number"),
        ({"share": INFINITY}, "--share inf: must be a finite number"),
        ({"share": -1}, "--share -1: must be at least 0"),
        ({"wait": "long"}, "--wait 'long': expected seconds, 90s, 15m, 2h or HH:MM:SS"),
    ],
)
def test_what_is_out_of_range_or_can_not_be_parsed_is_refused_by_the_options_name(change, message):
    with pytest.raises(ConfigError) as error:
        order(**change)
    assert (str(error.value), error.value.exit_code) == (message, EXIT_USAGE)


def test_what_is_no_choice_is_refused_by_the_name_that_the_option_has():
    with pytest.raises(ConfigError, match="--heat boiling: choose one of mild, hot"):
        Meal(Path("soup"), "boiling")


def test_a_field_like_another_has_its_default_its_option_and_its_check():
    class Snack(Config):
        plates: int = like(Order, "plates")

    assert Snack().plates == 1
    with pytest.raises(ConfigError, match="--plates 0: must be from 1 to 9"):
        Snack(plates=0)


def test_the_docstring_has_what_the_options_say():
    assert inspect.getdoc(Order) == (
        "What a kitchen is asked.\n\nAttributes:\n    quiet: No progress and no notes.\n    meal: What to eat.\n"
        "    plates: How many.\n    tip: On top, in per cent.\n    wait: How long.\n    share: Of the table.\n"
        "    again: Where the last one is."
    )


def test_arch_and_model_exclude_each_other():
    with pytest.raises(ConfigError, match=r"--arch and --model exclude each other"):
        Classifier(CHECKPOINT, arch="resnet18", model="a:b")


def test_preprocessing_is_parsed_with_the_classifier():
    classifier = Classifier(CHECKPOINT, image_size="64x96", resize="64", mean="0.5", std="0.1,0.2,0.3")  # type: ignore[arg-type]
    assert (classifier.image_size, classifier.resize) == ((64, 96), (64,))
    assert (classifier.mean, classifier.std) == ((0.5,), (0.1, 0.2, 0.3))


def test_the_presets_are_those_that_there_are():
    assert tuple(PRESETS) == PRESET_NAMES


@pytest.mark.parametrize(
    ("change", "option"),
    [({"batch_size": 0}, "--batch-size 0"), ({"batch_size": -1}, "--batch-size -1"), ({"workers": -1}, "--workers -1"),
     ({"threads": 0}, "--threads 0"), ({"precision": "fp8"}, "--precision fp8"),
     *(({name: 10**12}, f"--{name.replace('_', '-')} 1000000000000: must be from") for name in
       ("batch_size", "workers", "threads"))],
)  # fmt: skip
def test_way_to_compute_that_can_not_be_meant_is_refused_by_name(change, option):
    with pytest.raises(ConfigError, match=option):
        Compute(**change)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", None])
def test_known_precisions_are_accepted(precision):
    assert Compute(precision=precision, workers=0).precision == precision


@pytest.mark.parametrize(
    ("text", "size"), [("224", (224,)), ("240x320", (240, 320)), ("1", (1,)), ("99999x1", (99999, 1))]
)
def test_size_is_one_side_or_height_by_width(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "0", "00", "0x5", "5x0", "5x00", "x5", "5x", "5X5", "-5", "5.5", "5x5x5", " 5", "5\n", "123456", "٣"]
)
def test_size_that_is_neither_is_refused_with_the_option(text):
    with pytest.raises(ConfigError, match=r"--resize .*expected N or HxW"):
        Classifier(CHECKPOINT, resize=text)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0.5", (0.5,)), ("0.485,0.456,0.406", (0.485, 0.456, 0.406)), ("1, 2, 3e-1", (1, 2, 0.3))],
)
def test_numbers_of_channels_are_one_for_all_or_one_each(text, numbers):
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("path=image_id,label=diagnosis", {"path": "image_id", "label": "diagnosis"}),
        ("label=Finding, main,id= a=b ", {"label": "Finding, main", "id": "a=b"}),
    ],
)
def test_columns_have_any_names(text: str, columns: dict[str, str]) -> None:
    assert Classifier(CHECKPOINT, columns=text).columns == columns


@pytest.mark.parametrize("text", ["image_id", "path=", "file=a", "path=a,path=b", ""])
def test_columns_that_are_not_named_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--columns .*: expected such as path=image_id,label=diagnosis"):
        Classifier(CHECKPOINT, columns=text)


@pytest.mark.parametrize("text", ["", "a", "1,,2", "1;2;3", "nan", "1,inf,2"])
def test_numbers_of_channels_that_are_none_are_refused_with_the_option(text):
    with pytest.raises(ConfigError, match=r"--mean .*expected numbers"):
        Classifier(CHECKPOINT, mean=text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5h", 5400), ("15m", 900), ("2h", 7200), ("00:01:30", 90), ("100:00:00", 360000)],
)
def test_duration_is_read_as_schedulers_write_it(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("800000", 800000), ("512M", 2**29), ("2G", 2**31), ("1.5g", 3 * 2**29), ("4KB", 4096), ("1T", 2**40)],
)
def test_bytes_are_read_as_schedulers_write_them(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "G", "-1G", "2 G", "2GiB", "1e9", "half"])
def test_what_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(ValueError, match="expected bytes, such as 512M or 2G"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["999999999h", "999999999:00:00"])
def test_duration_of_an_eternity_is_one_that_timers_take(text):
    assert Compute(sample_timeout=text).sample_timeout < threading.TIMEOUT_MAX


@pytest.mark.parametrize(
    "text", ["", "1d", "-5", "5 m", "1:30", "1:2:3", "h", "1e3", "5m\n", "00:75:00", "9" * 5000 + ":00:00"]
)
def test_duration_that_is_none_is_refused_with_the_option(text):
    with pytest.raises(ConfigError, match=r"--sample-timeout .*expected seconds"):
        Compute(sample_timeout=text)


def test_gates_are_handed_on_in_the_words_of_compare_nothing_lost():
    asked = {
        "max_flips": 0.0, "max_accuracy_drop": 2.5, "max_auroc_drop": 1.5, "max_class_auroc_drop": 4.0,
        "min_cam_similarity": -0.25, "min_class_similarity": 0.3, "max_accuracy_rise": 7.25, "min_accuracy": 80.5,
        "max_count_shift": 35.0, "same_setup": True, "decide": "proven-beyond", "confidence": 99.5,
        "max_group_drop": 5.0, "group_by": ("site", "age"), "min_compared": 0.0, "shared_classes": True,
        "cluster": "patient", "rename": ("a=b", "c=d=e"), "changed_inputs": "compare",
        "noise": ("first/run", "second/run"),
    }  # fmt: skip
    assert asked.keys() == {field.name for field in dataclasses.fields(Gates)}
    handed = cli.commands["compare"].make_context("compare", [*Gates(**asked).words, "old", "new"]).params
    assert dataclasses.asdict(Gates(**{name: handed[name] for name in asked})) == asked
    assert Gates().words == []
    assert Gates(max_flips="auto", min_cam_similarity="0.5").words == [
        *("--max-flips", "auto", "--min-cam-similarity", "0.5")
    ]
