"""Checkpoints that somebody made to run code, to fill the memory, to take for ever, or to lie."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from .registry import Bench, Outcome, fault_class

MOST_SECONDS = 30.0
MOST_MIB = 400.0
CLAIM = 2**33
"""A number of floats that no test machine should ever fill."""

JUDGE = """
    import json, pathlib, resource, sys, time
    from batchcam.network.checkpoint import load_checkpoint
    from batchcam.network.model import load_network
    from batchcam.data.preprocessing import Preprocessing
    from batchcam.errors import BatchcamError
    resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
    for path in map(pathlib.Path, sys.argv[1:]):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            loaded = load_checkpoint(path)
            own = {k: v.tolist() for k, v in loaded.state.items()} == {"fc.weight": [[1, 1]] * 4}
            if own and "beside" in path.name:
                said = "loaded, as it should"
            else:
                load_network(loaded.architecture or "resnet18", loaded.state, "it")
                Preprocessing.from_dict(loaded.preprocessing or {})
                said = None
        except BatchcamError as error:
            said = str(error)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(json.dumps([said, time.process_time() - start, grown]), flush=True)
"""


class Call:
    """Pickles into a call."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of these members, under the folder that torch.save writes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def around(pickled: bytes) -> bytes:
    """Return a checkpoint whose pickle is `pickled`, with one stored tensor of four floats."""
    members = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(16), "version": b"3\n"}
    return zipped(members)


def legacy(content: bytes) -> bytes:
    """Return what torch before 1.6 would have saved around a pickled content."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    return b"".join([*parts, content, pickle.dumps([], 2)])


def saved(content: object, **options: object) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def attacks(canary: Path) -> dict[str, Call]:
    """Return calls that would touch `canary`, or do something that torch allows and nobody needs."""
    import builtins
    import codecs
    import runpy
    import shutil
    import timeit
    import webbrowser

    touch = f"open({str(canary)!r}, 'w')"
    return {
        "os.system": Call(os.system, f"touch {canary}"),
        "subprocess": Call(subprocess.check_call, ["touch", str(canary)]),
        "eval": Call(eval, touch),
        "exec": Call(exec, touch),
        "getattr": Call(builtins.getattr, "a", "upper"),
        "import": Call(__import__, "antigravity"),
        "open": Call(open, str(canary), "w"),
        "runpy": Call(runpy.run_path, str(canary)),
        "copy": Call(shutil.copy, "/etc/hostname", str(canary)),
        "timeit": Call(timeit.timeit, touch),
        "browser": Call(webbrowser.open, "http://127.0.0.1"),
        "torch.load": Call(torch.load, str(canary)),
        "torch.save": Call(torch.save, {}, str(canary)),
        "jit.load": Call(torch.jit.load, str(canary)),
        "bytearray": Call(bytearray, 10**12),
        "hex codec": Call(codecs.encode, b"ab", "hex"),
    }


def code(canary: Path) -> dict[str, bytes]:
    """Return checkpoints that would make these calls where their weights should be."""
    bodies = {name: {"model": call} for name, call in attacks(canary).items()}
    made = {f"{name}, zip": around(pickle.dumps(body, 2)) for name, body in bodies.items()}
    made |= {f"{name}, legacy": legacy(pickle.dumps(body, 2)) for name, body in bodies.items()}
    made |= {f"{name}, bare": pickle.dumps(body, 2) for name, body in bodies.items()}
    made |= {f"{name}, protocol 4": around(pickle.dumps(body, 4)) for name, body in bodies.items()}
    return made


def opcodes() -> dict[str, bytes]:
    """Return pickles by hand: what torch's own list allows, used to fill memory or time, and odd opcodes."""

    def reduced(name: str, arguments: bytes) -> bytes:
        return b"\x80\x02}X\x05\x00\x00\x00modelc" + name.replace("/", "\n").encode() + b"\n" + arguments + b"Rs."

    huge = b"\x8a\x08" + CLAIM.to_bytes(8, "little")
    doubling = b"X\x02\x00\x00\x00abX\x03\x00\x00\x00hex\x86R"
    bodies = {
        "FloatTensor of 32 GB": reduced("torch/FloatTensor", huge + b"\x85"),
        "Tensor of 32 GB": reduced("torch/Tensor", huge + b"\x85"),
        "bytes doubled by a codec": b"\x80\x02c_codecs\nencode\n" + doubling + b".",
        "copy to another type": reduced("torch._utils/_rebuild_device_tensor_from_cpu_tensor", b"(t"),
        "any function through a tensor's type": reduced("torch._tensor/_rebuild_from_type_v2", b"(t"),
        "quantised": reduced("torch._utils/_rebuild_qtensor", b"(t"),
        "wrapper subclass": reduced("torch._utils/_rebuild_wrapper_subclass", b"(t"),
        "INST": b"(S'true'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'true'\no.",
        "extension": b"\x80\x02\x82\x01.",
        "Python 2's names": b"\x80\x02c__builtin__\nbytearray\n" + huge + b"\x85R.",
        "name with a space": b"\x80\x02ccollections OrderedDict\nx\n)R.",
        "marks": b"\x80\x02" + b"(" * 2**20 + b".",
        "lists in lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "tuples in tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
        "text of 4 GB": b"\x80\x02X\xff\xff\xff\xffabc.",
        "missing memo": b"\x80\x02h\x07.",
        "empty stack": b"\x80\x020000.",
        "itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
    }
    made = {f"{name}, zip": around(body) for name, body in bodies.items()}
    return made | {f"{name}, legacy": legacy(body) for name, body in bodies.items()}


