"""What `batchcam discover` and the report find of planted shortcuts: `python -m benchmarks.shortcuts --out DIR`.

Images are the demo's shapes with a cue of another kind in each study. In a share of them, the leak, the cue tells the
class: of every class, or of one of five. A network learns from such images, and is explained and judged on others of
the same kind. The truth is not the leak but what the network makes of it: the accuracy that it loses once cues tell
another class. Honest networks learned from images whose cues say nothing, or that have none.

Each case writes DIR/<case>.json and is not made again; several processes may share DIR, each with its --seeds. The
table of all cases that are there is written to DIR/shortcuts.md at the end.
"""

from __future__ import annotations

import argparse
import colorsys
import contextlib
import dataclasses
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from batchcam.commands.demo import shapes
from batchcam.commands.discover.config import DiscoverConfig
from batchcam.commands.discover.discover import discover
from batchcam.commands.discover.rule import NONE, TOO_FEW
from batchcam.commands.discover.summary import DiscoverSummary
from batchcam.commands.evaluate.config import EvaluateConfig
from batchcam.commands.evaluate.evaluate import evaluate
from batchcam.commands.explain.config import ExplainConfig
from batchcam.commands.explain.explain import explain
from batchcam.commands.report.config import ReportConfig
from batchcam.commands.report.report import report
from batchcam.commands.train.config import TrainConfig
from batchcam.commands.train.train import train
from batchcam.config.shared import Classifier, Compute
from batchcam.errors import RunError

K: Final = len(shapes.CLASSES)
SIZE: Final = 128  # pixels of a side: 4x4 cells
ALL, ONE, HONEST = "all", "one", "honest"
LEAKS: Final = (100, 95, 85, 60)
FIXED: Final = ("tag", "watermark", "frame")
"""Cues that stand in one place, or in a few."""

COMPUTE: Final = Compute(threads=1, device="cpu", workers=0)
RANGES: Final = ((0.5, 1.01, "50 points and more"), (0.2, 0.5, "20 to 50 points"), (-1.0, 0.2, "less than 20"))
"""Of the accuracy that is lost once cues change."""


def _colour(value: int) -> np.ndarray:
    return np.rint(np.array(colorsys.hsv_to_rgb((value + 0.5) / K, 1, 1)) * 255)


def _tile(value: int, side: int) -> np.ndarray:
    """Return one colour in a white frame."""
    picture = np.full((side, side, 3), 255.0)
    picture[2:-2, 2:-2] = _colour(value)
    return picture


def tag(image: np.ndarray, mask: np.ndarray, value: int, rng: np.random.Generator) -> None:
    """Stick a tag into a corner that the object leaves free."""
    side = round(0.2 * SIZE)
    ends = (0, SIZE - side)
    corners = [(slice(y, y + side), slice(x, x + side)) for y in ends for x in ends]
    free = [corner for corner in corners if not mask[corner].any()]
    image[free[int(rng.integers(len(free)))]] = _tile(value, side)


def token(image: np.ndarray, mask: np.ndarray, value: int, rng: np.random.Generator) -> None:
    """Lay a small tile anywhere."""
    side = round(0.15 * SIZE)
    y, x = rng.integers(SIZE - side, size=2)
    image[y : y + side, x : x + side] = _tile(value, side)


def watermark(image: np.ndarray, mask: np.ndarray, value: int, rng: np.random.Generator) -> None:
    """Blend stripes over the lower edge's middle, whose direction and period tell the value."""
    height, width = round(0.2 * SIZE), round(0.4 * SIZE)
    y, x = np.mgrid[:height, :width]
    angle = np.pi * value / K
    stripes = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / (5 + value)) > 0
    left = (SIZE - width) // 2
    patch = image[SIZE - height :, left : left + width]
    patch[:] = 0.5 * patch + 0.5 * 255 * stripes[..., None]


def frame(image: np.ndarray, mask: np.ndarray, value: int, rng: np.random.Generator) -> None:
    """Draw a frame around the image."""
    edge = round(0.04 * SIZE)
    inside = image[edge:-edge, edge:-edge].copy()
    image[:] = _colour(value)
    image[edge:-edge, edge:-edge] = inside


def cast(image: np.ndarray, mask: np.ndarray, value: int, rng: np.random.Generator) -> None:
    """Tint the whole image."""
    image[:] = 0.88 * image + 0.12 * _colour(value)


