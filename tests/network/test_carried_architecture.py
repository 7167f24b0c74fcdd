"""The network's name in other programs' checkpoints, as these programs write it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from batchcam.network.carried_architecture import carried_architecture
from batchcam.network.checkpoint import load_checkpoint

WEIGHTS = {"fc.weight": torch.zeros(3, 4)}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"arch": "resnet18", "state_dict": WEIGHTS, "epoch": 3}, ("arch", "resnet18")),
        ({"model": WEIGHTS, "args": argparse.Namespace(model="resnet50", lr=0.1)}, ("args.model", "resnet50")),
        ({"state_dict": WEIGHTS, "hyper_parameters": {"arch": "vgg11"}}, ("hyper_parameters.arch", "vgg11")),
        ({"arch": "a" * 101, "state_dict": WEIGHTS}, None),
        ({"model": WEIGHTS, "args": "resnet18"}, None),
        (WEIGHTS, None),
    ],
    ids=["imagenet example", "references", "lightning", "too long", "no table", "bare"],
)
def test_name_is_found_where_other_programs_write_it(content, expected, tmp_path: Path):
    torch.save(content, tmp_path / "model.pth")
    assert load_checkpoint(tmp_path / "model.pth").carried_architecture == expected


def test_nothing_is_found_in_what_is_no_table():
    assert carried_architecture([1]) is None