class Stateful:
    """Pickles into an object that would restore itself by code of its own."""

    def __getstate__(self) -> dict[str, object]:
        return {"command": "touch"}

    def __setstate__(self, state: dict[str, object]) -> None:
        raise AssertionError("restored")


def beside(canary: Path) -> dict[str, bytes]:
    """Return checkpoints of good weights beside something hostile, which is to be passed over, or refused."""
    good = zipfile.ZipFile(io.BytesIO(saved({"model": {"fc.weight": torch.ones(4, 2)}})))
    head, values = good.read("archive/data.pkl")[:-1], good.read("archive/data/0")

    def entry(body: bytes) -> bytes:
        pickled = head + b"X\x05\x00\x00\x00other" + body + b"s."
        return zipped({"data.pkl": pickled, "byteorder": b"little", "data/0": values, "version": b"3\n"})

    def call(name: str, arguments: bytes) -> bytes:
        return b"c" + name.replace("/", "\n").encode() + b"\n" + arguments + b"R"

    objects: dict[str, object] = {
        **attacks(canary),
        "restores itself": Stateful(),
        "a class": Stateful,
        "a function": os.system,
    }
    made = {f"{n}, protocol {p}": entry(pickle.dumps(o, p)[2:-1]) for n, o in objects.items() for p in (2, 4)}
    number = {n: b"\x8a\x08" + n.to_bytes(8, "little") for n in (CLAIM, 2**62)}
    million, memo = b"(" + b"K\x01" * 10**6 + b"lq\xff", b"h\xff"
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x00%sX\x03\x00\x00\x00cpu%stQ"
    laughs = b"(K\x01lq\xff" + b"0(" + b"(" + b"h\xff" * 10 + b"lq\xff" * 1
    deep = b")" + b"\x85" * 300_000
    colliding = b"".join(b"\x8a\x0a" + (i * (2**61 - 1)).to_bytes(10, "little") + b"N" for i in range(1, 100_000))
    tensor = "torch._utils/_rebuild_tensor_v2"
    one = storage % (b"0", b"K\x08")
    bodies = {
        "deep tuple": deep,
        "deep tuple as a key": b"}" + deep + b"K\x01s",
        "deep tuple as a storage's name": storage.replace(b"X\x01\x00\x00\x00%s", deep) % b"K\x01",
        "deep lists": b"]" * 200_000 + b"a" * 199_999,
        "lists that multiply": laughs + b"l",
        "itself": b"}q\xffX\x01\x00\x00\x00ah\xffs",
        "object that is its own state": b"cmine\nThing\n)\x81q\xffh\xffb",
        "keys of one hash": b"}(" + colliding + b"u",
        "keys without a hash": b"}]K\x01s",
        "size of a million, many times": million + b"0" + (call("torch/Size", memo + b"\x85") + b"0") * 1000 + b"N",
        "pairs, many times": b"("
        + b"K\x01K\x02\x86" * 10**5
        + b"lq\xff0"
        + (call("collections/OrderedDict", memo + b"\x85") + b"0") * 1000
        + b"N",
        "set of a million, many times": million + b"0" + (call("builtins/set", memo + b"\x85") + b"0") * 1000 + b"N",
        "text doubled": call("_codecs/encode", b"X\x02\x00\x00\x00abX\x03\x00\x00\x00hex\x86"),
        "bytearray of 8 GB": call("builtins/bytearray", number[CLAIM] + b"\x85"),
        "FloatTensor of 32 GB": call("torch/FloatTensor", number[CLAIM] + b"\x85"),
        "storage of 32 GB": storage % (b"0", number[CLAIM]),
        "storage that is not there": storage % (b"7", b"K\x01"),
        "storage outside": storage.replace(b"\x01\x00\x00\x00%s", b"\x0c\x00\x00\x00../../canary") % b"K\x01",
        "storage of a text's length": storage % (b"0", b"X\x03\x00\x00\x00abc"),
        "no storage": b"(X\x06\x00\x00\x00moduleq\xfftQ",
        "id in text": b"Pcanary\n",
        "tensor beyond its values": call(tensor, b"(" + one + b"K\x04K\x08\x85K\x01\x85\x89Nt"),
        "tensor before its values": call(tensor, b"(" + one + b"J\xff\xff\xff\xffK\x02\x85K\x01\x85\x89Nt"),
        "tensor of 2^62": call(tensor, b"(" + one + b"K\x00" + number[2**62] + b"\x85K\x00\x85\x89Nt"),
        "tensor of a million axes": million
        + b"\x85"
        + b"0"
        + call(tensor, b"(" + one + b"K\x00" + memo * 2 + b"\x89Nt"),
        "tensor of the same values": call(tensor, b"(" + one + b"K\x00K\x08\x85K\x01\x85\x89Nt"),
        "hooks": call(tensor, b"(" + one + b"K\x00K\x08\x85K\x01\x85\x89cos\nsystem\nt"),
        "part of torch by a dtype's name": call(
            "torch._utils/_rebuild_tensor_v3", b"(" + one + b"K\x00K\x08\x85K\x01\x85\x89Nctorch\n_dynamo\nt"
        ),
        "any function through a type": call("torch._tensor/_rebuild_from_type_v2", b"(cos\nsystem\nN)Nt"),
        "parameter of a call": call("torch._utils/_rebuild_parameter", b"(cos\nsystem\n\x89Nt"),
        "state of a torch function": b"ctorch._utils\n_rebuild_tensor_v2\n}X\x08\x00\x00\x00__code__Nsb",
        "state of a class": b"ctorch.nn.parameter\nParameter\n(N}X\x08\x00\x00\x00__init__cos\nsystem\nstb",
        "bytes in the pickle": call("torch.storage/_load_from_bytes", b"C\x05abcde\x85"),
        "OBJ": b"(cos\nsystem\nX\x04\x00\x00\x00trueo",
        "INST": b"(X\x04\x00\x00\x00trueios\nsystem\n",
        "extension": b"\x82\x01",
        "name of a megabyte": b"c" + b"x" * 2**20 + b"\nname\n",
        "name of control characters": b"X\x02\x00\x00\x00os\x8c\x07\x1b[2J\n\r.\x93",
        "a call of a number": b"K\x01)R",
        "a call without a tuple": b"cos\nsystem\nNR",
        "number of a hundred thousand digits": b"\x8b" + (10**5).to_bytes(4, "little") + b"\x7f" * 10**5,
        "memo of 2^31": b"Nr\xff\xff\xff\x7f",
        "buffer": b"\x97",
        "objects by the million": b"cmine\nThing\nq\xff0" + b"h\xff)\x81" * 10**6 + b"0" * (10**6 - 1),
    }
    return made | {name: entry(body) for name, body in bodies.items()}


