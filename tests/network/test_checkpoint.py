"""Checkpoints: every layout that is loaded, everything that is refused, and that nothing in them runs."""

from __future__ import annotations

import argparse
import bz2
import collections
import datetime
import decimal
import enum
import fractions
import gzip
import hashlib
import io
import json
import lzma
import os
import pathlib
import pickle
import random
import struct
import subprocess
import sys
import textwrap
import uuid
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from batchcam.errors import CheckpointError
from batchcam.network.checkpoint import load_checkpoint, pack_checkpoint
from batchcam.network.weights_file import load_raw
from tests.helpers.networks import GapNetwork, seeded

PREPROCESSING = {"resize": [32], "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
MEBIBYTE = 2**20


@pytest.fixture
def state() -> dict[str, Tensor]:
    return seeded(GapNetwork).state_dict()


def saved(path: Path, content: object, **options) -> Path:
    torch.save(content, path, **options)
    return path


def same(loaded, expected: dict[str, Tensor]) -> bool:
    return list(loaded) == list(expected) and all(torch.equal(loaded[k], v) for k, v in expected.items())


def refusal(path: Path) -> str:
    """Load `path`, expect a refusal, and return its message after the checks that every message has to pass."""
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.splitlines() == [message]
    assert message.isprintable()
    assert "weights_only" not in message
    assert "trust" not in message
    assert len(message) < len(str(path)) + 400
    return message


def test_plain_state_dict_is_loaded_with_its_digest(tmp_path, state):
    path = saved(tmp_path / "a.pth", state)
    loaded = load_checkpoint(path)
    assert same(loaded.state, state)
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.architecture, loaded.class_names, loaded.preprocessing, loaded.training) == (None, None, None, {})


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["model", "state_dict", "model_ema"])
def test_state_dict_is_found_under_the_usual_keys(tmp_path, state, key, legacy):
    path = saved(tmp_path / "a.pth", {"epoch": 3, key: state}, _use_new_zipfile_serialization=not legacy)
    assert same(load_checkpoint(path).state, state)


def test_usual_key_that_holds_something_else_is_passed_over(tmp_path, state):
    path = saved(tmp_path / "a.pth", {"model": {"name": "resnet18"}, "state_dict": state})
    assert same(load_checkpoint(path).state, state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_come_off(tmp_path, state, prefix):
    path = saved(tmp_path / "a.pth", {prefix + k: v for k, v in state.items()})
    assert same(load_checkpoint(path).state, state)


def test_prefix_that_not_all_keys_have_stays(tmp_path, state):
    mixed = {("module." if k.startswith("head") else "") + k: v for k, v in state.items()}
    assert same(load_checkpoint(saved(tmp_path / "a.pth", mixed)).state, mixed)


def test_averaged_model_of_torchvisions_reference_training_is_loaded(tmp_path, state):
    averaged = AveragedModel(seeded(GapNetwork))
    assert "n_averaged" in averaged.state_dict()
    path = saved(tmp_path / "a.pth", {"model_ema": averaged.state_dict(), "epoch": 1})
    assert same(load_checkpoint(path).state, state)


def test_reference_checkpoint_of_torchvision_with_its_arguments_is_loaded(tmp_path, state):
    optimizer = torch.optim.SGD(seeded(GapNetwork).parameters(), lr=0.1, momentum=0.9)
    arguments = argparse.Namespace(data_path="/data", lr=0.1, model="resnet18", amp=False)
    content = {"model": state, "optimizer": optimizer.state_dict(), "epoch": 9, "args": arguments, "scaler": None}
    assert same(load_checkpoint(saved(tmp_path / "a.pth", content)).state, state)


class History(dict):
    """What libraries keep beside weights: a mapping with a class and a state of its own."""

    def __init__(self) -> None:
        super().__init__(loss=[1.0])
        self.owner = self


class Level(enum.IntEnum):
    FIRST = 1


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch no longer likes to make them
    QUANTISED = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)

