"""What a user names as module:callable is found, or refused on one line that says why."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batchcam.errors import BatchcamError, DatasetError, ModelError
from batchcam.images.callables import did_you_mean, load_callable

USERS_MODULE = """
class Registry:
    @staticmethod
    def build(): return "built"

def build(): return "built"

def __getattr__(name):
    if name == "late":
        raise ImportError("no licence")
    raise AttributeError(name)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, of a name that no other test has imported."""
    name = f"callables_module_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(USERS_MODULE)
    (tmp_path / f"{name}_broken.py").write_text("raise OSError('no licence\\nfile')\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("name", ["build", "Registry.build"])
def test_a_callable_is_found_in_the_current_folder_at_any_depth(module: str, name: str) -> None:
    assert load_callable(f"{module}:{name}", ModelError)() == "built"


def test_a_file_of_the_current_folder_hides_no_installed_module(module: str, tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit")
    load_callable("colorsys:rgb_to_hsv", ModelError)
    load_callable(f"{module}:build", ModelError)
    assert sys.path.index(str(tmp_path)) == len(sys.path) - 1


@pytest.mark.parametrize("raises", [ModelError, DatasetError])
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "^python:: write python:module:callable$"),
        ("MODULE", "^python:.*: write python:module:callable$"),
        ("MODULE:", "write python:module:callable$"),
        (":build", "write python:module:callable$"),
        ("folder/MODULE.py:build", "a module is named without its ending: write python:callables_module_.*:build$"),
        ("no_such_module:f", "can't import no_such_module: ModuleNotFoundError: No module named 'no_such_module'"),
        ("MODULE_broken:f", "can't import .*_broken: OSError: no licence file$"),
        ("MODULE:biuld", "module callables_module_.* has no biuld: did you mean build"),
        ("MODULE:late", "can't get late: ImportError: no licence"),
    ],
)
def test_a_mistake_is_told_on_one_line_by_the_callers_error(
    module: str, spec: str, message: str, raises: type[BatchcamError]
) -> None:
    with pytest.raises(raises, match=message) as caught:
        load_callable(spec.replace("MODULE", module), raises, "python:")
    assert "\n" not in str(caught.value)


def test_names_are_like_each_other_whatever_their_case() -> None:
    assert did_you_mean("cifar1O", ["MNIST", "CIFAR10"]) == ": did you mean CIFAR10?"
    assert did_you_mean("xyz", ["MNIST", "CIFAR10"]) == ""