def claims() -> dict[str, bytes]:
    """Return checkpoints whose tensors claim values that are not there."""
    four = torch.arange(4.0)

    def lied(size: int, *, offset: int = 0, stride: int = 1, stored: int = 4) -> bytes:
        pickled = zipfile.ZipFile(io.BytesIO(saved({"fc.weight": four}))).read("archive/data.pkl")

        def number(value: int) -> bytes:
            return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)

        old = b"K\x04tq\x07QK\x00K\x04\x85q\x08K\x01\x85q\t"
        assert old in pickled, pickled
        place = number(offset) + number(size) + b"\x85q\x08" + number(stride) + b"\x85q\t"
        new = number(stored) + b"tq\x07Q" + place
        return around(pickled.replace(old, new))

    sizes = {"a million floats": 10**6, "a gigabyte": 2**28, "32 GB": CLAIM, "2^62": 2**62, "negative": -4}
    made = {f"size {name}": lied(size) for name, size in sizes.items()}
    made |= {f"stored {name}": lied(4, stored=size) for name, size in sizes.items()}
    made |= {f"offset {name}": lied(4, offset=size) for name, size in sizes.items()}
    made |= {f"stride {name}": lied(4, stride=size) for name, size in sizes.items()}
    made["stride 0"] = lied(10**9, stride=0)
    made["expanded"] = saved({"fc.weight": torch.zeros(1).expand(10**9, 512)})
    made["expanded, legacy"] = saved({"w": torch.zeros(1).expand(10**9, 9)}, _use_new_zipfile_serialization=False)
    made["two million classes of one value"] = saved({"fc.weight": torch.zeros(2 * 10**6, 1)})
    made["sparse"] = saved({"fc.weight": torch.eye(3).to_sparse()})
    made["meta"] = saved({"fc.weight": torch.zeros(3, device="meta")})
    return made