METADATA = {
    "NumPy scalar": np.float64(93.2),
    "NumPy array": np.eye(3),
    "NumPy array of objects": np.array([{"a": 1}, None], dtype=object),
    "NumPy generator's state": np.random.default_rng(0).bit_generator.state,
    "path": pathlib.PurePosixPath("/data"),
    "time": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "table with a default": collections.defaultdict(list, {"loss": [1.0]}),
    "counter": collections.Counter("abca"),
    "queue": collections.deque([1, 2], 5),
    "mapping of a class": History(),
    "arguments": argparse.Namespace(data=pathlib.PurePosixPath("/data"), inner=argparse.Namespace()),
    "enumeration": {Level.FIRST: Level.FIRST},
    "fraction": fractions.Fraction(1, 3),
    "decimal": decimal.Decimal("0.1"),
    "identity": uuid.UUID(int=7),
    "class": nn.ReLU,
    "function": torch.nn.functional.relu,
    "module": nn.Linear(2, 2),
    "generator": random.Random(0),
    "data type": np.dtype("float32"),
    "sparse tensor": torch.eye(3).to_sparse(),
    "tensor of another device": torch.zeros(2, device="meta"),
    "quantised tensor": QUANTISED,
    "keys of tuples": {(0, (1, 2)): 3, frozenset({1}): 4},
    "bytes": b"\x00\xff",
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", METADATA)
def test_weights_are_read_beside_objects_of_any_library_of_which_none_is_made(
    tmp_path, state, kind, protocol, legacy, monkeypatch
):
    path = tmp_path / "a.pth"
    content = {"before": METADATA[kind], "state_dict": state, "after": [METADATA[kind]]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on quantised tensors
        saved(path, content, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    monkeypatch.setattr(pickle, "_getattribute", None)
    monkeypatch.setattr("builtins.__import__", None)
    try:
        loaded = load_checkpoint(path)
    finally:
        monkeypatch.undo()
    assert same(loaded.state, state)


def test_file_is_read_as_torch_reads_it(tmp_path, state):
    half = torch.arange(24.0).reshape(2, 3, 4)
    content = {
        "state_dict": {**state, "view": half[:, 1:], "turned": half.movedim(0, 2), "none": torch.empty(0, 3),
                       "number": torch.tensor(7)},
        **{str(t): torch.arange(6).reshape(2, 3).to(t) for t in (torch.bfloat16, torch.uint8, torch.complex64,
                                                                torch.bool, torch.float8_e4m3fn, torch.uint16)},
        "plain": [1, -1, 2**40, 10**30, 2.5, "é", None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, []],
    }  # fmt: skip
    for legacy in (False, True):
        path = saved(tmp_path / "a.pth", content, _use_new_zipfile_serialization=not legacy)
        ours = load_raw(path, path.read_bytes())
        theirs = content if legacy else torch.load(path, weights_only=True)  # which reads no float8 of the older format
        assert list(ours) == list(theirs)
        assert ours["plain"] == theirs["plain"]
        for name in content.keys() - {"plain", "state_dict"}:
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].tolist() == theirs[name].tolist()
        assert same(ours["state_dict"], theirs["state_dict"])


def test_damaged_values_are_noticed_and_values_without_a_checksum_are_read(tmp_path, state):
    path = saved(tmp_path / "a.pth", state)
    data = bytearray(path.read_bytes())
    where = data.index(state["head.weight"].numpy().tobytes())
    data[where] ^= 1
    path.write_bytes(data)
    assert "CRC" in refusal(path)
    torch.serialization.set_crc32_options(False)
    try:
        saved(path, state)
    finally:
        torch.serialization.set_crc32_options(True)
    assert same(load_checkpoint(path).state, state)


def test_weights_by_the_older_ways_of_naming_tensors_are_read(tmp_path, state):
    """Parameters with attributes, and Python 2's ordered dicts, as lists of pairs."""
    parameter = nn.Parameter(torch.ones(2, 2))
    parameter.decay = False
    assert (
        load_checkpoint(saved(tmp_path / "a.pth", {"w.weight": parameter})).state["w.weight"].tolist() == [[1, 1]] * 2
    )
    pairs = [[k, v] for k, v in state.items()]
    assert same(load_checkpoint(saved(tmp_path / "b.pth", {"model": Attack(OrderedDict, pairs)})).state, state)


SAVE = "torch.save(network.state_dict(), 'weights.pth')"


def zip_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def numpy_archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"fc.weight": np.ones((2, 2))})
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "what", "line"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 4\n", "Git LFS pointer", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><head><title>Sign in", "page of the web", "download the file itself"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "page of the web", "download the file itself"),
        (b'{"metadata": {"total_size": 1}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
         "index of weights in several files", "safetensors.torch.save_file("),
        (b'{"architectures": ["ResNet"]}', "JSON text", "no weights"),
        (gzip.compress(b"weights"), "compressed file", "unpack it"),
        (lzma.compress(b"weights"), "compressed file", "unpack it"),
        (bz2.compress(b"weights"), "compressed file", "unpack it"),
        (bytes(257) + b"ustar" + bytes(1000), "tar archive", "unpack it"),
        (numpy_archive(), "archive of NumPy arrays (.npz)", "torch.from_numpy"),
        (b"\x93NUMPY\x01\x00" + bytes(100), "NumPy array", "torch.from_numpy"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5 file", SAVE),
        (b"\x08\x0a\x12\x07pytorch\x1a\x052.4.0" + bytes(100), "ONNX network", SAVE),
        (b"\x1c\x00\x00\x00TFL3" + bytes(100), "another runtime", SAVE),
        (b"GGUF\x03\x00\x00\x00" + bytes(100), "another runtime", SAVE),
        (bytes(4096), "zeros", "broke off"),
        (b"", "empty file", "broke off"),
        (zip_of(**{"m/code/x.py": b"", "m/constants.pkl": b""}), "TorchScript archive", SAVE),
        (zip_of(**{"m/models/model.json": b"{}", "m/version": b"0"}), "exported program", "torch.export.load("),
        (zip_of(**{"serialized_exported_program.json": b"{}"}), "exported program", "torch.export.load("),
        (zip_of(**{"config.json": b"{}", "model.weights.h5": b""}), "Keras", SAVE),
        (zip_of(**{"run7/best.ckpt": b""}), "zip archive with a checkpoint in it", "unpack it"),
        (pickle.dumps({"fc.weight": np.ones((2, 2))}), "torch.save did not write", SAVE),
        (pickle.dumps({"fc.weight": [1.0]}), "torch.save did not write", SAVE),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,  # the bytes of archives state the time
)  # fmt: skip
def test_file_of_another_kind_is_named_with_the_line_that_makes_a_checkpoint_of_it(
    tmp_path, content, what, line, suffix
):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    message = refusal(path)
    assert what in message
    assert line in message


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["model-00001-of-00002.safetensors", "model.safetensors.index.json"], "weights in several files: merge them"),
        (["pytorch_model.bin.index.json"], "weights in several files"),
        (["checkpoint-3/config.json", "checkpoint-3/model.safetensors"], "such as checkpoint-3"),
        (["fsdp_0/.metadata", "fsdp_0/__0_0.distcp", "optimizer.bin"], "such as fsdp_0"),
        (["version_0/checkpoints/last.ckpt", "hparams.yaml"], "such as version_0/checkpoints/last.ckpt"),
        (["optimizer.bin", "rng_state.pth", "weights.pt"], "such as weights.pt"),
        (["latest", "zero_to_fp32.py", "global_step9/x.pt"], "python zero_to_fp32.py . weights"),
        (["__0_0.distcp", ".metadata"], "dcp_to_torch"),
        (["saved_model.pb"], "TensorFlow"),
        (["README.md", "model.safetensors"], "name the checkpoint in it, such as model.safetensors"),
        ([], "name the checkpoint in it"),
    ],
)
def test_folder_is_named_for_what_it_is(tmp_path, names, what):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert what in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"model": nn.Linear(2, 2), "ema": None}, "an object of torch.nn.modules.linear.Linear"),
        ({"fc.weight": QUANTISED}, "fc.weight is quantised"),
        ({"state_dict": {"fc.weight": np.ones((2, 2))}}, "fc.weight is a NumPy array: where the table"),
        (torch.optim.Adam(nn.Linear(2, 2).parameters()).state_dict(), "optimizer's state"),
    ],
    ids=["network", "quantised", "NumPy", "optimizer"],
)
def test_torch_file_without_weights_to_read_says_what_it_holds(tmp_path, content, what):
    assert what in refusal(saved(tmp_path / "a.pth", content))


