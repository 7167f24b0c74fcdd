"""How docs/desk.md signs a run, stamps it with a time and tells others of it: its blocks, run on a run."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.damage import flip
from tests.helpers.pages import blocks_of
from tests.helpers.synthetic import synthetic_run

MANIFEST, SHARD = "runs/monday/manifest.json", "runs/monday/shards/shard-00001.h5"

AUTHORITY = """
[tsa]
default_tsa = own
[own]
serial = {0}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
"""


def example(word: str) -> str:
    """The one block of the page that is run here and has this word."""
    (block,) = [b for b in blocks_of(ROOT / "docs/desk.md") if b.mark == "signing" and word in b.text]
    return block.text


def needs(program: str) -> None:
    if not shutil.which(program):
        pytest.skip(f"no {program}")


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a run, and batchcam in its bin."""
    synthetic_run(tmp_path / "runs/monday")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/batchcam").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m batchcam "$@"\n')
    (tmp_path / "bin/batchcam").chmod(0o755)
    return tmp_path


@pytest.fixture
def sh(desk: Path) -> Run:
    """Run lines in that folder; return what they said and how they ended."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BATCHCAM")}
    path = f"{desk}/bin:{os.environ['PATH']}"

    def sh(lines: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**kept, "PATH": path, "PYTHONPATH": str(ROOT), **more}
        words = ["bash", "-euo", "pipefail", "-c", lines]
        return subprocess.run(words, cwd=desk, env=environment, capture_output=True, text=True, timeout=120)

    return sh


def last_line(block: str) -> str:
    return block.splitlines()[-1]


def test_ssh_keygen_signs_and_verify_tells_who_and_misses_what_is_changed(desk: Path, sh: Run) -> None:
    needs("ssh-keygen")
    made = sh("ssh-keygen -q -t ed25519 -N '' -f eve && echo eve@example.org $(cat eve.pub) >signers")
    assert made.returncode == 0, made.stderr
    done = sh(example("ssh-keygen"))
    assert done.returncode == 0, done.stderr
    assert "signed by eve@example.org" in done.stdout
    flip(desk / SHARD, 1000)
    assert sh(last_line(example("ssh-keygen"))).returncode == 3


def test_model_signing_covers_every_file_of_a_run(desk: Path, sh: Run) -> None:
    needs("model_signing")
    (desk / "runs/monday/signatures").mkdir()
    sh("openssl ecparam -name prime256v1 -genkey -noout -out eve.pem")
    sh("openssl ec -in eve.pem -pubout -out eve.pub.pem")
    done = sh(example("model_signing"))
    assert done.returncode == 0, done.stderr
    for path in (desk / "runs/monday").rglob("*.*"):
        if path.is_file() and path.parent.name != "signatures":
            flip(path, 20)
            assert sh(last_line(example("model_signing"))).returncode != 0, path
            flip(path, 20)
    assert sh(last_line(example("model_signing"))).returncode == 0
    assert sh("batchcam verify runs/monday").returncode == 0


class Authority(http.server.BaseHTTPRequestHandler):
    """Answers questions for the time with the key of `folder`."""

    def __init__(self, folder: Path, *given: object) -> None:
        self.folder = folder
        super().__init__(*given)  # type: ignore[arg-type]

    def do_POST(self) -> None:
        (self.folder / "asked").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        words = "ts -reply -config tsa.cnf -queryfile asked -signer tsa.pem -inkey tsa.key -out answer"
        subprocess.run(["openssl", *words.split()], cwd=self.folder, check=True, capture_output=True)
        self.send_response(200)
        self.end_headers()
        self.wfile.write((self.folder / "answer").read_bytes())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def authority(desk: Path) -> Iterator[str]:
    """The address of a time stamping authority whose certificate is tsa.pem."""
    (desk / "tsa.cnf").write_text(AUTHORITY.format(desk))
    (desk / "serial").write_text("01\n")
    words = (
        "req -x509 -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.pem -days 2 -subj /CN=TSA "
        "-addext extendedKeyUsage=critical,timeStamping -addext keyUsage=critical,digitalSignature"
    )
    subprocess.run(["openssl", *words.split()], cwd=desk, check=True, capture_output=True)
    with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Authority, desk)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_timestamp_is_of_the_manifest_as_it_was(desk: Path, sh: Run, request: pytest.FixtureRequest) -> None:
    needs("openssl")
    needs("curl")
    (desk / "runs/monday/signatures").mkdir()
    done = sh(example("openssl ts"), TSA=request.getfixturevalue("authority"))
    assert done.returncode == 0, done.stderr
    assert "Verification: OK" in done.stdout + done.stderr
    assert sh("batchcam verify runs/monday").returncode == 0
    flip(desk / MANIFEST, 100)
    assert sh(last_line(example("openssl ts"))).returncode != 0


@pytest.mark.slow
def test_mlflow_keeps_a_runs_numbers(desk: Path, sh: Run) -> None:
    if not importlib.util.find_spec("mlflow"):
        pytest.skip("no mlflow")
    (desk / "monday.html").write_text("a report")
    (desk / "example.py").write_text(example("import mlflow"))
    done = sh(f"{sys.executable} example.py", MLFLOW_TRACKING_URI=f"sqlite:///{desk}/mlflow.db")
    assert done.returncode == 0, done.stderr
    found = sh(f"{sys.executable} -c 'import mlflow; print(mlflow.search_runs(search_all_experiments=True).T)'")
    assert re.search(r"metrics.labelled\s+18\.0", found.stdout), found.stdout + found.stderr