def archives() -> dict[str, bytes]:
    """Return zips and tars that torch.save did not write."""
    good = zipfile.ZipFile(io.BytesIO(saved({"fc.weight": torch.ones(4, 2)})))
    members = {name.partition("/")[2]: good.read(name) for name in good.namelist()}
    whole = zipped(members)
    made = {
        "deflated 64 MiB": zipped({"data.pkl": bytes(2**26)}, zipfile.ZIP_DEFLATED),
        "bzip2": zipped({"data.pkl": bytes(2**26)}, zipfile.ZIP_BZIP2),
        "lzma": zipped({"data.pkl": bytes(2**26)}, zipfile.ZIP_LZMA),
        "deflated checkpoint": zipped(members, zipfile.ZIP_DEFLATED),
        "path traversal": zipped(members | {"../../canary": b"x"}),
        "TorchScript": zipped(members | {"constants.pkl": pickle.dumps((), 2)}),
        "without pickle": zipped({"version": b"3"}),
        "only the end record": b"PK\x05\x06" + bytes(18),
        "two zips in one": whole + whole[: len(whole) // 2],
    }
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO(whole)
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        made["member twice"] = buffer.getvalue()
    start = whole.rindex(b"PK\x01\x02")
    for name, offset in (("packed size", 20), ("size", 24), ("place", 42)):
        for value in (0xFFFFFFFF, 0x7FFFFFFF):
            made[f"{name} {value:#x}"] = (
                whole[: start + offset] + struct.pack("<I", value) + whole[start + offset + 4 :]
            )
    end = whole.rindex(b"PK\x05\x06")
    made["65535 members"] = whole[: end + 8] + b"\xff\xff\xff\xff" + whole[end + 12 :]
    made["directory beyond the end"] = whole[: end + 16] + b"\xf0\xff\xff\x7f" + whole[end + 20 :]
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive_tar:
        for name in ("storages", "tensors", "pickle", "../../canary"):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive_tar.addfile(entry, io.BytesIO(b"\x80\x02}."))
    made["legacy tar"] = tar.getvalue()
    return made | {f"cut at {share:.0%}": whole[: int(share * len(whole))] for share in (0.1, 0.5, 0.9, 0.99)}


def descriptions() -> dict[str, bytes]:
    """Return checkpoints whose own description of classes and preprocessing is hostile."""
    half = [0.5] * 3
    fine = {"resize": [8], "image_size": [8, 8], "mean": half, "std": half}
    laughs: list[object] = ["ha"]
    for _ in range(40):
        laughs = [laughs] * 10
    about = {
        "class names that multiply": {"class_names": laughs},
        "class names that nest": {"class_names": [[["a"]]]},
        "class names of None": {"class_names": [None, "a"]},
        "architecture of a megabyte": {"architecture": "x" * 2**20},
        "architecture with control characters": {"architecture": "res\x1b[2Jnet\n18"},
        "architecture of a module": {"architecture": "os:system"},
        "training that multiplies": {"training": {"history": laughs}},
        "another version": {"version": laughs[0]},
    }
    sides = {
        "100000x100000": [10**5, 10**5],
        "2^62": [2**62, 2**62],
        "0": [0, 0],
        "text": ["8", "8"],
        "multiply": laughs,
    }
    about |= {f"image_size {n}": {"preprocessing": fine | {"resize": None, "image_size": v}} for n, v in sides.items()}
    about |= {f"resize {name}": {"preprocessing": fine | {"resize": value}} for name, value in sides.items()}
    numbers = {"NaN": [float("nan")] * 3, "infinite": [float("inf")] * 3, "many": [0.5] * 10**5, "multiply": laughs}
    about |= {f"std {name}": {"preprocessing": fine | {"std": value}} for name, value in numbers.items()}
    about |= {f"unknown key {i}": {"preprocessing": fine | {key: 1}} for i, key in enumerate(("a\nb", "\x1b[2J"))}
    weights = {"fc.weight": torch.ones(4, 2)}
    return {n: saved({"batchcam": {"version": 1} | a, "model": weights}) for n, a in about.items()}


def safetensors() -> dict[str, bytes]:
    """Return safetensors files with headers that lie."""

    def file(header: object, data: bytes = bytes(16), length: int | None = None) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text) if length is None else length) + text + data

    def one(**changes: object) -> dict[str, object]:
        return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes}

    twice = (
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
    )
    made = {f"header of {n}": file(one(), length=n) for n in (0, 1, 10**8 + 1, 2**31, 2**63, 2**64 - 1)}
    made |= {f"offsets {o}": file(one(data_offsets=o)) for o in ([0, 17], [8, 24], [16, 0], [-1, 15], [0, 2**64], [0])}
    made |= {f"shape {s}": file(one(shape=s)) for s in ([2**62, 4], [-4], [10**9, 512], [4.5], "4", [])}
    made |= {f"dtype {d}": file(one(dtype=d)) for d in ("F64", "NO", 7, None, "f32")}
    overlapping = one(data_offsets=[0, 16])
    overlapping["v"] = overlapping["w"]
    made |= {
        "overlapping": file(overlapping),
        "hole": file(one(data_offsets=[16, 32]), bytes(32)),
        "bytes left over": file(one(), bytes(64)),
        "key twice": file(twice),
        "deep": file(b"[" * 10**6),
        "deep metadata": file({"__metadata__": {"batchcam": "[" * 10**6}} | one()),
        "NaN": file(b'{"w":NaN}'),
        "number of a million digits": file({"__metadata__": {"batchcam": "9" * 10**6}} | one()),
        "metadata of numbers": file({"__metadata__": {"batchcam": 1}} | one()),
        "not UTF-8": file(b'{"\xff\xfe":1}'),
        "list": file([1]),
        "nothing": b"",
        "cut": file(one())[:-8],
    }
    return made