def test_kind_of_a_file_is_told_by_its_content_and_not_by_its_name(tmp_path, state):
    assert same(load_checkpoint(saved(tmp_path / "a.safetensors", state)).state, state)
    safetensors.torch.save_file(state, tmp_path / "b.pth")
    assert load_checkpoint(tmp_path / "b.pth").state.keys() == state.keys()


def test_parameters_and_ordered_dicts_are_tensors_by_name_too(tmp_path, state):
    content = OrderedDict((k, torch.nn.Parameter(v)) for k, v in state.items())
    assert same(load_checkpoint(saved(tmp_path / "a.pth", content)).state, state)


def test_own_checkpoint_says_everything_and_loads_with_weights_only(tmp_path, state):
    training = {"epoch": 2, "val_accuracy": 0.75}
    path = tmp_path / "a.pth"
    path.write_bytes(pack_checkpoint(state, "resnet18", ("ant", "bee"), PREPROCESSING, training, optimizer={"lr": 1}))
    loaded = load_checkpoint(path)
    assert same(loaded.state, state)
    assert (loaded.architecture, loaded.class_names) == ("resnet18", ("ant", "bee"))
    assert (loaded.preprocessing, loaded.training) == (PREPROCESSING, training)
    assert torch.load(path, weights_only=True)["optimizer"] == {"lr": 1}


