"""Class names that other programs' checkpoints carry: which count, and where they are found."""

from __future__ import annotations

import argparse
import time
from typing import Any

import pytest
import torch

from batchcam.network.carried_names import carried_names
from batchcam.network.checkpoint import load_checkpoint

NAMES = ("cat", "ant", "bee")


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ({"classes": ["cat", "ant", "bee"]}, "classes"),
        ({"classes": NAMES}, "classes"),
        ({"class_names": list(NAMES)}, "class_names"),
        ({"class_to_idx": {"ant": 1, "bee": 2, "cat": 0}}, "class_to_idx"),
        ({"idx_to_class": {0: "cat", 1: "ant", 2: "bee"}}, "idx_to_class"),
        ({"config": {"id2label": {"2": "bee", "0": "cat", "1": "ant"}}}, "config.id2label"),
        ({"meta": {"dataset_meta": {"classes": NAMES}}}, "meta.dataset_meta.classes"),
        ({"hyper_parameters": {"label2id": {"ant": 1, "bee": 2, "cat": 0}}}, "hyper_parameters.label2id"),
    ],
)
def test_names_are_found_in_the_order_of_their_indices(content, where, tmp_path):
    assert carried_names(content) == {where: NAMES}
    torch.save({"state_dict": {"fc.weight": torch.zeros(3, 2)}, **content}, tmp_path / "m.pth")
    assert load_checkpoint(tmp_path / "m.pth").carried_names == {where: NAMES}


@pytest.mark.parametrize(
    "content",
    [
        {"classes": 3},
        {"classes": []},
        {"classes": ["ant", "ant"]},
        {"classes": ["ant", 7]},
        {"classes": torch.arange(3)},
        {"class_to_idx": {"ant": 0, "bee": 2}},
        {"class_to_idx": {"ant": 0, "bee": 0}},
        {"class_to_idx": {"ant": 1, "bee": 2}},
        {"class_to_idx": {"ant": 0.0, "bee": 1.0}},
        {"class_to_idx": {"ant": False, "bee": True}},
        {"id2label": {0: "LABEL_0", 1: "LABEL_1"}},
        {"id2label": {"0": "ant", 0: "bee"}},
        {"id2label": ["ant"]},
        {"a": {"b": {"c": {"classes": list(NAMES)}}}},
        {"args": argparse.Namespace(classes=list(NAMES))},
        [NAMES],
        None,
    ],
    ids=str,
)
def test_what_names_no_classes_one_by_one_is_not_taken(content: Any):
    assert carried_names(content) == {}


def test_table_that_holds_itself_or_one_a_thousand_times_is_searched_once():
    content: dict[str, Any] = {}
    content["again"] = content
    assert carried_names(content) == {}
    for _ in range(3):
        content = {str(key): content for key in range(1000)}
    start = time.monotonic()
    assert carried_names(content) == {}
    assert time.monotonic() - start < 1