@fault_class("hostile checkpoints: code, memory and time bombs, lying sizes, archives, descriptions and headers")
def hostile_checkpoints(bench: Bench) -> Outcome:
    """Load each in a child process, which tells the message, the time and the memory that it took."""
    outcome = Outcome(
        f"refused in one line, nothing executed, in {MOST_SECONDS:.0f} s of CPU and {MOST_MIB:.0f} MiB more memory"
    )
    canary = bench.folder / "canary"
    groups = [
        (code(canary), ".pth"), (opcodes(), ".pth"), (beside(canary), "-beside.pth"), (claims(), ".pth"),
        (archives(), ".pth"), (descriptions(), ".pth"), (safetensors(), ".safetensors"),
    ]  # fmt: skip
    cases = [(name, content, suffix) for made, suffix in groups for name, content in made.items()]
    cases = cases[:: 1 if not bench.quick else 12]
    paths = {}
    for number, (name, content, suffix) in enumerate(cases):
        paths[f"{name} {suffix}"] = bench.folder / f"{number:04d}{suffix}"
        paths[f"{name} {suffix}"].write_bytes(content)
    paths |= special_files(bench.folder)
    took, grown = 0.0, 0.0
    for (name, path), (said, seconds, mib) in zip(paths.items(), judged([*paths.values()]), strict=True):
        outcome.case(name, wrong(path, said, seconds, mib, canary))
        took, grown = max(took, seconds), max(grown, mib)
    outcome.note = f"at most {took:.1f} s of CPU, {grown:.0f} MiB"
    return outcome


