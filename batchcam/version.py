"""The version that records carry: it names the code that made them.

In a checkout git is asked, so that it is the commit that runs, and not the one that was there at `pip install -e`.
The form is setuptools-scm's: `0.1.dev120+g019b05a96` is commit 019b05a96, the 120th of a history without tags; `0.2.0`
is what was tagged v0.2.0. Where the package's files are not the commit's, a digest of them follows:
`0.1.dev120+g019b05a96.changed.5f0c1e8a2b4d`.

Elsewhere it is what the distribution says that the package lies in: an installed wheel, an unpacked sdist. Where that
does not know (a copied folder, an archive), or git can't be asked, the digest still tells one code from another:
`0.0+unknown.5f0c1e8a2b4d`.

Only a repository of ours counts, in whose root the package lies: never one around an environment or the working
directory, and none that GIT_DIR names, as in a hook. It is looked up when it is first wanted, once a process; of a
command's processes only one writes records.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import re
import subprocess
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).resolve().parent

UNKNOWN: Final = "0.0"
"""What builds are called where there is no git and no tag: fallback_version in pyproject.toml."""

GIT_TIMEOUT_S = 10.0
"""A repository on a file server that hangs does not hold up a run."""


@functools.cache
def version() -> str:
    """Return the version of the code that runs."""
    return version_of(PACKAGE)


def version_of(package: Path) -> str:
    """Return the version of a package's folder."""
    root = package.parent
    known = _of_checkout(package) if _is_checkout(root) else _of_distribution(root)
    return known or f"{UNKNOWN}+unknown.{_digest(package)}"


def _is_checkout(root: Path) -> bool:
    """Return whether the repository at `root`, if there is one, is batchcam's, and no other's that took in a copy."""
    try:
        return (root / ".git").exists() and "name = batchcam\n" in (root / "setup.cfg").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _of_checkout(package: Path) -> str | None:
    root = package.parent
    described = _git(root, "describe", "--tags", "--long", "--always", "--abbrev=9", "--match=v[0-9]*")
    changes = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", package.name)
    if not described or changes is None:
        return None
    if "-" not in described:  # the commit alone: there is no tag
        described = f"v{UNKNOWN}-{_git(root, 'rev-list', '--count', 'HEAD')}-g{described}"
    tag, distance, commit = described.rsplit("-", 2)
    if distance == "0" and not changes:
        return tag[1:]
    following = re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), tag[1:])
    return f"{following}.dev{distance}+{commit}" + (f".changed.{_digest(package)}" if changes else "")


def _git(root: Path, *words: str) -> str | None:
    """Return what git prints about the repository at `root`; None where it is missing, fails, or takes too long."""
    # named outright: git then looks for no other repository, and does not mind that this one is another user's, whose
    # code is running anyway; a monitor of files is not started, and no lock is taken that a commit would meet
    where = (f"--git-dir={root / '.git'}", f"--work-tree={root}", "--no-optional-locks", "-c", "core.fsmonitor=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ("git", *where, *words),
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,  # what a scheduler sends to all processes of a job is not meant for it
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()


def _of_distribution(root: Path) -> str | None:
    """Return the version in the metadata beside the package: elsewhere on sys.path may be those of another copy."""
    found = (d.version for d in importlib.metadata.distributions(name="batchcam", path=[str(root)]))
    return next((known for known in found if known != UNKNOWN), None)


def _digest(package: Path) -> str:
    """Return a short SHA-256 of the package's modules, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]
