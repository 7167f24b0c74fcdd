"""Arrows go one way: cli to commands, commands to engine or store, and what an auditor runs never needs torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "batchcam"

FLOOR = {"errors", "rules"}
"""What every module may import; they import nothing."""

TORCH = {"torch", "torchvision"}

TABLE: dict[str, set[str]] = {
    "__init__": {"store"},
    "__main__": {"cli"},
    "errors": set(),
    "rules": set(),
    "cli": {"click", "config", "commands", "printing", "selection", "scheduler", "__init__", "tomllib", "tomli"},
    "config": set(),
    "processes": set(),
    "scheduler": {"processes"},
    "cpus": set(),
    "regular_files": set(),
    "stl10_files": {"numpy"},
    "confined": {"processes"},
    "console": {"tqdm"},
    "printing": {"commands", "console", "metrics"},
    "cam": {"torch"},
    "gradient_maps": {"torch"},
    "faithfulness": {"torch"},
    "annotation_files": set(),
    "annotations": {"numpy", "cv2", "annotation_files"},
    "contours": {"numpy", "cv2"},
    "frames": {"numpy", "cv2"},
    "localization": {"numpy", "contours"},
    "metrics": {"numpy"},
    "heatmap": {"numpy", "cv2"},
    "sheet": {"numpy", "cv2", "heatmap"},
    "shapes": {"numpy", "cv2"},
    "audit": {"numpy", "heatmap", "stored_cams"},
    "stored_cams": {"numpy"},
    "evidence": {"numpy"},
    "similarity": {"numpy"},
    "totals": {"numpy"},
    "matching": {"numpy"},
    "comparison": {"numpy", "matching"},
    "gates": {"comparison", "matching"},
    "calibration": {"numpy"},
    "pictures": {"numpy", "cv2", "regular_files", "stl10_files", "store"},
    "selection": {"numpy", "store"},
    "reporting": {
        *("numpy", "cv2", "__init__", "audit", "calibration", "comparison", "console", "evidence", "heatmap"),
        *("matching", "metrics", "pictures", "sheet", "similarity", "store", "stored_cams"),
    },
    "exporters": {"numpy", "h5py", "cv2", "heatmap", "pictures", "similarity", "store", "stored_cams"},
    "store": {"numpy", "h5py", "isal", "stored_cams", "__init__"},
    "engine": {
        *("numpy", "PIL", "safetensors", "cam", "cpus", "gradient_maps", "config", "processes", "regular_files"),
        *("stl10_files", *TORCH),
    },
    "commands": {
        *("numpy", "h5py", "cv2", "tqdm", "__init__", "engine", "store", "config", "confined", "console", "cpus"),
        *("scheduler", "metrics", "heatmap", "audit", "shapes", "pictures", "selection", "sheet", "exporters", *TORCH),
        *("reporting", "similarity", "matching", "comparison", "gates", "annotations", "contours", "frames"),
        *("localization", "cam", "faithfulness", "stored_cams", "totals"),
    },
}
"""What a module or folder may import besides the standard library, itself and FLOOR."""

WORKER = {
    *("demo", "evaluate", "explain", "faithfulness", "faithfulness_curves", "faithfulness_files", "planning"),
    *("reassembly", "recompute", "train", "work"),
}
"""Modules of commands that need the network."""

AUDITOR = sorted({p.stem for p in (PACKAGE / "commands").glob("*.py")} - WORKER - {"__init__"})
"""Commands that have to work without the worker's packages: all the others."""

OPTIONAL = {"pandas", "xarray"}
"""What the store hands out when asked for, imported inside of the function that does."""

WORKER_PACKAGES = ("torch", "torchvision", "PIL", "isal", "safetensors")


