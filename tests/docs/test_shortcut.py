"""The case of the background that gives the class away: its images always, the whole of it behind `-m slow`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from batchcam.commands.demo import shapes
from docs.make.shortcut import (
    CHANGED,
    FURTHER,
    HONEST,
    LEAKY,
    NEW,
    OLD,
    PICTURE,
    RESEEDED,
    TABLE,
    TEST,
    Row,
    Settings,
    build,
    draw_sets,
    table,
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shortcut")
    draw_sets(Settings(out, train_per_class=8, test_per_class=6, image_size=64))
    return out


def read(out: Path, kind: str, name: str) -> dict[str, np.ndarray]:
    folder = out / kind / name
    return {str(p.relative_to(folder)): cv2.imread(str(p)) for p in sorted(folder.glob("*/*.png"))}


def tag_colours(out: Path, name: str) -> dict[str, tuple[int, ...]]:
    """The colour in the middle of each image's tag."""
    found = {}
    for (sample_id, image), mask in zip(
        read(out, "images", name).items(), read(out, "tags", name).values(), strict=True
    ):
        y, x = np.argwhere(mask[..., 0] > 0).mean(0).round().astype(int)
        found[sample_id] = tuple(image[y, x].tolist())
    return found


@pytest.mark.parametrize("pair", [(HONEST, LEAKY), (TEST, CHANGED)])
def test_sets_of_one_split_differ_in_their_tags_only_and_no_tag_lies_on_the_object(
    sets: Path, pair: tuple[str, str]
) -> None:
    first, second = (read(sets, "images", name) for name in pair)
    assert first.keys() == second.keys()
    for sample_id, tag in read(sets, "tags", pair[0]).items():
        assert not (first[sample_id] != second[sample_id])[tag == 0].any()
        assert not (read_mask(sets, pair[0], sample_id) & (tag > 0)).any()
        assert (tag > 0).mean() == pytest.approx(1 / 16)


def read_mask(out: Path, name: str, sample_id: str) -> np.ndarray:
    return cv2.imread(str(out / "objects" / name / sample_id)) > 0


def test_tags_give_the_class_away_or_say_nothing_or_name_another_class(sets: Path) -> None:
    own = {}
    for name in (LEAKY, TEST):
        for sample_id, colour in tag_colours(sets, name).items():
            assert own.setdefault(Path(sample_id).parent.name, colour) == colour
    assert len(set(own.values())) == len(shapes.CLASSES)
    changed = tag_colours(sets, CHANGED)
    assert all(colour != own[Path(i).parent.name] for i, colour in changed.items())
    assert set(changed.values()) == set(own.values())
    agreeing = [colour == own[Path(i).parent.name] for i, colour in tag_colours(sets, HONEST).items()]
    assert 0 < np.mean(agreeing) < 0.5


def test_the_table_says_who_passed_the_gate() -> None:
    rows = {
        OLD: Row(0.99, 0.9, 0.0, 0.98, None, None, None),
        FURTHER: Row(0.99, 0.8, 0.0, 0.98, 0.9, 0.0, 0),
        NEW: Row(0.985, 0.2, 0.6, 0.07, 0.19, 0.5, 3),
    }
    lines = table(rows).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "0.90 | passed, exit 0" in lines[3]
    assert "0.985 | 0.20 | 0.60 | 0.19 | **stopped, exit 3** | 0.070" in lines[4]


@pytest.mark.slow
def test_a_model_that_learned_the_background_is_as_accurate_and_stopped_for_its_maps(tmp_path: Path) -> None:
    rows = build(Settings(tmp_path, train_per_class=160, test_per_class=20, threads=1))
    old, new = rows[OLD], rows[NEW]
    assert new.accuracy_drop <= 2
    assert new.accuracy_changed < 0.3 < 0.8 < old.accuracy_changed
    assert old.peak_on_object > 0.6 > 0.4 > new.peak_on_object
    assert new.peak_on_tag > 0.4 > 0.1 > old.peak_on_tag
    assert new.exit_code == 3
    assert rows[FURTHER].similarity > rows[RESEEDED].similarity > 0.5 > 0.4 > new.similarity
    assert cv2.imread(str(tmp_path / PICTURE)).shape[1] > 800
    assert "stopped, exit 3" in (tmp_path / TABLE).read_text().splitlines()[-1]
