"""`import batchcam`: every command as a typed function of its options, loaded when it is asked for."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mypy.api
import pytest
from PIL import Image

import batchcam
from batchcam import errors
from batchcam.commands.compare.compare import compare
from batchcam.commands.compare.config import CompareConfig
from batchcam.commands.explain.config import ExplainConfig, ExplainKeywords
from batchcam.commands.explain.explain import explain
from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import ConfigError
from tests.helpers import ROOT

FUNCTIONS = ("explain", "merge", "verify", "compare", "report", "open_run")
HEAVY = ("numpy", "h5py", "cv2", "torch", "torchvision", "PIL", "click")


def declared() -> dict[str, tuple[str, str]]:
    """What type checkers read: each public name's module, and its name there."""
    tree = ast.parse(Path(str(batchcam.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: (str(node.module), alias.name) for node in imports for alias in node.names}


def test_every_public_name_is_what_type_checkers_read() -> None:
    assert sorted(declared()) == [name for name in batchcam.__all__ if name != "__version__"]
    for name, (module, attribute) in declared().items():
        assert getattr(batchcam, name) is getattr(importlib.import_module(module), attribute), name


def test_every_error_is_public() -> None:
    known = {name for name, value in vars(errors).items() if inspect.isclass(value)}
    assert known <= set(batchcam.__all__)


def test_no_module_takes_the_place_of_a_public_name() -> None:
    modules = {module.name for module in pkgutil.iter_modules(batchcam.__path__)}
    assert modules & set(batchcam.__all__) == set()


def test_import_loads_nothing_and_knows_its_names() -> None:
    code = (
        "import sys, batchcam\n"
        "assert set(batchcam.__all__) <= set(dir(batchcam))\n"
        f"print([n for n in sys.modules if n.split('.')[0] in {HEAVY!r} or n.startswith('batchcam.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "[]\n"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'batchcam' has no attribute 'expalin'"):
        batchcam.expalin  # noqa: B018


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_its_name_documentation_and_signature_and_survives_pickle(name: str) -> None:
    function = getattr(batchcam, name)
    assert function.__name__ == name
    assert pickle.loads(pickle.dumps(function)) is function
    about = inspect.getdoc(function)
    assert about
    asked = [p for p in inspect.signature(function).parameters if p not in ("run", "old", "new", "checkpoint", "data")]
    assert [p for p in asked if p not in about] == []


def test_explain_takes_the_options_of_classifier_and_computing_beside_its_own() -> None:
    own = {field.name for field in dataclasses.fields(ExplainConfig)} - {"classifier", "compute"}
    parts = {field.name for kind in (Classifier, Compute) for field in dataclasses.fields(kind)}
    parameters = inspect.signature(batchcam.explain).parameters
    assert set(parameters) == own | parts
    assert list(parameters)[:3] == ["checkpoint", "data", "out"]


def test_keywords_make_the_config_that_says_the_same(tmp_path: Path) -> None:
    asked = ExplainKeywords(
        "m.pth",
        tmp_path,
        "run",
        arch="resnet18",
        cams="topk:3",
        batch_size=32,
        image_size=32,
        time_limit_s="2h",
        quiet=True,
    )
    classifier = Classifier(Path("m.pth"), arch="resnet18", image_size=(32,))
    assert asked.nested() == ExplainConfig(
        classifier, str(tmp_path), Path("run"), Compute(batch_size=32), cams="topk:3", time_limit_s=7200.0, quiet=True
    )
    assert asked.nested().classifier.checkpoint == Path("m.pth")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batchcam.explain("m.pth", "data", "run", batch_size=0), "--batch-size 0: must be"),
        (lambda: batchcam.explain("m.pth", "data", "run", arch="a", model="b:c"), "--arch and --model exclude"),
        (lambda: batchcam.explain("m.pth", "data", "run", cams="topk:0"), "--cams 'topk:0'"),
        (lambda: batchcam.compare("a", "b", target="both"), "--target both: choose one of old, new, label"),
        (lambda: batchcam.report("a", "b.pdf"), "--out b.pdf: want a name that ends in .html"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_a_misspelt_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="min_cam_similarty"):
        batchcam.compare("old", "new", min_cam_similarty=0.5)  # type: ignore[call-arg]


def test_compare_passes_where_every_gate_does(make_run: Callable[..., Path]) -> None:
    old, other = make_run("old"), make_run("other", seed=1)
    same = batchcam.compare(str(old), old, min_cam_similarity=0.5, max_flips=0, min_compared=0, quiet=True)
    assert (same.passed, [gate.passed for gate in same.gates]) == (True, [True, True])
    moved = batchcam.compare(old, other, max_flips=0, min_compared=0, quiet=True)
    assert (moved.passed, moved.findings) == (False, 1)
    assert batchcam.compare(old, other, quiet=True).passed
    assert moved == compare(CompareConfig(old, other, max_flips=0, min_compared=0, quiet=True))


def test_verify_passes_where_nothing_is_found(finished_run: Path) -> None:
    assert batchcam.verify(str(finished_run), quiet=True).passed
    (finished_run / "run.h5.sha256").unlink()
    seen = batchcam.verify(finished_run, quiet=True)
    assert not seen.passed
    assert seen == verify(VerifyConfig(finished_run, quiet=True))


def test_merge_and_report_take_texts_as_paths(finished_run: Path, tmp_path: Path) -> None:
    assert batchcam.merge(str(finished_run)).shards == 3
    assert batchcam.report(str(finished_run), str(tmp_path / "a.html"), quiet=True).samples == 21


def test_explain_is_the_command_with_its_options_as_keywords(tmp_path: Path) -> None:
    from tests.commands.explain.test_explain import config, digests, write_checkpoint

    checkpoint = write_checkpoint(tmp_path / "m.pth", 0)
    data = tmp_path / "photos.csv"
    data.write_text("path,label\na.png,ant\nb.png,bee\n")
    for name, grey in (("a.png", 80), ("b.png", 160)):
        Image.new("L", (40, 32), grey).save(tmp_path / name)
    settings: dict[str, Any] = {"batch_size": 3, "workers": 0, "threads": 1, "device": "cpu", "shard_size": 8}
    batchcam.explain(checkpoint, data, tmp_path / "keywords", quiet=True, **settings)
    explain(config(checkpoint, data, tmp_path / "config"))
    assert digests(tmp_path / "keywords") == digests(tmp_path / "config")


TYPED = """
import batchcam
from pathlib import Path
from torch import nn
from torch.utils.data import TensorDataset

def rerun(network: nn.Module, photos: TensorDataset) -> bool:
    batchcam.explain("model.pth", Path("photos"), "run", arch="resnet18", cams="topk:3", image_size=32, mean=0.5)
    batchcam.explain(network, photos, out="run", class_names=["ant", "bee"], sample_timeout="5m")
    with batchcam.open_run("runs/monday") as run:
        run.prediction[:], run.cams.shape, run[0].confidence
    try:
        verdict: batchcam.CompareSummary = batchcam.compare("old", "new", min_cam_similarity=0.5)
    except batchcam.RunError as error:
        raise SystemExit(error.exit_code) from error
    again = batchcam.verify("run", recompute=3, classifier=batchcam.Classifier(network), data=photos)
    return verdict.passed and again.passed and batchcam.report("run", "a.html").bytes > 0
"""


WRONG = """
import batchcam

with batchcam.open_run("run") as run:
    run.predicton[:]
batchcam.explain("model.pth", "photos", "run", architecture="resnet18")
batchcam.compare("old", "new", min_compared="high").pased
batchcam.compare("old")
batchcam.RunErorr
"""

COMPLAINTS = (
    'script.py:5: error: "Run" has no attribute "predicton"',
    'script.py:6: error: Unexpected keyword argument "architecture"',
    'script.py:7: error: "CompareSummary" has no attribute "pased"',
    'script.py:7: error: Argument "min_compared" has incompatible type "str"; expected "float | None"',
    "script.py:8: error: Too few arguments",
    'script.py:9: error: Module has no attribute "RunErorr"',
)


def told_by_mypy(source: str, tmp_path: Path) -> str:
    (tmp_path / "script.py").write_text(source)
    settings = ["--strict", "--config-file", str(ROOT / "setup.cfg"), "--cache-dir", str(tmp_path / "cache")]
    told, trouble, _ = mypy.api.run([*settings, str(tmp_path / "script.py")])
    assert not trouble
    return told


@pytest.mark.slow
def test_mypy_takes_a_right_script_and_refuses_misspelt_names(tmp_path: Path) -> None:
    assert told_by_mypy(TYPED, tmp_path).startswith("Success")
    told = told_by_mypy(WRONG, tmp_path)
    assert [line for line in COMPLAINTS if line not in told] == [], told
    assert told.endswith(f"Found {len(COMPLAINTS)} errors in 1 file (checked 1 source file)\n")
