"""File names and table cells from a run's texts, which are untrusted."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

COMPONENT_BYTES: Final = 180  # of the 255 that file systems allow; the rest is for endings and temporary names
PATH_BYTES: Final = 900
DEPTH: Final = 8
STEM_BYTES: Final = 80
FORBIDDEN: Final = frozenset('\\:*?"<>|,~')
"""What file systems, shells or the metadata files take for something else; ~ marks replaced names."""

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def safe_name(sample_id: str, ending: str, folds_case: bool = False) -> str:
    """Return the sample id as a relative path without `ending` that stays below its folder.

    An id that is a plain relative path stays as it is. Any other becomes one name: its letters and digits, ~ and a
    digest of the id. Two ids never share a file, and a name depends on nothing but its id.

    Args:
        sample_id: any text.
        ending: what is appended to the name, such as ".png".
        folds_case: the file system takes names for one that differ in case or Unicode form only.
    """
    parts = sample_id.split("/")
    plain = all(map(_is_plain, parts)) and len(parts) <= DEPTH and len(sample_id.encode(errors="replace")) <= PATH_BYTES
    # a folder of this name would lie where the file of another id has to go
    plain = plain and not any(part.casefold().endswith(ending) for part in parts[:-1])
    if folds_case:
        plain = plain and sample_id == unicodedata.normalize("NFC", sample_id.casefold())
    if plain:
        return sample_id
    stem = re.sub(r"[^\w.-]+", "_", sample_id).encode(errors="replace")[:STEM_BYTES].decode(errors="ignore")
    digest = hashlib.sha256(sample_id.encode(errors="surrogatepass")).hexdigest()[:32]
    return f"{stem.strip('._-') or 'sample'}~{digest}"


def _is_plain(part: str) -> bool:
    return (
        bool(part)
        and part.isprintable()
        and not FORBIDDEN & set(part)
        and not part.startswith((".", "-", " "))
        and not part.endswith((".", " "))
        and len(part.encode()) <= COMPONENT_BYTES
    )


def cell(text: str) -> str:
    r"""Return a text as a cell that no spreadsheet runs as a formula, on one line.

    Characters that are not printable show as escapes such as \n and \x1b; an apostrophe goes before a text that
    starts with =, +, -, @, a tab or a carriage return.
    """
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return f"'{safe}" if text.startswith(FORMULA_STARTS) else safe