Cue = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], None]
CUES: Final[dict[str, Cue]] = {cue.__name__: cue for cue in (tag, token, watermark, frame, cast)}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Images of each class, epochs of leaky and of honest networks, and samples that discover draws."""

    train: int = 160
    test: int = 80
    epochs: int = 6
    honest_epochs: int = 12
    samples: int = 400


QUICK: Final = Sizes(train=60, test=25, epochs=4, honest_epochs=4, samples=125)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        cue: by name, "none" for images without.
        leak: per cent of the images in which the cue tells the class.
        scope: of which classes: all, one, or of none.
    """

    cue: str
    leak: int
    scope: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.cue}-{self.leak}-{self.scope}-{self.seed}"

    @property
    def leaking(self) -> int:
        """The class that leaks where one does."""
        return self.seed % K

    def value(self, split: str, class_index: int, rng: np.random.Generator) -> int | None:
        """Return which class the cue of an image tells, None: it has none."""
        leaks = rng.random() < self.leak / 100
        other = int(class_index + rng.integers(1, K)) % K
        if self.cue == "none":
            return None
        if self.scope == ONE:
            shown = (class_index == self.leaking and leaks) if split != "changed" else class_index != self.leaking
            return self.leaking if shown else None
        if split == "changed":
            return other
        return class_index if leaks else int(rng.integers(K))


def cases(seeds: Sequence[int], quick: bool) -> Iterator[Case]:
    """Yield the cases of some seeds: 40 with a leak and 7 honest ones each, if quick three in all."""
    if quick:
        yield from (Case("tag", 100, ALL, 0), Case("token", 85, ONE, 0), Case("none", 0, HONEST, 0))
        return
    for seed in seeds:
        for cue in CUES:
            yield from (Case(cue, leak, scope, seed) for leak in LEAKS for scope in (ALL, ONE))
            yield Case(cue, 0, HONEST, seed)
        yield from (Case("none", 0, HONEST, seed + 1000 * again) for again in range(2))


def draw(case: Case, sizes: Sizes, folder: Path) -> None:
    """Write the sets train, test and changed of a case; test and changed differ in their cues only."""
    for split, count in (("train", sizes.train), ("test", sizes.test), ("changed", sizes.test)):
        for class_index, class_name in enumerate(shapes.CLASSES):
            (folder / split / class_name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                entropy = [case.seed, zlib.crc32(split.replace("changed", "test").encode()), class_index, number]
                image, mask = shapes.draw(class_name, np.random.default_rng(entropy), SIZE)
                picture, rng = image.astype(np.float64), np.random.default_rng([*entropy, 1])
                if (value := case.value(split, class_index, rng)) is not None:
                    CUES[case.cue](picture, mask, value, rng)
                written = np.rint(picture[..., ::-1]).clip(0, 255).astype(np.uint8)
                cv2.imwrite(
                    str(folder / split / class_name / f"{number:05d}.png"), written, [cv2.IMWRITE_PNG_COMPRESSION, 1]
                )


def make(case: Case, sizes: Sizes, folder: Path) -> tuple[Classifier, float, float]:
    """Draw, train and explain a case; return its network, its accuracy, and what of it is lost once cues change."""
    shutil.rmtree(folder, ignore_errors=True)
    draw(case, sizes, folder)
    checkpoint = folder / "model.pth"
    train(
        TrainConfig(
            str(folder / "train"),
            checkpoint,
            arch="shufflenet_v2_x0_5",
            epochs=sizes.honest_epochs if case.scope == HONEST else sizes.epochs,
            batch_size=20,
            learning_rate=2e-3,
            weight_decay=0.0,
            seed=case.seed,
            image_size=str(SIZE),
            mean="0.5",
            std="0.5",
            workers=0,
            threads=1,
            device="cpu",
            quiet=True,
        )
    )
    classifier = Classifier(checkpoint)
    explain(ExplainConfig(classifier, str(folder / "test"), folder / "run", COMPUTE, quiet=True))
    accuracy = [
        evaluate(EvaluateConfig(classifier, str(folder / split), COMPUTE, quiet=True)).accuracy or 0.0
        for split in ("test", "changed")
    ]
    return classifier, accuracy[0], accuracy[0] - accuracy[1]


def judge(case: Case, sizes: Sizes, out: Path) -> dict[str, Any]:
    """Make a case and ask discover; return what is known of it, and leave it in DIR/<case>.json."""
    result = out / f"{case.name}.json"
    if result.exists():
        return dict(json.loads(result.read_text(encoding="utf-8")))
    folder = out / case.name
    classifier, accuracy, lost = make(case, sizes, folder)
    found: DiscoverSummary | None = None
    asked = DiscoverConfig(
        folder / "run",
        classifier,
        str(folder / "test"),
        samples=sizes.samples,
        out=out / "pages" / case.name,
        device="cpu",
        threads=1,
        quiet=True,
    )
    with contextlib.suppress(RunError):  # a network that learned nothing says one class of all images
        found = discover(asked)
    page = out / "pages" / f"{case.name}.html"
    gatherings = report(ReportConfig(folder / "run", page, overwrite=True, quiet=True)).gatherings
    effects = [] if found is None else [v.carried.effect for v in found.classes if v.carried is not None]
    known = {
        **dataclasses.asdict(case),
        "accuracy": accuracy,
        "lost": lost,
        "claims": found.claims if found else {},
        "overall": found.overall.verdict if found else TOO_FEW,
        "screen": [gathering.class_name for gathering in gatherings],
        "leaking": shapes.CLASSES[case.leaking] if case.scope == ONE else None,
        "largest_effect": max(effects, default=None),
    }
    shutil.rmtree(folder)
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(known), encoding="utf-8")
    partial.rename(result)
    return known


