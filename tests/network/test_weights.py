"""Which tensors of a checkpoint are its weights: found, chosen and told, or refused with what there is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from batchcam.errors import CheckpointError
from batchcam.network.weights import find_weights

RAW, EMA = ({"fc.weight": torch.full((2, 2), float(i))} for i in (1, 2))
FILE_SIZE = 10**6


def chosen(content: object, key: str | None = None) -> tuple[float, str, tuple[str, ...]]:
    """Return the value of the weights that are found, their key, and what is told."""
    weights = find_weights(Path("w.pth"), content, FILE_SIZE, key)
    return weights.state["fc.weight"][0, 0].item(), weights.key, weights.remarks


@pytest.mark.parametrize(
    "content",
    [
        RAW,
        {"state_dict": RAW},
        {"model_state_dict": RAW, "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2, 2)}}}},
        {"net": RAW, "acc": 93.2, "epoch": 3},
        {"state": {"model": RAW}},
        {"learner": {"weights": RAW}, "callbacks": {"best": {"score.x": torch.ones(2, 2)}}},
        {"state_dict_ema": RAW},
        {"ema": {"shadow": RAW, "decay": 0.9}},
        {"anything": {**RAW, "n_averaged": torch.tensor(3)}},
        {**RAW, "epoch": 3, "note": "good", "best": None},
        {"model": RAW, "confusion": torch.eye(3), "history": [1.0]},
        {"model": {"name": "resnet"}, "params": RAW},
    ],
)
def test_only_weights_are_found_wherever_they_are_and_need_no_choice(content):
    assert chosen(content) == (1.0, "", ())


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_names_lose_what_wrappers_put_before_them_and_that_is_told(wrapper):
    wrapped = {"anything": {f"{wrapper}fc.weight": RAW["fc.weight"], "n_averaged": torch.tensor(3)}}
    assert chosen(wrapped) == (1.0, "", (f"weights: those under {wrapper!r}",))


@pytest.mark.parametrize(
    ("raw", "ema"),
    [("model", "model_ema"), ("state_dict", "state_dict_ema"), ("model", "ema"), ("params", "params_ema"),
     ("model_state_dict", "ema_state_dict"), ("net", "net_ema"), ("model", "swa_model"), ("model", "teacher")],
)  # fmt: skip
def test_weights_beside_their_average_are_taken_and_told_and_the_average_is_an_option(raw, ema):
    content = {ema: EMA, "epoch": 3, raw: RAW}
    value, key, remarks = chosen(content)
    assert (value, key) == (1.0, raw)
    assert remarks == (f"weights: {raw}; the checkpoint holds others too: --weights-key {ema} takes those",)
    assert chosen(content, ema) == (2.0, ema, ())
    assert chosen(content, raw) == (1.0, raw, ())


def test_average_that_lies_deeper_is_named_by_its_keys():
    content = {"model": RAW, "ema": {"shadow": EMA}}
    assert "--weights-key ema.shadow" in chosen(content)[2][0]
    assert chosen(content, "ema.shadow") == (2.0, "ema.shadow", ())


@pytest.mark.parametrize(
    "content",
    [{"student": RAW, "teacher": EMA}, {"model": RAW, "state_dict": EMA}, {"G": RAW, "D": EMA},
     {"ema": EMA, "ema_fast": RAW}],
)  # fmt: skip
def test_weights_of_several_networks_are_refused_with_their_keys(content):
    with pytest.raises(CheckpointError, match=f"say which with --weights-key {', '.join(content)}$"):
        chosen(content)
    for value, key in zip(
        (1.0, 2.0), (list(content) if content.get("ema") is None else ["ema_fast", "ema"]), strict=True
    ):
        assert chosen(content, key)[:2] == (value, key)


@pytest.mark.parametrize("key", ["student", "student.", "state_dict.student"])
def test_prefix_of_names_says_which_network_of_one_table_is_meant(key):
    both = {f"student.{k}": v for k, v in RAW.items()} | {f"teacher.{k}": v for k, v in EMA.items()}
    assert chosen({"state_dict": both}, key) == (1.0, key, ())


def test_key_that_is_not_there_is_answered_with_those_that_are():
    with pytest.raises(
        CheckpointError, match=r"--weights-key emma: no weights there; it holds state_dict, ema, .* fc$"
    ):
        chosen({"state_dict": RAW, "ema": EMA}, "emma")


def test_only_weights_by_their_name_are_no_choice():
    assert chosen({"state_dict": RAW}, "state_dict") == (1.0, "", ())
