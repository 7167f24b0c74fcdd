"""What the classes of a network are called, and who says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from batchcam.commands.explain.network import Built
from batchcam.config.shared import Classifier
from batchcam.config.texts import read_option_file
from batchcam.data.labels import own_classes
from batchcam.data.sources import Source
from batchcam.errors import CheckpointError, ClassesError, ConfigError
from batchcam.job.console import counted
from batchcam.network.checkpoint import Checkpoint
from batchcam.rules import composed


def class_names_of(
    classifier: Classifier, checkpoint: Checkpoint, source: Source, built: Built, fallback: tuple[str, ...] | None
) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    """Return the class names by index, who says them, and what to tell about that."""
    given = None if classifier.class_names is None else _given_class_names(classifier.class_names)
    class_count = built.class_count
    hint = " (one output is two classes: name both, first the one for which it is negative)" if built.one_output else ""
    names, names_from, remarks = _said_names(checkpoint, class_count, given)
    if given is not None:
        if names and tuple(map(composed, given)) != tuple(map(composed, names)):
            raise ConfigError(
                f"--class-names {classifier.class_names}: not the class names that the checkpoint says, in their "
                "order; leave the option out"
            )
        if names and (differing := sum(own != name for own, name in zip(names, given, strict=True))):
            form = f"class names: {differing} of --class-names are the checkpoint's in another Unicode form"
            remarks += (f"{form}, and count as the checkpoint's",)
        names, names_from = (names, names_from) if names else (given, "--class-names")
    if names is None and fallback is not None:
        names, names_from = fallback, "the run"
    if names is None:
        names, doubts = own_classes(source, classifier.label_kind)
        remarks += doubts
        if names is None:
            return tuple(str(k) for k in range(class_count)), "nobody", ()
        if len(names) != class_count:
            empty = f", and no image of {', '.join(source.empty_classes)}" if source.empty_classes else ""
            raise ClassesError(
                f"{source.spec}: has {len(names)} classes{empty}, the checkpoint {class_count}{hint}; "
                "name them all with --class-names FILE"
            )
        order = f"0 {names[0]} … {len(names) - 1} {names[-1]}"
        told = f"class names: from the dataset, in its order, {order}; the checkpoint has none"
        names_from, remarks = "the dataset", (told, *remarks)
    if len(names) != class_count:
        raise CheckpointError(f"{checkpoint.path}: {counted(len(names), 'class name')} for {class_count} classes{hint}")
    return names, names_from, remarks


def _said_names(
    checkpoint: Checkpoint, class_count: int, given: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, str, tuple[str, ...]]:
    """Return the class names that the checkpoint's file says, who says them, and what to tell about that."""
    if checkpoint.class_names:
        return checkpoint.class_names, "the checkpoint", ()
    carried = checkpoint.carried_names
    others = tuple(
        f"class names: the checkpoint's {key} names {len(names)}, not {class_count}: passed over"
        for key, names in carried.items()
        if len(names) != class_count
    )
    fitting = {names: key for key, names in carried.items() if len(names) == class_count}
    if given in fitting:
        fitting = {given: fitting[given]}
    if len(fitting) > 1:
        raise CheckpointError(
            f"{checkpoint.path}: its {' and '.join(fitting.values())} name other classes, or in another order; "
            "say --class-names FILE with the ones that are meant"
        )
    for names, key in fitting.items():
        told = f"class names: the checkpoint's {key}, 0 {names[0]} … {len(names) - 1} {names[-1]}"
        return names, f"the checkpoint's {key}", (told, *others)
    return None, "nobody", others


def _given_class_names(given: Path | Sequence[str]) -> tuple[str, ...]:
    lines = read_option_file(given, "--class-names").splitlines() if isinstance(given, Path) else given
    names = tuple(line.strip() for line in lines if line.strip())
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"--class-names {given}: expected one name a line, each once")
    return names
