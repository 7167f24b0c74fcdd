"""What `verify` is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchcam.commands.verify.config import VerifyConfig
from batchcam.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "message"),
    [({"recompute": -1}, "--recompute -1"), ({"recompute": 5}, "needs --checkpoint and --data"),
     ({"recompute": 5, "data": "data"}, "needs --checkpoint and --data"), ({"seed": -1}, "--seed")],
)  # fmt: skip
def test_verification_that_can_not_be_meant_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        VerifyConfig(Path("run"), **change)
