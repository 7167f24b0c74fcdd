"""Configurations: what can't be meant is refused when it is built, by the option's name."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest

from batchcam.commands.demo.config import DemoConfig
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.verify.config import VerifyConfig
from batchcam.config import Classifier, Compute, parse_duration, parse_size, parse_triple
from batchcam.errors import EXIT_USAGE, ConfigError

CHECKPOINT, OUT = Path("a.pth"), Path("out")
NAN, INFINITY = float("nan"), float("inf")


def test_defaults_of_every_configuration_are_accepted():
    classifier = Classifier(CHECKPOINT)
    for config in (
        ExplainConfig(classifier, "data", OUT),
        TrainConfig("data", OUT),
        EvaluateConfig(classifier, "data"),
        VerifyConfig(OUT),
        DemoConfig(OUT),
    ):
        assert dataclasses.is_dataclass(config)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.quiet = True  # type: ignore[misc]


def test_defaults_of_training_are_the_seeds_recipe():
    config = TrainConfig("data", OUT)
    recipe = (config.arch, config.epochs, config.batch_size, config.learning_rate, config.weight_decay)
    assert recipe == ("resnet18", 20, 40, 1e-4, 1e-2)


def test_arch_and_model_exclude_each_other():
    with pytest.raises(ConfigError, match=r"--arch and --model exclude each other"):
        Classifier(CHECKPOINT, arch="resnet18", model="a:b")


@pytest.mark.parametrize(
    ("change", "option"),
    [({"batch_size": 0}, "--batch-size 0"), ({"batch_size": -1}, "--batch-size -1"), ({"workers": -1}, "--workers -1"),
     ({"threads": 0}, "--threads 0"), ({"precision": "fp8"}, "--precision fp8")],
)  # fmt: skip
def test_way_to_compute_that_can_not_be_meant_is_refused_by_name(change, option):
    with pytest.raises(ConfigError, match=option):
        Compute(**change)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", None])
def test_known_precisions_are_accepted(precision):
    assert Compute(precision=precision, workers=0).precision == precision


def test_empty_shards_are_refused():
    with pytest.raises(ConfigError, match=r"--shard-size 0"):
        ExplainConfig(Classifier(CHECKPOINT), "data", OUT, shard_size=0)


@pytest.mark.parametrize(
    ("change", "option"),
    [({"epochs": 0}, "--epochs"), ({"batch_size": 1}, "--batch-size"), ({"val_fraction": 1}, "--val-fraction"),
     ({"val_fraction": -0.1}, "--val-fraction"), ({"val_fraction": NAN}, "--val-fraction"),
     ({"learning_rate": 0}, "--learning-rate"), ({"learning_rate": NAN}, "--learning-rate"),
     ({"learning_rate": INFINITY}, "--learning-rate"), ({"weight_decay": -1}, "--weight-decay"),
     ({"weight_decay": NAN}, "--weight-decay"), ({"weight_decay": INFINITY}, "--weight-decay"),
     ({"seed": -1}, "--seed"), ({"seed": 2**32}, "--seed"), ({"workers": -1}, "--workers"),
     ({"threads": 0}, "--threads")],
)  # fmt: skip
def test_training_that_can_not_be_meant_is_refused_by_name(change, option):
    with pytest.raises(ConfigError, match=option) as error:
        TrainConfig("data", OUT, **change)
    assert error.value.exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    ("change", "message"),
    [({"recompute": -1}, "--recompute -1"), ({"recompute": 5}, "needs --checkpoint and --data"),
     ({"recompute": 5, "data": "data"}, "needs --checkpoint and --data"), ({"seed": -1}, "--seed")],
)  # fmt: skip
def test_verification_that_can_not_be_meant_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        VerifyConfig(OUT, **change)


@pytest.mark.parametrize("change", [{"seed": -1}, {"threads": 0}])
def test_demo_that_can_not_be_meant_is_refused(change):
    with pytest.raises(ConfigError, match=f"--{next(iter(change))}"):
        DemoConfig(OUT, **change)


@pytest.mark.parametrize(
    ("text", "size"), [("224", (224,)), ("240x320", (240, 320)), ("1", (1,)), ("99999x1", (99999, 1))]
)
def test_size_is_one_side_or_height_by_width(text, size):
    assert parse_size(text, "--resize") == size


@pytest.mark.parametrize(
    "text", ["", "0", "00", "0x5", "5x0", "5x00", "x5", "5x", "5X5", "-5", "5.5", "5x5x5", " 5", "5\n", "123456", "٣"]
)
def test_size_that_is_neither_is_refused_with_the_option(text):
    with pytest.raises(ConfigError, match=r"--resize .*expected N or HxW"):
        parse_size(text, "--resize")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0.5", (0.5, 0.5, 0.5)), ("0.485,0.456,0.406", (0.485, 0.456, 0.406)), ("1, 2, 3e-1", (1, 2, 0.3))],
)
def test_triple_is_three_numbers_or_one(text, numbers):
    assert parse_triple(text, "--mean") == numbers


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a", "1,,2", "1;2;3", "nan", "1,inf,2"])
def test_triple_that_is_neither_is_refused_with_the_option(text):
    with pytest.raises(ConfigError, match=r"--mean .*expected three numbers"):
        parse_triple(text, "--mean")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5h", 5400), ("15m", 900), ("2h", 7200), ("00:01:30", 90), ("100:00:00", 360000)],
)
def test_duration_is_read_as_schedulers_write_it(text, seconds):
    assert parse_duration(text, "--time-limit") == seconds


@pytest.mark.parametrize("text", ["999999999h", "999999999:00:00"])
def test_duration_of_an_eternity_is_one_that_timers_take(text):
    assert parse_duration(text, "--time-limit") < threading.TIMEOUT_MAX


@pytest.mark.parametrize("option", ["threads", "workers", "batch_size"])
def test_counts_beyond_what_torch_takes_are_refused(option):
    with pytest.raises(ConfigError, match=rf"--{option.replace('_', '-')} 1000000000000: must be at most"):
        Compute(**{option: 10**12})


def test_shards_larger_than_a_plan_takes_are_refused():
    with pytest.raises(ConfigError, match="--shard-size 1000000000000: must be at most"):
        ExplainConfig(Classifier(CHECKPOINT), "data", OUT, shard_size=10**12)


@pytest.mark.parametrize(
    "text", ["", "1d", "-5", "5 m", "1:30", "1:2:3", "h", "1e3", "5m\n", "00:75:00", "9" * 5000 + ":00:00"]
)
def test_duration_that_is_none_is_refused_with_the_option(text):
    with pytest.raises(ConfigError, match=r"--time-limit .*expected seconds"):
        parse_duration(text, "--time-limit")
