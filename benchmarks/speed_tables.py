"""What `benchmarks.speed` found, as Markdown and SVG."""

from __future__ import annotations

from typing import Any

from benchmarks.contestants import BOUND

Rows = list[dict[str, Any]]


def table(job: str, rows: Rows) -> str:
    """Return a row for each contestant; columns of energy and of a GPU where they were measured."""
    more = [(name, title, form) for name, title, form in (
        ("joules", "J/image", "{:.2f}"), ("gpu_busy", "GPU busy", "{:.0%}"), ("gpu_mb", "GPU MB", "{:.0f}"),
    ) if any(name in row for row in rows)]  # fmt: skip
    titles = [job, "images/s", "batchcam is", "with start-up", "imports + start-up, s", "CPU ms/image", "peak MB"]
    lines = ["| " + " | ".join([*titles, *(title for _, title, _ in more)]) + " |", "|---" * (7 + len(more)) + "|"]
    for row in rows:
        low, high = row["spread"]
        imports = "–" if row["import_s"] is None else f"{row['import_s']:.1f}"
        cells = [
            row["name"],
            f"{row['images_per_s']:.1f} ({low:.1f}–{high:.1f})",
            f"{row['batchcam_is_times']:.2f}× as fast",
            f"{row['batchcam_is_times_whole']:.2f}×",
            f"{imports} + {row['start_s']:.1f} (first {row['start_first_s']:.1f})",
            f"{row['cpu_ms_per_image']:.1f}",
            f"{row['peak_mb']:.0f}",
            *(form.format(row[name]) if name in row else "–" for name, _, form in more),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shares(rows: Rows) -> dict[str, float]:
    """Return the forward stages' rates as shares of the bound, and explain's as shares of the decoding stages'."""
    rates = {row["name"]: row["images_per_s"] for row in rows}
    found = {}
    for name, rate in rates.items():
        if name.startswith("stage: forward pass") and BOUND in rates:
            found[f"{name}, of the bound"] = rate / rates[BOUND]
        words, _, options = name.partition("batchcam explain")
        ceiling = rates.get("stage: decoding" + (", --pixels tensor" if "--pixels tensor" in options else ""))
        if not words and ceiling:
            found[f"{name}, of the decoding stage"] = rate / ceiling
    return found


def chart(jobs: dict[str, Rows]) -> str:
    """Return horizontal bars of images per second, as SVG."""
    parts, y = [], 10
    for job, rows in jobs.items():
        shown = [row for row in rows if not row["name"].startswith(("stage", "bound"))]
        most = max(row["images_per_s"] for row in shown)
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{job}: images/s</text>')
        y += 24
        for row in shown:
            width, fill = 420 * row["images_per_s"] / most, "#1b6ca8" if "batchcam" in row["name"] else "#9aa5b1"
            parts.append(f'<text x="270" y="{y + 14}" text-anchor="end">{row["name"]}</text>')
            parts.append(f'<rect x="278" y="{y + 2}" width="{width:.0f}" height="16" fill="{fill}"/>')
            parts.append(f'<text x="{284 + width:.0f}" y="{y + 14}">{row["images_per_s"]:.0f}</text>')
            y += 22
        y += 14
    style = 'font-family="sans-serif" font-size="12"'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{y}" {style}>{paper}{"".join(parts)}</svg>\n'