def test_same_content_is_packed_into_the_same_bytes(state):
    arguments = (state, "resnet18", ("ant", "bee"), PREPROCESSING, {"epoch": 1})
    assert pack_checkpoint(*arguments) == pack_checkpoint(*arguments)


def test_bytes_are_the_same_when_part_of_the_content_was_read_from_a_checkpoint() -> None:
    epochs = [{"epoch": number, "train_loss": 0.5, "note": "good"} for number in (1, 2)]
    about = ("resnet18", ("ant", "bee"), PREPROCESSING)
    once = pack_checkpoint({"weight": torch.ones(2)}, *about, {"history": epochs}, optimizer={"groups": [{"lr": 0.1}]})
    read = load_raw(Path("model.pth"), once)
    again = pack_checkpoint(read["model"], *about, read["batchcam"]["training"], optimizer=read["optimizer"])
    assert again == once
    resumed = [read["batchcam"]["training"]["history"][0], epochs[1]]
    assert pack_checkpoint(read["model"], *about, {"history": resumed}, optimizer=read["optimizer"]) == once


def test_safetensors_without_metadata_is_loaded(tmp_path, state):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state, path)
    loaded = load_checkpoint(path)
    assert same(dict(sorted(loaded.state.items())), dict(sorted(state.items())))
    assert loaded.architecture is None


def test_safetensors_metadata_says_what_a_checkpoint_of_ours_says(tmp_path, state):
    about = {"version": 1, "architecture": "resnet18", "class_names": ["ant", "bee"], "preprocessing": PREPROCESSING}
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state, path, {"batchcam": json.dumps(about), "format": "pt"})
    loaded = load_checkpoint(path)
    assert (loaded.architecture, loaded.class_names) == ("resnet18", ("ant", "bee"))
    assert loaded.preprocessing == PREPROCESSING


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_checkpoint_of_a_newer_format_is_refused(tmp_path, state, suffix):
    path, about = tmp_path / f"a{suffix}", {"version": 99, "architecture": "resnet18"}
    if suffix == ".pth":
        saved(path, {"batchcam": about, "model": state})
    else:
        safetensors.torch.save_file(state, path, {"batchcam": json.dumps(about)})
    assert "checkpoint format 99" in refusal(path)


