"""What auditors read a run with besides batchcam: docs/record.md, word for word; h5dump; image viewers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.helpers.pages import blocks


def need(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not installed")


def run_in(folder: Path, words: list[str]) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(sound_run, tmp_path):
    """A folder with a run named RUN, as in docs/record.md."""
    shutil.copytree(sound_run, tmp_path / "RUN")
    return tmp_path


def test_the_pages_shell_lines_check_the_digests_and_print_the_predictions(folder):
    need("h5dump")
    (lines,) = blocks("sh", "h5dump")
    shown = run_in(folder, ["bash", "-ec", lines.text])
    shards = sorted((folder / "RUN" / "shards").glob("*.h5"))
    assert [f"{s.name}: OK" in shown for s in shards] == [True] * len(shards)
    assert re.search(r"^prediction +Dataset", shown, re.MULTILINE)
    with h5py.File(folder / "RUN" / "run.h5") as file:
        first = ", ".join(map(str, file["prediction"][:5]))
    assert f"(0): {first}" in shown


def test_sha256sum_finds_a_shard_that_was_edited(folder):
    (lines,) = blocks("sh", "sha256sum")
    with h5py.File(folder / "RUN" / "shards" / "shard-00001.h5", "r+") as file:
        file["prediction"][0] += 1
    check = lines.text[: lines.text.index("# each shard")]
    done = subprocess.run(["bash", "-ec", check], cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0
    assert "shard-00001.h5: FAILED" in done.stdout


def test_maps_carry_the_attributes_by_which_hdfview_shows_pictures(folder):
    need("h5dump")
    for file in ("run.h5", "shards/shard-00000.h5"):
        shown = run_in(folder, ["h5dump", "-A", "-d", "/maps", f"RUN/{file}"])
        each = (part.partition('"') for part in shown.split('ATTRIBUTE "')[1:])
        attributes = {name: "".join(re.findall(r'\(0\): "(.*)"', rest)) for name, _, rest in each}
        # HDF5 Image and Palette Specification 1.2, section 2
        assert attributes["CLASS"] == "IMAGE"
        assert attributes["IMAGE_VERSION"] == "1.2"
        assert attributes["IMAGE_SUBCLASS"] == "IMAGE_GRAYSCALE"
        assert attributes["DISPLAY_ORIGIN"] == "UL"


def test_the_pages_r_lines_read_the_same_numbers(folder):
    need("Rscript")
    if subprocess.run(["Rscript", "-e", "library(rhdf5)"], capture_output=True).returncode:
        pytest.skip("R has no rhdf5")
    (lines,) = blocks("r")
    tell = """
cat("shapes", dim(prediction), dim(cams), length(map), "\n")
cat("numbers", prediction, sum(cams[, , , 2]), sum(map), "\n")
"""
    shown = run_in(folder, ["Rscript", "-e", lines.text + tell])
    with h5py.File(folder / "RUN" / "run.h5") as file:
        shapes = [*file["prediction"].shape, *file["cams"].shape[::-1], file["maps"][0].size]
        numbers = [*file["prediction"][:], file["cams"][1].sum(dtype=float), file["maps"][0].sum()]
    found = {line.split()[0]: [float(w) for w in line.split()[1:]] for line in shown.splitlines() if " " in line}
    assert found["shapes"] == shapes
    np.testing.assert_allclose(found["numbers"], numbers, rtol=1e-5)
