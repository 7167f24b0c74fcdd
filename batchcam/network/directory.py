"""A directory that says what it holds: of transformers, or of timm."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from batchcam.errors import CheckpointError, ConfigError, one_line
from batchcam.images.recipes import UnknownRecipeError, timm_recipe, transformers_recipe
from batchcam.images.regular_files import NotRegularError, TooLargeError, read_regular_file
from batchcam.network.file_kinds import INDEX
from batchcam.network.libraries import TIMM, TRANSFORMERS, cached_on_hub, is_kind_of_transformers
from batchcam.network.weights_file import content_of, read_weights_file
from batchcam.rules import CONFIG_FILE

PROCESSOR: Final = "preprocessor_config.json"
WEIGHTS: Final = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
"""The first that is there counts, as it does for transformers."""

MOST_BYTES: Final = 2**26  # of a JSON file: 21,841 class names take one


@dataclasses.dataclass(frozen=True)
class Directory:
    """What a directory holds.

    Attributes:
        sha256: of what `sha256sum` prints of the files that count, in order of name.
        size: of the weights' files, in bytes.
        architecture: `timm:NAME`, or `hf:CLASS`.
        options: what timm's function is told besides.
        preprocessing: as `Preprocessing.to_dict` gives it, None where that is not said.
        unsaid: why not.
        remarks: what was chosen, a line each.
    """

    sha256: str
    size: int
    state: Mapping[str, Any]
    config: Mapping[str, Any]
    architecture: str
    options: Mapping[str, Any]
    preprocessing: Mapping[str, Any] | None
    unsaid: str
    remarks: tuple[str, ...]


def is_directory(path: Path) -> bool:
    """Return whether `path` is a directory that says what it holds."""
    return (path / CONFIG_FILE).is_file()


def read_directory(folder: Path) -> Directory:
    """Read what transformers' or timm's `save_pretrained` or `save_for_hf` wrote.

    Raises:
        CheckpointError: it is something else, or parts are missing or damaged.
    """
    digests: dict[str, str] = {}
    config = _read_json(folder / CONFIG_FILE, digests)
    there = [name for name in WEIGHTS if (folder / name).is_file()]
    if not there:
        raise CheckpointError(f"{folder}: has a {CONFIG_FILE}, and no weights: none of {', '.join(WEIGHTS)}")
    state, size = _read_weights(folder, there[0], digests)
    architecture, options = _architecture(folder, config)
    try:
        preprocessing, unsaid = _preprocessing(folder, config, digests), ""
    except (UnknownRecipeError, TypeError, ValueError) as error:
        preprocessing, unsaid = None, one_line(error)
    listed = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    others = " and ".join(name for name in there[1:] if name.removesuffix(INDEX) != there[0])
    return Directory(
        sha256=hashlib.sha256(listed.encode()).hexdigest(),
        size=size,
        state=state,
        config=config,
        architecture=architecture,
        options=options,
        preprocessing=preprocessing,
        unsaid=unsaid,
        remarks=(f"weights: {there[0]}; {others} is there too, and not read",) if others else (),
    )


def described(architecture: str) -> tuple[dict[str, Any], str, str]:
    """Return what a name after `hf:` stands for: a directory here, a model in the cache of the hub, a kind of network.

    Returns:
        The content of config.json, where it lies, and its SHA-256; of a kind of network, whose sizes are those that
        transformers gives it, the latter two are "".

    Raises:
        ModelError: transformers is not installed.
        ConfigError: it is none of these, or two.
        CheckpointError: the config.json describes something else, or is damaged.
    """
    name = architecture.removeprefix(TRANSFORMERS)
    folder, is_kind = Path(name), is_kind_of_transformers(name)
    here = (folder / CONFIG_FILE).is_file()
    if is_kind and here:
        raise ConfigError(f"--arch {architecture}: a kind of network, and a directory: say hf:./{name} for that one")
    if is_kind:
        return {"model_type": name}, "", ""
    cached = None if here else cached_on_hub(name, CONFIG_FILE)
    if not (here or cached):
        is_of_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
        bring = f"`hf download {name} {CONFIG_FILE}` brings it to the cache" if is_of_hub else "name one of them"
        raise ConfigError(
            f"--arch {architecture}: no directory with a {CONFIG_FILE}, no model in the cache of Hugging Face, and no "
            f"kind of network that transformers has, such as resnet: {bring}, or give the directory as the checkpoint"
        )
    path, digests = Path(cached or folder / CONFIG_FILE), dict[str, str]()
    config = _read_json(path, digests)
    found, _ = _architecture(path.parent, config)
    if found.startswith(TIMM):
        raise ConfigError(f"--arch {architecture}: is a network of timm's: say --arch {found}")
    return config, str(path), digests[CONFIG_FILE]


def _architecture(folder: Path, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the network's name, and what the function that builds it is told besides K."""
    classes, of_timm = config.get("architectures"), config.get("architecture")
    if isinstance(of_timm, str):  # timm's own, or the wrapper of transformers around one
        given = config.get("model_args")
        told = dict(given) if isinstance(given, Mapping) else {}
        return f"{TIMM}{of_timm}", {k: v for k, v in told.items() if k != "num_classes" and v is not None}
    name = classes[0] if isinstance(classes, list) and classes else None
    if not isinstance(name, str) or not name.endswith("ForImageClassification"):
        raise CheckpointError(f"{folder / CONFIG_FILE}: describes no classifier of images, but {one_line(name)[:100]}")
    return f"{TRANSFORMERS}{name}", {}


def _preprocessing(folder: Path, config: Mapping[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    processor = folder / PROCESSOR
    said = _read_json(processor, digests) if processor.is_file() else {}
    of_timm = said.get("pretrained_cfg") or config.get("pretrained_cfg")
    if isinstance(of_timm, Mapping):
        return timm_recipe(of_timm)
    if not said:
        raise UnknownRecipeError(f"it has no {PROCESSOR}")
    try:
        return transformers_recipe(said)
    except UnknownRecipeError as error:
        raise UnknownRecipeError(f"its {PROCESSOR} asks for {error}") from error


def _read_weights(folder: Path, name: str, digests: dict[str, str]) -> tuple[dict[str, Any], int]:
    """Return the tensors of one file, or of those that an index names, and the size of the files."""
    names = [name]
    if name.endswith(INDEX):
        table = _read_json(folder / name, digests).get("weight_map")
        if not isinstance(table, Mapping) or not all(isinstance(file, str) for file in table.values()):
            raise CheckpointError(f"{folder / name}: names no files of weights")
        names = sorted(set(table.values()))
    state: dict[str, Any] = {}
    size = 0
    for each in names:
        if Path(each).name != each:
            raise CheckpointError(f"{folder / name}: refused: {one_line(each)[:100]} lies outside of the directory")
        data = read_weights_file(folder / each)
        content, _ = content_of(folder / each, data)
        if not isinstance(content, Mapping):
            raise CheckpointError(f"{folder / each}: holds no state dict")
        digests[each] = hashlib.sha256(data).hexdigest()
        state.update(content)
        size += len(data)
    return state, size


def _read_json(path: Path, digests: dict[str, str]) -> dict[str, Any]:
    try:
        data = read_regular_file(path, MOST_BYTES)
        content = json.loads(data)
    except (OSError, NotRegularError, TooLargeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {one_line(error)[:200]}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is no table of names and values")
    digests[path.name] = hashlib.sha256(data).hexdigest()
    return content
