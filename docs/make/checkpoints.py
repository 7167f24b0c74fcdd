"""Which checkpoints are explained: `python -m docs.make.checkpoints` writes the table of docs/checkpoints.md.

Each kind is made by the library that writes it, and explained; what an error says to be done is done, until it is
explained with the logits of the network that was saved. Rows of kinds whose library is not installed stay. Minutes.
"""

from __future__ import annotations

import logging
import re
import tempfile
import warnings
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from tests.helpers.checkpoint_kinds import TOLERANCE, Kind, Outcome, tried
from tests.helpers.checkpoint_table import KINDS

PAGE = Path(__file__).parents[1] / "checkpoints.md"
MARKED = re.compile(r"(?<=<!-- checkpoints -->\n).*?(?=<!-- /checkpoints -->)", re.DOTALL)
LIBRARIES = (
    "torch", "torchvision", "safetensors", "timm", "transformers", "lightning", "accelerate", "fastai", "mmengine",
    "mmpretrain", "ultralytics", "torchao", "onnx",
)  # fmt: skip
AS_IT_IS, ONCE_MADE, REFUSED = "explained", "explained, once", "refused"


def row(kind: Kind, outcome: Outcome) -> str:
    """Return what the page says of a kind."""
    if outcome.refusal:
        return f"| {kind.name} | {kind.by} | | {REFUSED}: {_code(outcome.refusal)} |"
    options = [_code(_of_any_network(step)) for step in outcome.steps if step.startswith("--")]
    others = [
        _code(s) if s.startswith(("torch", "safetensors.", "python")) else s
        for s in outcome.steps
        if not s.startswith("--")
    ]
    told = f"{ONCE_MADE}: {', then '.join(others)}" if others else AS_IT_IS
    return f"| {kind.name} | {kind.by} | {' '.join(options)} | {told} |"


def read_page() -> dict[str, str]:
    """Return the rows of the page, by kind."""
    (table,) = MARKED.findall(PAGE.read_text(encoding="utf-8"))
    return {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines() if line.startswith("| ")}


def _of_any_network(option: str) -> str:
    """Return an option without the name of the network that this command made."""
    if option.startswith("--model "):
        return "--model MODULE:CALLABLE"
    return re.sub(r"--arch (hf:|timm:)?.*", r"--arch \1NAME", option)


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", r"\|")


def _made(kind: Kind) -> tuple[str, float]:
    """Return a kind's row, and how far the logits were from the network's."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = tried(kind, Path(folder))
    assert bool(outcome.refusal) == bool(kind.untried), f"{kind.name}: {outcome}"
    assert outcome.difference <= TOLERANCE, f"{kind.name}: {outcome}"
    return row(kind, outcome), outcome.difference


def _versions() -> str:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name).partition('+')[0]}")
        except PackageNotFoundError:
            found.append(f"no {name}, whose rows are from before")
    return ", ".join(found)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable()
    shown, lines, largest = read_page(), [], 0.0
    for kind in KINDS:
        if kind.missing:
            line = shown.get(kind.name, f"| {kind.name} | {kind.by} | | not tried: {kind.missing} is not installed |")
        else:
            line, difference = _made(kind)
            largest = max(largest, difference)
        lines.append(line)
        print(line, flush=True)
    counts = Counter(line.rstrip("|").rpartition(" | ")[2].partition(":")[0].strip() for line in lines)
    table = (
        f"{len(lines)} kinds: {counts[AS_IT_IS]} are explained as they are, {counts[ONCE_MADE]} once what their error "
        f"says is done, {counts[REFUSED]} are refused, as only their owner can do it.\n"
        f"Logits are within {largest:.0e} of the saved network's own. Made with {_versions()}.\n\n"
        "| checkpoint | written by | say | what happens |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"
    )
    PAGE.write_text(MARKED.sub(lambda _: table, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
