"""What `train` is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchcam.commands.train.config import TrainConfig
from batchcam.errors import EXIT_USAGE, ConfigError

NAN, INFINITY = float("nan"), float("inf")


def test_defaults_of_training_are_the_seeds_recipe():
    config = TrainConfig("data", Path("out"))
    recipe = (config.arch, config.epochs, config.batch_size, config.learning_rate, config.weight_decay)
    assert recipe == ("resnet18", 20, 40, 1e-4, 1e-2)


@pytest.mark.parametrize(
    ("change", "option"),
    [({"epochs": 0}, "--epochs"), ({"batch_size": 1}, "--batch-size"), ({"val_fraction": 1}, "--val-fraction"),
     ({"val_fraction": -0.1}, "--val-fraction"), ({"val_fraction": NAN}, "--val-fraction"),
     ({"learning_rate": 0}, "--learning-rate"), ({"learning_rate": NAN}, "--learning-rate"),
     ({"learning_rate": INFINITY}, "--learning-rate"), ({"weight_decay": -1}, "--weight-decay"),
     ({"weight_decay": NAN}, "--weight-decay"), ({"weight_decay": INFINITY}, "--weight-decay"),
     ({"seed": -1}, "--seed"), ({"seed": 2**32}, "--seed"), ({"workers": -1}, "--workers"),
     ({"threads": 0}, "--threads"), ({"preprocess": "none"}, "--preprocess"), ({"mean": "grey"}, "--mean")],
)  # fmt: skip
def test_training_that_can_not_be_meant_is_refused_by_name(change, option):
    with pytest.raises(ConfigError, match=option) as error:
        TrainConfig("data", Path("out"), **change)
    assert error.value.exit_code == EXIT_USAGE
