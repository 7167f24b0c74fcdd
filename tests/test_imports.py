"""Arrows go one way, as the table says, and what an auditor runs never needs torch."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "batchcam"

FLOOR = {"errors", "rules", "systems", "version"}
"""What every module may import; they import nothing."""

TORCH = {"torch", "torchvision"}

TABLE: dict[str, set[str]] = {
    "__init__": {
        *("config", "job", "store", *(f"commands/{c}" for c in ("compare", "explain", "merge", "report", "verify"))),
    },
    "__main__": {"cli"},
    "errors": set(),
    "rules": set(),
    "systems": set(),
    "version": set(),
    "config": {"store"},
    "cli": {"click", "tomllib", "tomli", "config", "job", "record", "commands"},
    "commands/compare": {"numpy", "h5py", "config", "job", "record", "store"},
    "commands/demo": {
        *("numpy", "cv2", "config", "job", "pictures", "record", "store"),
        *("commands/explain", "commands/train", "commands/verify"),
    },
    "commands/discover": {
        *("numpy", "torch", "cv2", "config", "job", "pictures", "record", "store", "maps", "network", "data"),
        "commands/explain",
    },
    "commands/evaluate": {
        "numpy",
        "torch",
        "config",
        "job",
        "record",
        "network",
        "data",
        "commands/explain",
        "commands/train",
    },
    "commands/explain": {
        *("numpy", "h5py", *TORCH, "config", "job", "images", "store", "maps", "network", "data"),
        *("record", "commands/merge"),
    },
    "commands/export": {"numpy", "h5py", "cv2", "config", "images", "job", "pictures", "record", "store"},
    "commands/faithfulness": {
        *("numpy", "torch", "config", "job", "record", "store", "maps", "network", "data"),
        "commands/explain",
    },
    "commands/info": {"numpy", "commands/compare", "config", "job", "record", "store"},
    "commands/jobs": {"config", "job", "store"},
    "commands/localize": {"numpy", "cv2", "config", "job", "pictures", "record", "store"},
    "commands/merge": {"job", "record", "store"},
    "commands/nightly": {"config", "job", "store", "commands/verify"},
    "commands/promote": {"config", "job", "store"},
    "commands/render": {"numpy", "cv2", "config", "job", "pictures", "record", "store"},
    "commands/report": {
        *("numpy", "cv2", "config", "job", "pictures", "record", "store"),
        *("commands/compare", "commands/info", "commands/review"),
    },
    "commands/review": {"config", "job", "record", "store"},
    "commands/sample": {
        *("numpy", "config", "job", "pictures", "record", "store"),
        *("commands/render", "commands/report"),
    },
    "commands/retrain": {"config", "job", "store", "commands/promote"},
    "commands/submit": {"config", "job", "store", "commands/jobs"},
    "commands/train": {"numpy", *TORCH, "config", "job", "record", "store", "maps", "network", "data"},
    "commands/trend": {"numpy", "config", "job", "pictures", "record", "store", "commands/compare"},
    "commands/verify": {"numpy", "h5py", "config", "job", "pictures", "record", "store", "commands/explain"},
    "commands/view": {
        *("numpy", "starlette", "uvicorn", "config", "job", "pictures", "record", "store", "commands/compare"),
    },
    "maps": {"numpy", "torch", "data", "network"},
    "network": {"numpy", "safetensors", *TORCH, "images", "job"},
    "data": {"numpy", "PIL", *TORCH, "config", "images", "job"},
    "images": {"numpy", "PIL"},
    "pictures": {"numpy", "cv2", "images", "store"},
    "record": {"cv2", "numpy", "job", "store"},
    "store": {"numpy", "h5py", "isal", "images"},
    "job": {"tqdm"},
}
"""What a folder may import besides the standard library, itself and FLOOR; none is in a circle."""

WORKER = {
    "maps",
    "network",
    "data",
    *(f"commands/{c}" for c in ("demo", "discover", "evaluate", "explain", "faithfulness", "train")),
}
"""The folders that may need torch."""

OPTIONAL = {
    # pictures is above store, and imported by the methods alone that hand a picture out
    "store": {"matplotlib", "pandas", "pictures", "xarray"},
    "pictures": {"matplotlib"},
    "data": {"timm"},
    "images": {"pydicom", "tifffile"},
    "network": {"huggingface_hub", "openvino", "timm", "transformers"},
}
"""What only some users have: imported inside of the function that hands it out, or needs it."""

WORKER_PACKAGES = ("torch", "torchvision", "isal", "safetensors")


def imports(source: str, module: str, at_import_only: bool = False) -> Iterator[str]:
    """Yield what `source` imports: our own by the folder of TABLE, packages by their first name.

    At import only, without what commands are asked, which is as light as `config` (a test below).
    """
    tree = ast.parse(source)
    nodes = list(_executed(tree)) if at_import_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            if at_import_only and re.fullmatch(r"batchcam\.commands\.[a-z]+\.config", str(node.module)):
                continue
            # `from batchcam import x` may name a module or something of __init__
            own = node.module == "batchcam"
            names = [f"batchcam.{alias.name}" if own else str(node.module) for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first != "batchcam":
                yield first
            elif not rest or rest[0].startswith("__"):
                yield "__init__"
            elif rest[0] == "commands" and len(rest) > 1:
                yield f"commands/{rest[1]}"
            else:
                yield rest[0]


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _executed(child)


def owner(path: Path) -> str:
    """Return the line of TABLE that a file of the package belongs to."""
    first, *rest = path.relative_to(PACKAGE).with_suffix("").parts
    return f"{first}/{rest[0]}" if first == "commands" else first


def forbidden(source: str, module: str) -> set[str]:
    """Return what `source` imports against the table."""
    allowed = TABLE[module] | FLOOR | {module} | set(sys.stdlib_module_names)
    late = OPTIONAL.get(module, set()) - set(imports(source, module, at_import_only=True))
    found = {name for name in imports(source, module) if name.partition("/")[0] not in allowed}
    return found - allowed - late


def run_python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=PACKAGE.parent, check=False
    )


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "commands" / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_the_table_allows(path: Path) -> None:
    assert forbidden(path.read_text(encoding="utf-8"), owner(path)) == set()


def test_the_table_has_a_line_for_every_folder_and_nothing_is_loose() -> None:
    assert {owner(path) for path in FILES} == set(TABLE)


def test_arrows_go_one_way() -> None:
    arrows = {name: allowed & set(TABLE) for name, allowed in TABLE.items()}
    arrows["cli"] |= {name for name in TABLE if name.startswith("commands/")}
    tuple(graphlib.TopologicalSorter(arrows).static_order())  # raises CycleError


def test_only_the_workers_folders_know_torch() -> None:
    reached = {name for name, allowed in TABLE.items() if allowed & (TORCH | WORKER)}
    lazily = {"commands/verify", "__init__"}  # --recompute runs the network again; batchcam.explain
    assert reached - lazily == WORKER


@pytest.mark.parametrize(
    ("source", "module", "found"),
    [
        ("import torch", "store", {"torch"}),
        ("from torch.nn import Module", "store", {"torch"}),
        ("import torch.nn as nn", "record", {"torch"}),
        ("def f():\n    import torch", "store", {"torch"}),
        ("from batchcam.network.model import x", "store", {"network"}),
        ("from batchcam.store.plan import Plan", "maps", {"store"}),
        ("from batchcam.pictures import heatmap", "store", {"pictures"}),
        ("import batchcam.commands.explain", "store", {"commands/explain"}),
        ("from batchcam.commands.report.movers import x", "commands/compare", {"commands/report"}),
        ("from batchcam.commands.compare.gates import x", "commands/report", set()),
        ("from batchcam.config import Classifier", "job", {"config"}),
        ("import pandas", "store", {"pandas"}),
        ("def f():\n    import pandas", "store", set()),
        ("def f():\n    import pandas", "maps", {"pandas"}),
        ("import json\nfrom batchcam.errors import RunError\nfrom batchcam.store import landing", "store", set()),
        ("import batchcam", "store", {"__init__"}),
    ],
)
def test_the_table_can_be_broken(source: str, module: str, found: set[str]) -> None:
    assert forbidden(source, module) == found


@pytest.mark.parametrize(
    "path", [p for p in FILES if owner(p) not in WORKER], ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_what_an_auditor_needs_imports_nothing_of_the_worker_at_once(path: Path) -> None:
    found = set(imports(path.read_text(encoding="utf-8"), owner(path), at_import_only=True))
    assert found & {*WORKER, *TORCH, "safetensors"} == set()


@pytest.mark.parametrize("path", ["__init__.py", *(f"cli/{p.name}" for p in sorted((PACKAGE / "cli").glob("*.py")))])
def test_commands_and_store_are_imported_only_when_they_are_used(path: str) -> None:
    package = path.partition("/")[0].removesuffix(".py")
    found = set(imports((PACKAGE / path).read_text(encoding="utf-8"), package, at_import_only=True))
    assert {name for name in found if name.startswith("commands")} | found & {"store"} == set()


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("commands/*/config.py")), ids=lambda p: p.parent.name)
def test_what_a_command_is_asked_needs_no_other_module_of_a_command_and_nothing_heavy(path: Path) -> None:
    found = set(imports(path.read_text(encoding="utf-8"), owner(path)))
    assert found - set(sys.stdlib_module_names) <= {"config", "errors", "rules"}


BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({WORKER_PACKAGES!r}))\n"
"""A module that is None in sys.modules can't be imported."""


