"""The Dockerfile, built by buildah without a daemon on a Debian of debootstrap: both images do what their users need.

What this leaves untried: the bases that the Dockerfile names (Ubuntu, CUDA), and a GPU.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

AUDITOR_BYTES = 400e6
LEAST_OF_DEBIAN = ("doc", "info", "locale", "man")  # what the official images leave out of /usr/share

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("buildah") and shutil.which("debootstrap")), reason="no buildah, debootstrap"),
    pytest.mark.skipif(os.getuid() != 0, reason="debootstrap wants root"),
]


class Buildah:
    """buildah with a storage of its own, and the images that it has built.

    Args:
        folder: for the storage and a base.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.built: set[str] = set()
        self.command = ["buildah", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self.command, *words], check=True, capture_output=True, text=True).stdout.strip()

    def make_base(self) -> None:
        """Make the image that stands for those that the Dockerfile names."""
        root = self.folder / "debian"
        suite = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)[1]
        packages = "--include=ca-certificates"
        subprocess.run(
            ["debootstrap", "--variant=minbase", packages, suite, str(root)], check=True, capture_output=True
        )
        for name in ("cache/apt/archives", "lib/apt/lists"):
            shutil.rmtree(root / "var" / name)
        for name in LEAST_OF_DEBIAN:
            shutil.rmtree(root / "usr/share" / name)
        excluded = (f"path-exclude /usr/share/{name}/*\n" for name in LEAST_OF_DEBIAN)
        (root / "etc/dpkg/dpkg.cfg.d/least").write_text("".join(excluded))
        container = self("from", "scratch")
        self("add", "--quiet", container, str(root), "/")
        self("commit", "--quiet", "--rm", container, "localhost/base")

    def build(self, target: str) -> None:
        """Build one of the Dockerfile's images, the first time that it is wanted."""
        if target in self.built:
            return
        given = {"OS": "localhost/base", "GPU": "localhost/base", "VERSION": "1.2.3", "REVISION": "c0ffee"}
        options = [f"--build-arg={name}={value}" for name, value in given.items()]
        # a host behind a proxy has its certificates there
        options += ["--isolation=chroot", "--volume=/etc/ssl/certs:/etc/ssl/certs:ro", f"--target={target}"]
        self("bud", *options, "--tag", target, str(ROOT))
        self.built.add(target)

    def run(self, image: str, work: Path, *words: str) -> str:
        """Run a command in a new container of an image, with `work` as its working directory."""
        self.build(image)
        container = self("from", image)
        try:
            return self("run", "--isolation=chroot", "--volume", f"{work}:/work", container, "--", *words)
        finally:
            self("rm", container)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    folder = tmp_path_factory.mktemp("buildah")
    built = Buildah(folder)
    built.make_base()
    yield built
    built("rm", "--all")
    built("rmi", "--all", "--force")
    shutil.rmtree(folder)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    tmp_path.chmod(0o777)  # the images' user is none of this machine's
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    return tmp_path


def test_an_auditor_verifies_in_the_small_image_what_the_other_one_explained(buildah: Buildah, work: Path) -> None:
    assert "verified" in buildah.run("worker", work, "batchcam", "demo", "--out", "demo", "--quiet")
    for words in (("verify", "demo/run"), ("report", "demo/run", "--out", "report.html"), ("info", "demo/run")):
        buildah.run("auditor", work, "batchcam", *words)
    assert "<html" in (work / "report.html").read_text()


@pytest.mark.parametrize("image", ["auditor", "worker"])
def test_images_say_their_commit_have_the_job_scripts_and_nothing_of_the_build(
    image: str, buildah: Buildah, work: Path
) -> None:
    assert buildah.run(image, work, "batchcam", "--version") == "batchcam, version 1.2.3"
    buildah.run(image, work, "batchcam", "jobs", "jobs")
    assert {path.name for path in (work / "jobs").iterdir()} == {path.name for path in (ROOT / "jobs").iterdir()}
    left = buildah.run(
        image, work, "sh", "-c", "ls -d /src /wheels /pip /constraints.txt /root/.cache 2>/dev/null; id -u"
    )
    assert left == "10001"
    labels = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == "c0ffee"


def test_the_auditors_image_is_small_and_has_no_torch(buildah: Buildah, work: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        buildah.run("auditor", work, "python3", "-c", "import torch")
    inside = json.loads(buildah("images", "--json", "auditor"))[0]["size"]
    number, unit = re.fullmatch(r"([0-9.]+) ?([MG]B)", inside).groups()
    assert float(number) * {"MB": 1e6, "GB": 1e9}[unit] < AUDITOR_BYTES