def special_files(folder: Path) -> dict[str, Path]:
    """Return what is no file, though a path of it may be given."""
    os.mkfifo(folder / "pipe.pth")
    (folder / "folder.pth").mkdir()
    (folder / "loop.pth").symlink_to(folder / "loop.pth")
    with (folder / "sparse.pth").open("wb") as sparse:
        sparse.truncate(2**43)
    names = ("pipe.pth", "folder.pth", "loop.pth", "none.pth", "sparse.pth")
    return {name: folder / name for name in names} | {"endless device": Path("/dev/zero")}


def judged(paths: list[Path]) -> list[tuple[str | None, float, float]]:
    """Return message, seconds and mebibytes of each load, all in one child process."""
    command = [sys.executable, "-c", textwrap.dedent(JUDGE), *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    lines = [tuple(json.loads(line)) for line in ended.stdout.splitlines()]
    if len(lines) != len(paths):
        raise AssertionError(f"{paths[len(lines)]}: the process ended: {ended.returncode} {ended.stderr[-2000:]}")
    return lines


def wrong(path: Path, said: str | None, seconds: float, mib: float, canary: Path) -> list[str]:
    """Return what is wrong with how a hostile checkpoint was met."""
    checks = {
        "loaded": said is None,
        f"not one printable line: {said!r:.200}": said is not None and not (said.isprintable() and len(said) < 600),
        "advises to load it unsafely": said is not None and "weights_only" in said,
        f"{seconds:.1f} s": seconds > MOST_SECONDS,
        f"{mib:.0f} MiB": mib > MOST_MIB,
        f"executed ({path})": canary.exists(),
    }
    return [what for what, failed in checks.items() if failed]
