"""How far a run may be from an older one."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

from batchcam.config.options import AnyPath, Part, field, flag, members
from batchcam.config.shared import clustering, confidence, grouping
from batchcam.errors import ConfigError
from batchcam.rules import FEWEST_IN_GROUP

MIN_COMPARED: Final = 95.0
"""Per cent of an old run's samples below which what is compared says little of the runs."""

AUTO: Final = "auto"


def parse_limit(text: str) -> float | str:
    """Return a limit, or "auto" for one from retrainings."""
    try:
        return text if text == AUTO else float(text)
    except ValueError:
        raise ValueError(f"{text!r}: expected a number, or auto") from None


PERCENT: Final[dict[str, Any]] = {"low": 0, "high": 100, "metavar": "P"}
SIMILARITY: Final[dict[str, Any]] = {"low": -1, "high": 1, "metavar": "S|auto", "parse": parse_limit}

ESTIMATE: Final = "estimate"
PROVEN_WITHIN: Final = "proven-within"
PROVEN_BEYOND: Final = "proven-beyond"


class Gates(Part):
    """How far a run may be from an older one."""

    _: dataclasses.KW_ONLY
    max_flips: float | str | None = field(
        "Gate: percent of compared samples whose prediction changed; multi-label: with a class that is told otherwise; "
        "auto, here and below: by --noise.",
        **(PERCENT | {"metavar": "P|auto", "parse": parse_limit}),
    )
    max_accuracy_drop: float | None = field(
        "Gate: percentage points, on samples labelled in both; not of multi-label runs.", **PERCENT
    )
    max_accuracy_rise: float | None = field("Gate: the same of a rise, as by a leak of the test set.", **PERCENT)
    min_accuracy: float | None = field(
        "Gate: percent of the same samples that NEW predicts right; promote, retrain: of a first version, too.",
        **PERCENT,
    )
    max_auroc_drop: float | None = field(
        "Gate, multi-label: points of 0.01 of the mean AUROC over the classes, on labels that both state.", **PERCENT
    )
    max_class_auroc_drop: float | None = field(
        f"Gate, multi-label: the same of each class with {FEWEST_IN_GROUP} labels that both state.", **PERCENT
    )
    min_cam_similarity: float | str | None = field(
        "Gate: mean similarity (rank correlation) of the CAMs.", **SIMILARITY
    )
    min_class_similarity: float | str | None = field(
        "Gate: the same of each class with ten pairs of CAMs.", **SIMILARITY
    )
    max_count_shift: float | None = field(
        "Gate: percent by which a class is predicted more or less often, of the larger count, if that is ten.",
        **PERCENT,
    )
    max_group_drop: float | None = field(
        f"Gate: percentage points, in each group of --group-by with {FEWEST_IN_GROUP} samples labelled in both; "
        "multi-label: of the AUROC of each class in each.",
        **PERCENT,
    )
    group_by: tuple[str, ...] = grouping()
    cluster: str | None = clustering()
    noise: tuple[AnyPath, ...] = field(
        "A run of OLD's samples by an honest retraining: its recipe, another seed. At least twice: tells whether NEW "
        "moves more than retraining does, and sets the limits that are auto.",
        default=(),
        metavar="RUN",
    )
    same_setup: bool = field(
        "Gate: the same preprocessing, precision, engine, class names and order of them.", default=False
    )
    min_compared: float | None = field(
        "Gate: percent of OLD that could be judged: of the samples, and of labels, maps and classes where a gate is on "
        f"them.  [default: {MIN_COMPARED:g} with a gate; 0: off]",
        **PERCENT,
    )
    decide: str = field(
        "Who decides where an interval holds the limit: the estimate; or pass only what is proven to be within it, or "
        "stop only what is proven to be beyond.",
        default=ESTIMATE,
        choices=(ESTIMATE, PROVEN_WITHIN, PROVEN_BEYOND),
    )
    confidence: float = confidence()
    shared_classes: bool = field("Compare the classes that both runs name, and leave out the others.", default=False)
    rename: tuple[str, ...] = field(
        "A class that NEW calls otherwise than OLD; may be repeated.", default=(), metavar="OLD=NEW"
    )
    changed_inputs: str = field(
        "Samples of one id whose images' bytes are others in NEW.", default="leave", choices=("compare", "leave")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for text in self.rename:
            if not re.fullmatch("(?s).+=.+", text):
                raise ConfigError(f"--rename {text}: want OLD=NEW, two names of one class")
        if self.max_group_drop is not None and not self.group_by:
            raise ConfigError("--max-group-drop: of which groups? say --group-by COLUMN")
        if self.min_accuracy is not None and 0 < self.min_accuracy <= 1:
            share = self.min_accuracy
            raise ConfigError(
                f"--min-accuracy {share:g}: in per cent: say {100 * share:g} for {share:.3f}, or more than 1"
            )

    def require_whole(self) -> None:
        """Refuse limits that are auto without retrainings to take them from, and who decides where no limit is.

        Raises:
            ConfigError: there are none.
        """
        if self.decide != ESTIMATE and not self.asks:
            raise ConfigError(f"--decide {self.decide}: of which gate? say one with a limit, such as --max-flips P")
        if self.auto and not self.noise:
            raise ConfigError(f"{flag(self.auto[0])} auto: from which retrainings? say --noise RUN, at least twice")

    def require_meant(self, multi_label: bool) -> None:
        """Refuse gates, and a single retraining, that mean nothing for the runs that are compared.

        Args:
            multi_label: whether they are.

        Raises:
            ConfigError: the message names the gates that do.
        """
        if len(self.noise) == 1:
            raise ConfigError(f"--noise {self.noise[0]}: one retraining has no spread: name at least two")
        given = [
            name for name in ("max_accuracy_drop", "max_accuracy_rise", "min_accuracy") if self.limits[name] is not None
        ]
        if multi_label and given:
            raise ConfigError(
                f"{flag(given[0])}: multi-label runs have no accuracy: say --max-auroc-drop P (points of 0.01 of the "
                "mean AUROC over the classes) or --max-class-auroc-drop P (of each class)"
            )
        for name in ("max_auroc_drop", "max_class_auroc_drop"):
            if self.limits[name] is not None and not multi_label:
                raise ConfigError(f"{flag(name)}: goes with multi-label runs: say --max-accuracy-drop P")

    @property
    def given(self) -> dict[str, Any]:
        """What is asked otherwise than by default, by name."""
        values = {each.name: (getattr(self, each.name), each.default) for each, _ in members(Gates)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @property
    def words(self) -> list[str]:
        """The options of `batchcam compare` that ask for the same."""
        words: list[str] = []
        for name, value in self.given.items():
            if value is True:
                words.append(flag(name))
                continue
            for one in value if isinstance(value, tuple) else (value,):
                words += [flag(name), f"{one:.15g}" if isinstance(one, float | int) else str(one)]
        return words

    @property
    def limits(self) -> dict[str, float | str | None]:
        """The limits by name, None where none was asked for, AUTO where --noise tells it."""
        names = (each.name for each, _ in members(Gates) if each.name[:4] in ("max_", "min_"))
        return {name: getattr(self, name) for name in names if name != "min_compared"}

    @property
    def evidence(self) -> float:
        """Per cent of what OLD has that have to be judged, 0 where nothing depends on it."""
        if self.min_compared is not None:
            return self.min_compared
        return MIN_COMPARED if self.asks else 0

    @property
    def asks(self) -> bool:
        """Whether a limit was asked for."""
        return any(limit is not None for limit in self.limits.values())

    @property
    def is_gate(self) -> bool:
        """Whether anything was asked that may stop a run."""
        return self.evidence > 0 or self.same_setup or self.asks

    @property
    def auto(self) -> list[str]:
        """The limits that --noise tells."""
        return [name for name, limit in self.limits.items() if limit == AUTO]

    @property
    def of_one_run(self) -> Gates:
        """Those that mean something for a run held against itself: minima that are numbers."""
        others = {"rename", "noise", *self.auto}
        given = {name: value for name, value in self.given.items() if name not in others}
        return Gates(**{name: value for name, value in given.items() if not name.startswith("max_")})
