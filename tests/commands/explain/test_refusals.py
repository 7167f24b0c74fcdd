"""What can't be meant is refused before anything is written, in one line that says what, where and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.helpers.desk import Desk
from tests.helpers.refusals import REFUSALS, Refusal


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.given)
def test_it_is_refused_with_these_words(refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(tmp_path)
    refusal.cause(desk)
    for name, value in desk.variables.items():
        monkeypatch.setenv(name, value)
    if desk.variables and torch.cuda.is_available():
        pytest.skip("a GPU works here")
    before = sorted(tmp_path.rglob("*"))
    code, stdout, stderr = desk.explain()
    error = stderr.splitlines()[-1].removeprefix("batchcam: error: ").replace(f"{tmp_path}/", "")
    assert re.fullmatch(re.escape(refusal.says).replace("…", ".*"), error), error
    assert (code, stdout) == (refusal.code, "")
    new = set(tmp_path.rglob("*")) - {desk.checkpoint, *before}
    assert not [path for path in new if path.is_relative_to(desk.run)]