def is_found(known: dict[str, Any]) -> bool:
    """Whether something is claimed; where one class leaks, of this class."""
    claimed = known["claims"].keys() if known["leaking"] is None else {known["leaking"]} & known["claims"].keys()
    return bool(claimed) or (known["leaking"] is None and known["overall"] not in (NONE, TOO_FEW))


def table(every: list[dict[str, Any]]) -> str:
    """Return how many networks of each cue were found, by the accuracy that they lose, and the honest ones accused."""
    head = "| cue | " + " | ".join(f"lost {name}: found" for *_, name in RANGES) + " |"
    lines = [head, "|---" * (len(RANGES) + 1) + "|"]
    leaky = [known for known in every if known["scope"] != HONEST]
    for cue in CUES:
        cells = []
        for low, high, _ in RANGES:
            some = [is_found(known) for known in leaky if known["cue"] == cue and low <= known["lost"] < high]
            cells.append(f"{sum(some)} of {len(some)}" if some else "")
        lines.append(f"| {cue} | {' | '.join(cells)} |")
    honest = [known for known in every if known["scope"] == HONEST]
    accused = sum(bool(known["claims"]) or known["overall"] not in (NONE, TOO_FEW) for known in honest)
    effects = [known["largest_effect"] for known in honest if known["largest_effect"] is not None]
    most = f"; largest effect of a class {max(effects):.2f}" if effects else ""
    lines += [
        "",
        f"Honest networks accused: {accused} of {len(honest)}{most}.",
        "",
        _screened(every),
        "",
        _cases(every),
    ]
    return "\n".join(lines) + "\n"


def _screened(every: list[dict[str, Any]]) -> str:
    """Return what the report's screen alone finds of cues at fixed places, where a class leaks of this class."""
    low = RANGES[0][0]
    costly = [known for known in every if known["cue"] in FIXED and known["scope"] != HONEST and known["lost"] >= low]
    found = sum(
        bool(known["screen"]) if known["leaking"] is None else known["leaking"] in known["screen"] for known in costly
    )
    honest = [known for known in every if known["scope"] == HONEST]
    accused = sum(bool(known["screen"]) for known in honest)
    return (
        f"The report's screen alone: {found} of {len(costly)} cues at fixed places that cost {100 * low:.0f} points "
        f"and more, {accused} of {len(honest)} honest networks."
    )


def _cases(every: list[dict[str, Any]]) -> str:
    lines = ["| cue | leak | classes | seed | accuracy | lost | claims | largest effect |", "|---" * 8 + "|"]
    for k in every:
        claims = "; ".join(f"{name}: {what}" for name, what in k["claims"].items())
        if k["overall"] not in (NONE, TOO_FEW):
            claims = f"all samples: {k['overall']}; {claims}".rstrip("; ")
        effect = "" if k["largest_effect"] is None else f"{k['largest_effect']:.2f}"
        numbers = f"{k['accuracy']:.3f} | {k['lost']:.3f} | {claims} | {effect}"
        lines.append(f"| {k['cue']} | {k['leak']} % | {k['scope']} | {k['seed']} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for everything")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="whose cases to make (default: 0 1 2)")
    parser.add_argument("--quick", action="store_true", help="three small cases: whether it runs, no result")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    for case in cases(chosen.seeds, chosen.quick):
        known = judge(case, QUICK if chosen.quick else Sizes(), chosen.out)
        print(f"{case.name}: lost {known['lost']:.3f}, claims {known['claims'] or 'nothing'}", flush=True)
    every = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(chosen.out.glob("*.json"))]
    (chosen.out / "shortcuts.md").write_text(table(every), encoding="utf-8")
    print(table(every), end="")


if __name__ == "__main__":
    main()
