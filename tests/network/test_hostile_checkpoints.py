"""Hostile checkpoints: refused in one line without time, memory or code; what looks like them and is none is loaded."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from batchcam.errors import CheckpointError
from batchcam.network import model, pickles, torch_file
from batchcam.network.checkpoint import load_checkpoint
from benchmarks.faults import checkpoints as hostile

WEIGHTS = {"fc.weight": torch.ones(4, 2)}


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["some", "all"])
def test_hostile_checkpoints_are_refused_without_time_memory_or_code(tmp_path, quick):
    outcome = hostile.hostile_checkpoints(SimpleNamespace(folder=tmp_path, quick=quick))
    assert outcome.cases > 20
    assert outcome.failures == {}


def test_judge_notices_a_checkpoint_that_is_loaded_code_that_ran_and_memory(tmp_path):
    path, canary = tmp_path / "good.pth", tmp_path / "canary"
    path.write_bytes(hostile.saved(WEIGHTS))
    assert hostile.wrong(path, "a.pth: refused", 0.1, 1.0, canary) == []
    canary.touch()
    assert len(hostile.wrong(path, None, 99.0, 9999.0, canary)) == 4


@pytest.mark.parametrize("name", list(hostile.claims()))
def test_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path, name):
    path = tmp_path / "a.pth"
    path.write_bytes(hostile.claims()[name])
    if "classes" not in name:
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_legacy_tensor_that_reaches_beyond_its_values_is_refused(tmp_path):
    data = hostile.saved({"fc.weight": torch.arange(4.0)}, _use_new_zipfile_serialization=False)
    path = tmp_path / "a.pth"
    path.write_bytes(data.replace(b"K\x04\x85", b"J" + (10**6).to_bytes(4, "little") + b"\x85"))
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_values_of_a_training_are_no_attack(tmp_path):
    network = torch.nn.Linear(2, 4)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "model": network.state_dict() | {"half": torch.ones(2).bfloat16()},
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5]).state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "plain": [b"bytes", 1j, {1, 2}, torch.Size([1]), torch.device("cpu"), torch.float16, None, True, 10**30],
        "random": torch.get_rng_state(),
    }  # fmt: skip
    for legacy in (False, True):
        path = tmp_path / "a.pth"
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        assert torch.equal(load_checkpoint(path).state["weight"], network.weight)


def test_every_name_that_is_called_is_one_that_torch_allows():
    allowed = set(torch._weights_only_unpickler._get_allowed_globals())
    assert set(torch_file._MAKERS) <= allowed


def test_pickle_of_more_opcodes_than_any_checkpoint_needs_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MOST_OPCODES", 100)
    with pytest.raises(ValueError, match="more than 100 opcodes"):
        torch_file.read_torch_file(b"\x80\x02" + b"]" * 200 + b".")


def test_many_classes_are_believed_where_the_other_tensors_fit():
    state = model.build_network("shufflenet_v2_x0_5", 12).state_dict()
    assert model.load_network("shufflenet_v2_x0_5", state, "w.pth")[0].fc.weight.shape[0] == 12
    for claim in ({"fc.weight": torch.ones(12, 1)}, {"fc.weight": torch.ones(10**6, 1)}):
        with pytest.raises(CheckpointError, match=r"fc\.weight"):
            model.load_network("shufflenet_v2_x0_5", state | claim, "w.pth")
