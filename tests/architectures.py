"""Which of torchvision's classifiers have exact CAMs: `python tests/architectures.py` writes docs/architectures.md.

Random weights, with batch normalisation as if it had learned; two images of 224 px; the largest networks take minutes.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch
import torchvision
from networks import random_images, torchvision_network

from batchcam.engine.proof import prove
from batchcam.errors import ModelError

PAGE = Path(__file__).parent.parent / "docs" / "architectures.md"
INPUT_SIZE = 224
CLASS_COUNT = 10
FAMILIES = {
    "mobilenet_v3": "an activation lies between two linear layers",
    "maxvit": "an activation lies between two linear layers",
    "vgg": "cells are flattened, not averaged; activations lie between linear layers",
    "alexnet": "cells are flattened, not averaged; activations lie between linear layers",
    "vit": "the class token is no mean of cells",
}
"""Why a family has none."""

HEADER = f"""# Architectures

`batchcam explain` finds the layer of whose spatial mean the logits are an exact linear map, and measures the identity
mean(CAM) + bias = logit, before it writes anything. Of torchvision's classifiers these have such a layer.
`relu(features)` means the layer's output, rectified by a function behind it; `layer_norm(features)` the output divided
by the deviation that the layer norm behind the pooling divides by (its other parts are linear, and part of
`classifier/weight` and `/bias`). SqueezeNet averages one map per class: its `classifier/weight` is the unit matrix.

Grid: cells of a map for an input of {INPUT_SIZE} px. Residual: largest abs(mean(CAM) + bias − logit), relative to
max(1, largest abs(logit)), in float32 with random weights; the tolerance is 1e-4.

Made by `python tests/architectures.py` with torch {{torch}}, torchvision {{torchvision}}.

| architecture | exact CAM | layer | grid | residual |
|---|---|---|---|---|
"""


def row(name: str) -> str:
    """Return the table's line for one architecture."""
    network = torchvision_network(name, CLASS_COUNT)
    try:
        proved = prove(network, random_images(2, INPUT_SIZE, INPUT_SIZE))
    except ModelError:
        reason = next((reason for family, reason in FAMILIES.items() if name.startswith(family)), "")
        return f"| {name} | no: {reason} | | | |"
    grid = "×".join(map(str, proved.grid_size))
    return f"| {name} | yes | `{proved.target_layer}` | {grid} | {proved.residual:.1e} |"


def main() -> None:
    torch.set_num_threads(1)
    lines = []
    for name in sorted(torchvision.models.list_models(module=torchvision.models)):
        lines.append(row(name))
        print(lines[-1], flush=True)
        gc.collect()
    versions = {"torch": torch.__version__.partition("+")[0], "torchvision": torchvision.__version__.partition("+")[0]}
    PAGE.write_text(HEADER.format(**versions) + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
