"""The signature of a run's manifest, which `verify --signature` checks."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from batchcam.commands.verify.signature import NAMESPACE, PROGRAM
from batchcam.errors import BatchcamError
from batchcam.store import landing
from batchcam.store.schema import MANIFEST_FILE, SIGNATURE_FOLDER

TIMEOUT_S: Final = 300  # an agent may ask somebody


def signature_file(run: Path) -> Path:
    """Return where the signature of a run's manifest lies."""
    return run / SIGNATURE_FOLDER / f"{MANIFEST_FILE}.sig"


def sign(run: Path, key: Path) -> None:
    """Sign the manifest of a run.

    Raises:
        BatchcamError: ssh-keygen could not, or the signature not be written.
    """
    words = [PROGRAM, "-Y", "sign", "-f", str(key.absolute()), "-n", NAMESPACE]
    try:
        manifest = (run / MANIFEST_FILE).read_bytes()
        done = subprocess.run(words, input=manifest, capture_output=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise BatchcamError(f"{PROGRAM}: {error}; it needs OpenSSH 8.2 or later") from error
    if done.returncode or not done.stdout:
        raise BatchcamError(f"{PROGRAM}: cannot sign with {key}: {done.stderr.decode(errors='replace')}")
    landing.make_folder(signature_file(run).parent)
    landing.land(signature_file(run), done.stdout)
