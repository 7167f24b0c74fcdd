"""Each kind of checkpoint that docs/checkpoints.md lists is explained with its network's logits, as its errors say."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.make.checkpoints import read_page, row
from tests.helpers.checkpoint_kinds import TOLERANCE, Kind, tried
from tests.helpers.checkpoint_table import KINDS

QUICK = (
    "`student` and `teacher`",
    "torchvision's references: `model`, `model_ema`, `args`",
    "arrays of NumPy by name",
    "arrays of NumPy, `.npz`",
    "a whole network",
    "quantised layers",
    "directory of timm",
    "directory of transformers' ResNet",
    "`model.safetensors` of transformers without its config.json",
    "a zip archive with a checkpoint in it",
    "directory of MLflow's PyTorch flavor",
    "directory of DeepSpeed's",
)


def marks(kind: Kind) -> list[pytest.MarkDecorator]:
    skip = [pytest.mark.skip(reason=f"{kind.missing} is not installed")] if kind.missing else []
    return skip if kind.name in QUICK else [*skip, pytest.mark.slow]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks(kind), id=kind.name) for kind in KINDS])
def test_checkpoint_is_explained_once_what_its_errors_say_is_done(kind: Kind, tmp_path: Path) -> None:
    outcome = tried(kind, tmp_path)
    assert row(kind, outcome) == read_page()[kind.name]
    assert bool(outcome.refusal) == bool(kind.untried)
    assert outcome.difference <= TOLERANCE


def test_page_lists_every_kind() -> None:
    page = read_page()
    assert list(page)[1:] == [kind.name for kind in KINDS], "run `python -m docs.make.checkpoints`"
    assert not [line for line in page.values() if "not tried" in line]


def test_trial_notices_logits_that_are_not_the_networks(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.choice)
    assert tried(Kind(kind.name, kind.by, kind.make, choice="student"), tmp_path).difference > 100 * TOLERANCE
