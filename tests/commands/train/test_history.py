"""What the epochs of a training say: the best one, and whether the network learned by heart."""

from __future__ import annotations

import pytest

from batchcam.commands.train.history import best_of, is_learned_by_heart


def epoch(number: int, train: float = 0.5, val: float | None = None, loss: float = 1.0, samples: int | None = 30):
    return {
        "epoch": number, "train_accuracy": train, "val_accuracy": val, "val_loss": None if val is None else loss,
        "val_samples": None if val is None else samples,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("validations", "best"),
    [
        ([(0.5, 1.0), (0.7, 2.0), (0.6, 0.1)], 2),
        ([(0.5, 1.0), (0.5, 1.0)], 1),
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),
        ([(None, 0), (0.1, 1.0), (None, 0)], 2),
        ([(None, 0), (None, 0)], 2),
    ],
)
def test_the_best_epoch_is_the_first_of_the_highest_accuracy_and_the_lowest_loss(validations, best) -> None:
    history = [epoch(k, val=val, loss=loss) for k, (val, loss) in enumerate(validations, 1)]
    assert best_of(history)["epoch"] == best


@pytest.mark.parametrize(
    ("train", "val", "samples", "chance", "learned"),
    [
        (1.0, 0.233, 30, 1 / 3, True),
        (1.0, 0.233, 30, 0.1, True),
        (1.0, 0.52, 100, 0.5, True),  # two classes: as good as a coin
        (1.0, 0.9, 100, 0.9, True),  # one of them nine times as frequent
        (1.0, 0.85, 1000, 0.1, False),
        (1.0, 0.95, 100, 0.9, False),
        (0.94, 0.1, 1000, 0.1, False),  # has not learned
        (1.0, 0.5, 2, 0.5, False),  # one of two: a good network may do that
        (1.0, 0.2, None, 0.1, None),  # a version that did not count
        (1.0, None, 30, None, None),
    ],
)
def test_learned_by_heart_is_what_knows_its_images_and_is_not_half_way_from_chance_on_others(
    train, val, samples, chance, learned
) -> None:
    history = [epoch(1, 0.3, val, samples=samples), epoch(2, train, val, samples=samples)]
    assert is_learned_by_heart(history, history[0], chance) is learned
