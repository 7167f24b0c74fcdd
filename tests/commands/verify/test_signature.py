"""verify --manifest-sha256 and --signature: what proves a run lies elsewhere; checked against OpenSSH itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from batchcam.commands.verify.config import VerifyConfig
from batchcam.commands.verify.verify import verify
from tests.helpers.damage import edit_document, edited, flip

pytestmark = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen")


class Signer:
    """A key, and a file that lists it."""

    def __init__(self, folder: Path, name: str) -> None:
        self.key = folder / name
        self.signers = folder / f"{name}.signers"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", self.key], check=True)
        self.public = (folder / f"{name}.pub").read_text()
        self.signers.write_text(f"{name}@example.org {self.public}")

    def sign(self, run: Path, namespace: str = "batchcam") -> Path:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", self.key, "-n", namespace]
        manifest = (run / "manifest.json").read_bytes()
        signed = subprocess.run(command, input=manifest, check=True, capture_output=True).stdout
        (run / "signatures").mkdir(exist_ok=True)
        path = run / "signatures" / f"{self.key.name}.sig"
        path.write_bytes(signed)
        return path


@pytest.fixture
def alice(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "alice")


def words(signature: Path, signers: Path) -> list[str]:
    return ["--signature", str(signature), "--allowed-signers", str(signers), "--quiet"]


def test_a_signature_of_the_manifest_is_told_with_its_name(finished_run: Path, alice: Signer, run_cli) -> None:
    signature = alice.sign(finished_run)
    code, stdout, _ = run_cli("verify", finished_run, *words(signature, alice.signers))
    assert (code, stdout.splitlines()[-1].endswith(", signed by alice@example.org")) == (0, True)
    summary = verify(
        VerifyConfig(finished_run, signature=signature, allowed_signers=alice.signers, quiet=True), confine=False
    )
    assert (summary.found, summary.signed_by) == ([], "alice@example.org")


def test_a_manifest_that_was_made_anew_is_not_what_was_signed(finished_run: Path, alice: Signer, run_cli) -> None:
    signature = alice.sign(finished_run)
    edit_document(finished_run / "manifest.json", made={"when": "later"})
    assert run_cli("verify", finished_run, "--quiet")[0] == 0
    code, stdout, _ = run_cli("verify", finished_run, *words(signature, alice.signers))
    assert (code, stdout.startswith("signature: manifest.json: ")) == (3, True)
    assert "Signature verification failed: incorrect signature" in stdout


def test_a_signature_by_a_key_that_is_not_listed_is_a_finding(finished_run, alice, tmp_path, run_cli) -> None:
    signature = Signer(tmp_path, "mallory").sign(finished_run)
    code, stdout, _ = run_cli("verify", finished_run, *words(signature, alice.signers))
    assert (code, "signature: manifest.json: " in stdout) == (3, True)


def test_a_signature_for_another_purpose_is_a_finding(finished_run: Path, alice: Signer, run_cli) -> None:
    signature = alice.sign(finished_run, "git")
    assert run_cli("verify", finished_run, *words(signature, alice.signers))[0] == 3


def test_a_key_that_is_listed_for_several_purposes_counts_for_ours(finished_run: Path, alice: Signer, run_cli) -> None:
    lines = [f'old@example.org namespaces="git" {alice.public}', f"alice@example.org,ops@example.org {alice.public}"]
    alice.signers.write_text("".join(lines))
    code, stdout, _ = run_cli("verify", finished_run, *words(alice.sign(finished_run), alice.signers))
    assert (code, "signed by alice@example.org" in stdout) == (0, True)


@pytest.mark.parametrize("content", [b"", b"no signature", b"-----BEGIN SSH SIGNATURE-----\nAAAA\n"])
def test_what_is_no_signature_is_a_finding(finished_run, alice, tmp_path, run_cli, content: bytes) -> None:
    (tmp_path / "x.sig").write_bytes(content)
    assert run_cli("verify", finished_run, *words(tmp_path / "x.sig", alice.signers))[0] == 3


@pytest.mark.parametrize("program", [None, "#!/bin/sh\necho 'unknown option -- Y' >&2; exit 1\n"])
def test_a_check_that_cannot_start_is_no_finding(finished_run, alice, tmp_path, run_cli, monkeypatch, program) -> None:
    signature = alice.sign(finished_run)
    (tmp_path / "bin").mkdir()
    if program:
        (tmp_path / "bin/ssh-keygen").write_text(program)
        (tmp_path / "bin/ssh-keygen").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    code, _, stderr = run_cli("verify", finished_run, *words(signature, alice.signers))
    assert (code, "install OpenSSH" in stderr) == (1, True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--signature", "none"], "--signature and --allowed-signers need each other"),
        (["--signature", "none", "--allowed-signers", "none"], "--signature none: not a file that can be read"),
        (["--manifest-sha256", "123"], "--manifest-sha256 '123': expected a SHA-256, 64 hexadecimal digits"),
    ],
)
def test_what_cannot_be_meant_is_told(finished_run: Path, run_cli, given: list[str], told: str) -> None:
    code, _, stderr = run_cli("verify", finished_run, *given, "--quiet")
    assert (code, told in stderr) == (2, True)


def test_the_digest_that_was_noted_down_is_compared_in_upper_and_lower_case(finished_run: Path, run_cli) -> None:
    noted = verify(VerifyConfig(finished_run, quiet=True), confine=False).manifest_sha256
    assert noted
    for digest in (noted, noted.upper()):
        assert run_cli("verify", finished_run, "--manifest-sha256", digest, "--quiet")[0] == 0
    code, stdout, _ = run_cli("verify", finished_run, "--manifest-sha256", "0" * 64, "--quiet")
    assert (code, "other-manifest: manifest.json: SHA-256 is " in stdout) == (3, True)
    (finished_run / "manifest.json").unlink()
    assert "SHA-256 is not known" in run_cli("verify", finished_run, "--manifest-sha256", noted, "--quiet")[1]


def test_signatures_may_lie_in_a_run_and_nothing_else(finished_run: Path, alice: Signer) -> None:
    alice.sign(finished_run)
    (finished_run / "signatures/manifest.json.tsr").write_bytes(b"a timestamp")
    assert verify(VerifyConfig(finished_run, quiet=True), confine=False).found == []
    (finished_run / "signatures/more").mkdir()
    (finished_run / "signatures/link").symlink_to(finished_run / "run.json")
    found = verify(VerifyConfig(finished_run, quiet=True), confine=False).found
    names = ["signatures/link", "signatures/more"]
    assert [(f.kind.value, f.file) for f in found] == [("unexpected-file", name) for name in names]


def test_a_link_in_the_place_of_the_signatures_is_a_finding(finished_run: Path, tmp_path: Path) -> None:
    (finished_run / "signatures").symlink_to(tmp_path)
    (found,) = verify(VerifyConfig(finished_run, quiet=True), confine=False).found
    assert (found.kind.value, found.file) == ("unexpected-file", "signatures")


@pytest.mark.parametrize("flips", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_flipped_bit_of_a_signed_run_is_found(finished_run: Path, alice: Signer, flips: int) -> None:
    config = VerifyConfig(finished_run, signature=alice.sign(finished_run), allowed_signers=alice.signers, quiet=True)
    files = [finished_run / "manifest.json", finished_run / "run.h5", *sorted(finished_run.glob("shards/*.h5"))]
    sizes = [path.stat().st_size for path in files]
    rng, ends = np.random.default_rng(7), np.cumsum(sizes)
    # half of them in the manifest, which is small: of all bytes alone hardly one would be
    places = np.where(rng.random(flips) < 0.5, rng.integers(0, sizes[0], flips), rng.integers(0, ends[-1], flips))
    missed = []
    for place, bit in zip(places.tolist(), rng.integers(0, 8, flips).tolist(), strict=True):
        number = int(np.searchsorted(ends, place, "right"))
        at = place - int(ends[number]) + sizes[number]
        flip(files[number], at, bit)
        if verify(config, confine=False).passed:
            missed.append((files[number].name, at, bit))
        flip(files[number], at, bit)
    assert missed == []
    assert verify(config, confine=False).passed


def test_a_signature_tells_a_shard_that_was_made_anew_with_all_digests(finished_run: Path, alice: Signer) -> None:
    config = VerifyConfig(finished_run, signature=alice.sign(finished_run), allowed_signers=alice.signers, quiet=True)
    with edited(finished_run) as file:
        file["confidence"][0] = np.nextafter(file["confidence"][0], np.float32(0))
    (found,) = {finding.kind.value for finding in verify(config, confine=False).found}
    assert found == "signature"