@pytest.mark.parametrize(
    "about",
    [{"architecture": ["resnet18"]}, {"class_names": 7}, {"class_names": "ant"}, {"preprocessing": "imagenet"},
     {"training": [1]}],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_checkpoint_whose_own_description_has_the_wrong_types_is_refused(tmp_path, state, about, suffix):
    path, about = tmp_path / f"a{suffix}", {"version": 1, **about}
    if suffix == ".pth":
        saved(path, {"batchcam": about, "model": state})
    else:
        safetensors.torch.save_file(state, path, {"batchcam": json.dumps(about)})
    assert next(k for k in about if k != "version") in refusal(path)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.pth")
    assert "directory" in refusal(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"dear diary\n" * 100, b"P", b"PK", b"PK\x03\x04", bytes(1000), b"\x80\x02."])
def test_file_that_is_no_checkpoint_is_refused_in_one_line(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_checkpoint_is_refused(tmp_path, state, kind, share):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        saved(path, state, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refusal(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_checkpoint_is_loaded_or_refused_and_nothing_else(tmp_path, state, kind):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        saved(path, state, _use_new_zipfile_serialization=kind == "zip")
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 4, 32])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert str(error).splitlines() == [str(error)]  # noqa: PT017


def test_zip_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("holiday.txt", "sunny")
    assert "not a checkpoint" in refusal(path)


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 * MEBIBYTE))
    assert path.stat().st_size < MEBIBYTE
    assert f"unpacks to {64 * MEBIBYTE} bytes" in refusal(path)


def test_torchscript_archive_is_refused_without_advice_to_run_it(tmp_path):
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/constants.pkl", pickle.dumps((), 2))
        archive.writestr("archive/version", "3")
    message = refusal(path)
    assert "TorchScript archive" in message
    assert "torch.jit" not in message


class Attack:
    """Pickles into a call."""

    def __init__(self, function, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def legacy_file(path: Path, content: object, protocol: int = 2) -> None:
    """Write what torch.save wrote before it wrote zips: magic number, version, machine, content, keys of storages."""
    with path.open("wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, content, []):
            pickle.dump(part, file, protocol)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("kind", ["zip", "legacy", "bare"])
@pytest.mark.parametrize("attack", ["system", "mkdir", "open", "eval", "import"])
def test_pickle_that_would_call_something_is_refused_and_nothing_runs(tmp_path, kind, attack, protocol):
    trace = tmp_path / "it-ran"
    content = {
        "system": Attack(os.system, f"touch {trace}"),
        "mkdir": Attack(os.mkdir, str(trace)),
        "open": Attack(open, str(trace), "w"),
        "eval": Attack(eval, f"open({str(trace)!r}, 'w')"),
        "import": Attack(__import__, "antigravity"),
    }[attack]
    path = tmp_path / "a.pth"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"model": content}, protocol))
            archive.writestr("archive/version", "3")
            archive.writestr("archive/byteorder", "little")
    elif kind == "legacy":
        legacy_file(path, {"model": content}, protocol)
    else:
        path.write_bytes(pickle.dumps({"model": content}, protocol))
    message = refusal(path)
    assert not trace.exists()
    assert "antigravity" not in sys.modules
    if protocol == 2:
        assert "refused: it holds more than tensors and plain values" in message


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_pickle_that_asks_for_a_gigantic_bytearray_is_refused(tmp_path, kind):
    """torch counts bytearray among the plain values, and gives one of any size."""
    content, path = {"model": Attack(bytearray, 10**12)}, tmp_path / "a.pth"
    if kind == "legacy":
        legacy_file(path, content)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, 2))
            archive.writestr("archive/version", "3")
    assert "bytearray" in refusal(path)


def test_attack_files_of_these_tests_do_run_when_unpickled_carelessly(tmp_path):
    trace = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Attack(os.mkdir, str(trace)), 2))
    assert trace.exists()


