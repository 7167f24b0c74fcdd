"""Whether a process has ended, as another one of the same machine can know."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from batchcam.job.processes import has_ended, this_process


def test_a_process_has_ended_when_it_has_whether_anybody_asked_how_or_not():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    described = {**this_process(), "pid": child.pid}
    assert not has_ended(described)
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(described)
    child.wait()
    assert has_ended(described)


@pytest.mark.parametrize(
    "other",
    [{"processes": "another boot pid:[1]"}, {"processes": ""}, {"pid": "x"}, {"pid": None}],
    ids=["another machine", "nobody knows", "no number", "nothing"],
)
def test_of_a_process_elsewhere_or_unknown_nothing_is_known(other):
    assert not has_ended({**this_process(), "pid": 2**30, **other})
    assert has_ended({**this_process(), "pid": 2**30})


def test_this_process_has_not_ended():
    assert not has_ended(this_process())
    assert not has_ended({})
