"""The README says what the program does."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from batchcam.cli import EXIT_CODES, cli
from batchcam.store.schema import CLASS_NAME, CLASSIFIER_ARRAYS, CONFIG, SAMPLE_ARRAYS
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_in_the_readme(name):
    assert f"`batchcam {name}" in README


def test_every_batchcam_line_of_the_readme_and_of_the_jobs_names_a_command_and_options_that_exist():
    text = "\n".join([*blocks("sh"), *blocks("console"), *(p.read_text() for p in ROOT.glob("jobs/*"))])
    lines = re.findall(r"(?:^|[\s;&(])batchcam +([a-z]+)([^\n&|]*)", text, re.MULTILINE)
    assert len(lines) > 5
    for name, rest in lines:
        if name in ("demo", *cli.commands):
            known = {o for p in cli.commands[name].params for o in (*p.opts, *p.secondary_opts)}
            assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest)) <= known, (name, rest)


@pytest.mark.parametrize("array", [*SAMPLE_ARRAYS, *CLASSIFIER_ARRAYS, CLASS_NAME], ids=lambda a: a.name)
def test_every_array_of_the_schema_is_in_the_readme(array):
    assert f"`{array.name}`" in README or f"`/{array.name.partition('/')[2]}`" in README
    assert f"`{CONFIG}`" in README


def test_every_exit_code_is_in_the_readme():
    for code in EXIT_CODES:
        assert re.search(rf"^\| {code} \|", README, re.MULTILINE)


@pytest.mark.parametrize("options", [{}, {"method": "gradcam", "cams": "topk:3"}], ids=["cam", "gradcam"])
def test_the_readmes_python_examples_run_on_a_real_run(tmp_path, options):
    from batchcam.commands.explain.explain import explain
    from tests.commands.explain.test_explain import config, write_checkpoint

    cv2 = pytest.importorskip("cv2")
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(4):
            cv2.imwrite(str(tmp_path / "data" / name / f"{number}.png"), rng.integers(0, 255, (32, 32, 3), np.uint8))
    explain(config(write_checkpoint(tmp_path / "m.pth", 0), tmp_path / "data", tmp_path / "RUN", **options))
    examples = [b for b in blocks("python") if "RUN" in b]
    for example, says in zip(examples, ("cells for and against", "but looks like"), strict=True):
        ran = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert says in ran.stdout