def test_whole_pickled_network_is_refused(tmp_path):
    path = saved(tmp_path / "a.pth", seeded(GapNetwork))
    assert "refused: it holds more than tensors and plain values" in refusal(path)


@pytest.mark.parametrize("content", [{}, [], 5, None, {"model": {}}, {"a": 1}, {"model": [1]}, {1: torch.zeros(1)}])
def test_file_without_a_state_dict_says_where_one_is_looked_for(tmp_path, content):
    message = refusal(saved(tmp_path / "a.pth", content))
    assert "holds no state dict" in message
    assert "model, state_dict, model_ema" in message


def test_bare_tensor_is_no_state_dict(tmp_path):
    assert "holds no state dict" in refusal(saved(tmp_path / "a.pth", torch.zeros(3)))


def test_tensor_that_claims_more_values_than_the_file_holds_is_refused(tmp_path):
    path = saved(tmp_path / "a.pth", {"fc.weight": torch.zeros(1).expand(10**9, 512)})
    assert path.stat().st_size < MEBIBYTE
    assert "fc.weight" in refusal(path)


def test_tensors_that_share_their_values_as_tied_weights_do_are_loaded(tmp_path):
    values = torch.arange(12.0)
    content = {"a.weight": values.view(3, 4), "b.weight": values.view(3, 4), "c.weight": values.view(4, 3).t()}
    assert same(load_checkpoint(saved(tmp_path / "a.pth", content)).state, content)


def test_tensors_without_plain_values_are_refused_by_name(tmp_path):
    assert "fc.weight" in refusal(saved(tmp_path / "a.pth", {"fc.weight": torch.zeros(3, 3, device="meta")}))
    assert "_rebuild_sparse_tensor" in refusal(saved(tmp_path / "b.pth", {"fc.weight": torch.eye(3).to_sparse()}))


def test_keys_with_control_characters_do_not_reach_the_message(tmp_path, state):
    path = saved(tmp_path / "a.pth", {"a\nb\x1b[2J": torch.zeros(1).expand(10**9)})
    refusal(path)


def safetensors_bytes(header: object, length: int | None = None, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "data",
    [
        safetensors_bytes({}, length=2**63),
        safetensors_bytes({}, length=10**9),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [10**9, 512], "data_offsets": [0, 2048 * 10**9]}}),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [10**9, 512], "data_offsets": [0, 4]}}, data=bytes(4)),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}}, data=bytes(4)),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, data=bytes(4)),
        safetensors_bytes({"w": {"dtype": "NO", "shape": [1], "data_offsets": [0, 4]}}, data=bytes(4)),
        safetensors_bytes({"__metadata__": {"batchcam": "{"}}),
        safetensors_bytes([1]),
        safetensors_bytes({}),
    ],
    ids=["header 2^63", "header 1 GB", "2 TB", "size and shape", "overflow", "backwards", "dtype", "json", "list", "0"],
)
def test_hostile_safetensors_file_is_refused(tmp_path, data):
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    refusal(path)


def test_hostile_sizes_cost_no_memory(tmp_path, state):
    """A fresh process may only use 600 MiB more than it had: 2 TB, 1 GB and 64 MB claims stay claims."""
    (tmp_path / "a.safetensors").write_bytes(
        safetensors_bytes({"w": {"dtype": "F32", "shape": [10**9, 512], "data_offsets": [0, 2048 * 10**9]}})
    )
    (tmp_path / "b.safetensors").write_bytes(safetensors_bytes({}, length=10**9))
    saved(tmp_path / "c.pth", {"fc.weight": torch.zeros(1).expand(10**9, 512)})
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(1000)}, buffer, _use_new_zipfile_serialization=False)
    (tmp_path / "d.pth").write_bytes(buffer.getvalue()[:-3000])
    program = """
        import pathlib, resource, sys
        from batchcam.network.checkpoint import load_checkpoint
        from batchcam.errors import CheckpointError
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            try:
                load_checkpoint(path)
                sys.exit(f"{path} was loaded")
            except CheckpointError:
                pass
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        sys.exit(f"{grown} MiB" if grown > 100 else 0)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