def imports(source: str, module: str, at_import_only: bool = False) -> Iterator[str]:
    """Yield what `source` imports: our own modules by their first name, packages by theirs."""
    tree = ast.parse(source)
    nodes = list(_executed(tree)) if at_import_only else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            # `from batchcam import x` may name a module or something of __init__
            own = node.module == "batchcam"
            names = [f"batchcam.{alias.name}" if own else str(node.module) for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first != "batchcam":
                yield first
            elif rest and not rest[0].startswith("__"):
                yield rest[0]
            else:
                yield "__init__"


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
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def forbidden(source: str, module: str) -> set[str]:
    """Return what `source` imports against the table."""
    allowed = TABLE[module] | FLOOR | {module} | set(sys.stdlib_module_names)
    late = OPTIONAL - set(imports(source, module, at_import_only=True)) if module == "store" else set()
    return set(imports(source, module)) - allowed - late


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_the_table_allows(path: Path) -> None:
    assert forbidden(path.read_text(encoding="utf-8"), owner(path)) == set()


def test_the_table_has_a_line_for_every_module_and_folder() -> None:
    assert {owner(path) for path in FILES} == set(TABLE)


def test_engine_and_store_never_meet() -> None:
    assert "store" not in TABLE["engine"]
    assert "engine" not in TABLE["store"]


@pytest.mark.parametrize(
    ("source", "module", "found"),
    [
        ("import torch", "store", {"torch"}),
        ("from torch.nn import Module", "store", {"torch"}),
        ("import torch.nn as nn", "metrics", {"torch"}),
        ("def f():\n    import torch", "store", {"torch"}),
        ("from batchcam.engine.model import x", "store", {"engine"}),
        ("from batchcam.store.plan import Plan", "engine", {"store"}),
        ("from batchcam import heatmap", "store", {"heatmap"}),
        ("import batchcam.commands.explain", "store", {"commands"}),
        ("from batchcam.config import Classifier", "scheduler", {"config"}),
        ("import pandas", "store", {"pandas"}),
        ("def f():\n    import pandas", "store", set()),
        ("def f():\n    import pandas", "engine", {"pandas"}),
        ("import json\nfrom batchcam.errors import RunError\nfrom batchcam.store import landing", "store", set()),
        ("from batchcam import __version__", "store", set()),
    ],
)
def test_the_table_can_be_broken(source: str, module: str, found: set[str]) -> None:
    assert forbidden(source, module) == found


@pytest.mark.parametrize("name", AUDITOR)
def test_an_auditors_command_imports_nothing_of_the_worker(name: str) -> None:
    source = (PACKAGE / "commands" / f"{name}.py").read_text(encoding="utf-8")
    found = set(imports(source, "commands", at_import_only=True))
    assert found & {"engine", *WORKER_PACKAGES} == set()


@pytest.mark.parametrize(
    "path", ["__init__.py", "printing.py", *(f"cli/{p.name}" for p in sorted((PACKAGE / "cli").glob("*.py")))]
)
def test_commands_and_store_are_imported_only_when_they_are_used(path: str) -> None:
    package = path.partition("/")[0].removesuffix(".py")
    found = set(imports((PACKAGE / path).read_text(encoding="utf-8"), package, at_import_only=True))
    assert found & {"commands", "store"} == set()


BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({WORKER_PACKAGES!r}))\n"
"""A module that is None in sys.modules can't be imported."""


@pytest.mark.parametrize(
    "module",
    [
        *(f"batchcam.store.{p.stem}" for p in sorted((PACKAGE / "store").glob("*.py")) if p.stem != "__init__"),
        *(f"batchcam.commands.{name}" for name in AUDITOR),
        *("batchcam.cli", "batchcam.audit", "batchcam.heatmap", "batchcam.metrics", "batchcam.printing"),
    ],
)
def test_the_auditors_side_imports_where_the_workers_packages_are_absent(module: str) -> None:
    done = run_python(f"{BLOCKED}import {module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["batchcam.cam", "batchcam.engine.model"])
def test_the_block_can_be_felt(module: str) -> None:
    done = run_python(f"{BLOCKED}import {module}")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_verify_runs_where_the_workers_packages_are_absent(sound_run: Path) -> None:
    code = f"{BLOCKED}from batchcam.cli import main; main(['verify', {str(sound_run)!r}])"
    done = run_python(code)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no findings; 21 samples (1 unreadable, as recorded) in 3 shards" in done.stdout


def test_zlib_compresses_where_isal_is_absent() -> None:
    done = run_python(f"{BLOCKED}from batchcam.store.compression import COMPRESSOR; print(COMPRESSOR)")
    assert done.stdout.startswith("zlib")


HEAVY = ("numpy", "h5py", "cv2", *WORKER_PACKAGES)


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
    done = run_python(f"import sys, batchcam.audit\nprint(sorted(set(sys.modules) & set({HEAVY!r})))")
    assert "numpy" in done.stdout