EACH_ALONE = (
    BLOCKED
    + """
import importlib, os, traceback
import cv2, h5py  # which take the time
for module in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    try:
        importlib.import_module(module)
    except BaseException:
        traceback.print_exc()
        os.write(1, f"{module}\\n".encode())
    os._exit(0)
"""
)
"""Prints those modules that can't be imported; none of them finds what another one has imported."""


def test_the_auditors_side_imports_where_the_workers_packages_are_absent() -> None:
    modules = [
        ".".join(("batchcam", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in FILES
        if owner(path) not in {*WORKER, "__main__"}
    ]
    felt = ["batchcam.maps.cam", "batchcam.network.model"]
    done = run_python(EACH_ALONE, *modules, *felt)
    assert (done.returncode, done.stdout.split()) == (0, felt), done.stderr
    assert done.stderr.count("ModuleNotFoundError") == len(felt)


def test_verify_runs_where_the_workers_packages_are_absent(sound_run: Path) -> None:
    code = f"{BLOCKED}from batchcam.cli import main; main(['verify', {str(sound_run)!r}])"
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no findings; 21 samples (1 unreadable, as recorded) in 3 shards" in done.stdout


def test_zlib_compresses_where_isal_is_absent() -> None:
    done = run_python(f"{BLOCKED}from batchcam.store.compression import COMPRESSOR; print(COMPRESSOR)")
    assert done.stdout.startswith("zlib")


HEAVY = ("numpy", "h5py", "cv2", "PIL", *WORKER_PACKAGES)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["explain", "--help"], ["verify", "-h"]], ids=" ".join)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom batchcam.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('loaded:', sorted(set(sys.modules) & set({HEAVY!r})))"
    )
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == "loaded: []", done.stderr


def test_the_help_test_can_fail() -> None:
    done = run_python(f"import sys, batchcam.commands.verify.audit\nprint(sorted(set(sys.modules) & set({HEAVY!r})))")
    assert "numpy" in done.stdout
