"""Whose signature of manifest.json it is, as OpenSSH tells: an auditor needs no other program, and no key of ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from batchcam.errors import BatchcamError, ConfigError

NAMESPACE: Final = "batchcam"
"""What signatures are made for, so that one of the same key for something else does not count."""

PROGRAM: Final = "ssh-keygen"
TIMEOUT_S: Final = 60


class SignatureError(BatchcamError):
    """A signature that does not prove what it should."""


def signer(manifest: bytes, signature: Path, allowed_signers: Path) -> str:
    """Return who signed `manifest`, by the name that `allowed_signers` gives the key.

    Raises:
        SignatureError: it is no signature of these bytes by one of them.
        ConfigError: a file can't be read.
        BatchcamError: there is no ssh-keygen that can check it.
    """
    for option, path in (("--signature", signature), ("--allowed-signers", allowed_signers)):
        if not path.is_file() or not os.access(path, os.R_OK):
            raise ConfigError(f"{option} {path}: not a file that can be read")
    files = ("-s", str(signature.absolute()), "-f", str(allowed_signers.absolute()))
    refused = "lists nobody"
    for name in _names(allowed_signers):  # find-principals tells the first line of a key only, whatever it is for
        refused = _refusal(manifest, *files, "-I", name, "-n", NAMESPACE)
        if not refused:
            return name
    raise SignatureError(f"{signature}: not by one of {allowed_signers}: {refused}")


def _names(allowed_signers: Path) -> list[str]:
    """Return one name of each line; a line may give several, and patterns, which stand for themselves too."""
    lines = allowed_signers.read_text("utf-8", "replace").splitlines()
    words = [line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return list(dict.fromkeys(word.strip('"').partition(",")[0] for word in words))


def _refusal(manifest: bytes, *words: str) -> str:
    """Return why the signature does not count, "" if it does."""
    try:
        done = subprocess.run((PROGRAM, "-Y", "verify", *words), input=manifest, capture_output=True, timeout=TIMEOUT_S)
    except FileNotFoundError as error:
        raise BatchcamError(f"{PROGRAM}: not there: install OpenSSH 8.2 or later to check signatures") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise BatchcamError(f"{PROGRAM}: {error}") from error
    told = (done.stderr or done.stdout).decode("utf-8", "replace")
    if "unknown option" in told or "illegal option" in told:
        raise BatchcamError(f"{PROGRAM}: too old: install OpenSSH 8.2 or later to check signatures")
    return told or "no reason told" if done.returncode else ""
