"""What benchmarks/gpu.sh found, as one JSON and a row of docs/speed.md: `python -m benchmarks.gpu OUT`."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

from benchmarks.contestants import OURS

TITLES = (
    "| machine | images/s, fp32 | bf16, `tensor` | of the decoding stage | GPU busy | H2D, D2H kB/image | GPU MB | "
    "tests passed, failed |\n|---|---|---|---|---|---|---|---|"
)
FASTEST = f"{OURS} --precision bf16 --pixels tensor"


def main(out: Path) -> int:
    """Write both; return 1 if a test failed, or none ran beside a benchmark on a GPU, or a part is missing."""
    tests, bench = outcomes(out / "tests.xml"), read(out / "bench.json")
    (out / "gpu.json").write_text(json.dumps({"tests": tests, **bench}, indent=1), encoding="utf-8")
    text = f"{TITLES}\n{row(tests, bench)}\n" if bench else "the benchmark did not end\n"
    (out / "row.md").write_text(text, encoding="utf-8")
    print(text)
    if not (bench and tests):
        return 1
    return int(tests["failed"] > 0 or (tests["passed"] == 0 and bench["asked"]["device"] != "cpu"))


def outcomes(path: Path) -> dict[str, int]:
    """Return how many tests passed, failed and were left out; nothing if they did not end."""
    if not path.exists():
        return {}
    suite = next(xml.etree.ElementTree.parse(path).iter("testsuite"))
    count, skipped, *bad = (int(suite.attrib[name]) for name in ("tests", "skipped", "failures", "errors"))
    return {"passed": count - skipped - sum(bad), "failed": sum(bad), "skipped": skipped}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def row(tests: dict[str, int], bench: dict[str, Any]) -> str:
    """Return the cells of the JPEGs' job; "–" where a number was not measured."""
    job, rows = next(iter(bench["jobs"].items()))
    ours, fastest = ({each["name"]: each for each in rows}.get(name, {}) for name in (OURS, FASTEST))
    share = bench["shares"][job].get(f"{OURS}, of the decoding stage")

    def cell(value: float | None, form: str) -> str:
        return "–" if value is None else form.format(value)

    moved = [ours.get(f"bytes_to_{side}", 0) / 1000 for side in ("device", "host")]
    cells = [
        bench["machine"],
        cell(ours.get("images_per_s"), "{:,.0f}"),
        cell(fastest.get("images_per_s"), "{:,.0f}"),
        cell(share, "{:.2f}"),
        cell(ours.get("gpu_busy"), "{:.0%}"),
        ", ".join(f"{each:.0f}" for each in moved),
        cell(ours.get("gpu_mb"), "{:,.0f}"),
        f"{tests['passed']}, {tests['failed']}" if tests else "–",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
