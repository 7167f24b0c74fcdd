"""torch's compiler: not in the process of a command that compiles nothing, and whole where somebody asks for it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image

from tests.helpers import ROOT


def told_by(body: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(body)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_explaining_a_torchvision_network_imports_no_compiler_and_the_process_can_have_it_afterwards(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / name / "0.png")
    torch.save(torchvision.models.resnet18(num_classes=2).state_dict(), tmp_path / "net.pth")
    words = ["explain", "net.pth", "data", "--arch", "resnet18", "--preprocess", "stl10", "--out", "run", "-q"]
    body = f"""
        import os, sys
        from batchcam.cli import main
        os.chdir({str(tmp_path)!r})
        try:
            main({words!r})
        except SystemExit as end:
            assert not end.code
        found = [name for name in sys.modules if name.startswith("torch._dynamo")]
        import torch, torchvision
        torchvision.ops.roi_align(torch.zeros(1, 1, 8, 8), torch.tensor([[0.0, 0, 0, 4, 4]]), 2)
        from torch._dynamo.utils import is_compile_supported
        print(found, is_compile_supported("cpu"))
    """
    assert told_by(body) == "[] True"


def test_whatever_else_is_asked_of_the_compiler_meanwhile_is_the_compilers_own() -> None:
    body = """
        from batchcam.cli import dynamo
        with dynamo.imported_late():
            from torch._dynamo.utils import counters, is_compile_supported
        import torch._dynamo.utils
        print(counters is torch._dynamo.utils.counters, is_compile_supported("cpu"))
    """
    assert told_by(body) == "True True"
