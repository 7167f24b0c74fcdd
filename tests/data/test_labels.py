"""Labels find the model's classes by what they say, however it is written, or are refused."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from batchcam.data.csv_manifest import open_csv
from batchcam.data.labels import match_classes, own_classes, whole_number
from batchcam.data.samples import FileSource
from batchcam.errors import DatasetError
from tests.helpers.memory_source import MemorySource

TWELVE = tuple(sorted(map(str, range(1, 13))))
"""Classes 1 to 12 in ImageFolder's order: 1, 10, 11, 12, 2, …"""


def labelled(values: tuple[int, ...], class_names: tuple[str, ...] | None) -> MemorySource:
    return MemorySource([None] * len(values), values, class_names)


def manifest(tmp_path: Path, *labels: str) -> FileSource:
    """A CSV manifest whose labels are written so."""
    (tmp_path / "list.csv").write_text(
        "path,label\n" + "".join(f'{i}.png,"{label}"\n' for i, label in enumerate(labels))
    )
    return open_csv("list", str(tmp_path / "list.csv"))


def test_labels_find_the_models_classes_by_name() -> None:
    matched = match_classes(labelled((0, 1, -1, 1), ("dog", "cat")), ("bird", "cat", "dog"))
    assert matched.indices.tolist() == [2, 1, -1, 1]
    assert matched.indices.dtype == np.int64


def test_equal_names_keep_labels_even_when_a_name_comes_twice() -> None:
    names = ("crane", "tench", "crane")
    assert match_classes(labelled((2, 0, -1), names), list(names)).indices.tolist() == [2, 0, -1]


def test_labels_without_names_are_the_models_indices() -> None:
    assert match_classes(labelled((2, -1, 0), None), ("a", "b", "c")).indices.tolist() == [2, -1, 0]


@pytest.mark.parametrize(
    ("values", "source_classes", "model_classes", "message"),
    [
        ((0,), ("cow", "cat", "emu"), ("cat", "dog"), "does not know these classes of the dataset: cow, emu"),
        ((0,), tuple(f"c{n:02d}" for n in range(15)), ("cat",), "c00, .*c09 and 5 more"),
        ((0,), ("crane",), ("crane", "tench", "crane"), "two classes of the model are named crane"),
        ((0, 3), None, ("a", "b", "c"), "label 3 of sample 1 is outside the 3 classes"),
        ((-2,), None, ("a", "b", "c"), "label -2 of sample 0"),
    ],
)
def test_classes_that_do_not_fit_are_refused(
    values: tuple[int, ...], source_classes: tuple[str, ...] | None, model_classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DatasetError, match=f"memory: .*{message}"):
        match_classes(labelled(values, source_classes), model_classes)


@pytest.mark.parametrize("written", ["7", "007", "+7", "7.0", "7.", "7,0", "7e0", "0.7e1", "70e-1", "7.000000"])
def test_a_whole_number_is_one_however_it_is_written(written: str) -> None:
    assert whole_number(written) == 7


@pytest.mark.parametrize(
    "text", ["", "7.5", "seven", "7,000", "1E30", "9" * 5000, "7 8", "²", "nan", "True", "0x7", "A07"]
)
def test_other_texts_are_no_whole_numbers(text: str) -> None:
    assert whole_number(text) is None


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (("1", "11", "2", "9"), TWELVE),
        (("1.0", "11.0", "", "9.0"), TWELVE),
        (("1,0", "2,0"), TWELVE),
        (("001", "010"), TWELVE),
        (("1", "10"), ("000", "001", "010", "100")),
        (("-1", "1", "0"), ("-1", "0", "1")),
        (("-1.0", "1.0"), ("-1", "0", "1")),
        (("2019", "2021"), ("2019", "2020", "2021")),
        (("True", "False"), ("False", "True")),
        (("E11.9", "I10"), ("E11.9", "I10", "J45")),
        (("1E30", "2E30"), ("1E30", "2E30")),
        (("None", "NA"), ("NA", "None", "some")),
        (("2", "1"), ("10", "2", "1")),
    ],
)
def test_labels_that_the_model_knows_as_names_are_names(
    tmp_path: Path, labels: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    by_number = {whole_number(name): name for name in classes if whole_number(name) is not None}
    meant = [label if label in classes else by_number.get(whole_number(label)) for label in labels]
    matched = match_classes(manifest(tmp_path, *labels), classes)
    assert [classes[index] if index >= 0 else None for index in matched.indices] == meant


def test_names_that_could_be_indices_are_told(tmp_path: Path) -> None:
    matched = match_classes(manifest(tmp_path, "1", "2", "3"), TWELVE)
    assert matched.indices.tolist() == [0, 4, 5]
    assert any("not as class indices" in remark for remark in matched.remarks)
    assert match_classes(manifest(tmp_path, "1", "2", "0"), ("0", "1", "2")).remarks == ("labels are class indices",)


def test_the_kind_of_label_can_be_said(tmp_path: Path) -> None:
    source = manifest(tmp_path, "1", "2", "3")
    assert match_classes(source, TWELVE, "indices").indices.tolist() == [1, 2, 3]
    assert match_classes(source, TWELVE, "names").indices.tolist() == [0, 4, 5]
    with pytest.raises(DatasetError, match="does not know these classes of the dataset: 1, 2, 3"):
        match_classes(source, ("ant", "bee", "cat", "dog"), "names")
    with pytest.raises(DatasetError, match="label -1: class indices start at 0"):
        match_classes(manifest(tmp_path, "-1", "1"), ("-1", "1"), "indices")
    with pytest.raises(DatasetError, match=r"names its classes, such as cat, where .* labels are class indices"):
        match_classes(manifest(tmp_path, "0", "1", "cat"), ("1", "0", "cat"), "indices")


def test_the_kind_of_label_matters_only_to_whole_numbers(tmp_path: Path) -> None:
    for kind in (None, "names", "indices"):
        matched = match_classes(manifest(tmp_path, "cat", "ant"), ("ant", "bee", "cat"), kind)
        assert (matched.indices.tolist(), matched.kind) == ([2, 0], None)


def test_numbers_that_are_no_names_of_the_model_are_indices(tmp_path: Path) -> None:
    matched = match_classes(manifest(tmp_path, "0.0", "2.0", "nan"), ("ant", "bee", "cat"))
    assert (matched.indices.tolist(), matched.remarks) == ([0, 2, -1], ("labels are class indices",))
    assert match_classes(manifest(tmp_path, "0", "1"), TWELVE).indices.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (("1", "13"), TWELVE, "label 13 of sample 1 is outside the 12 classes.*as a class name .* does not know 13"),
        (("2019", "2020"), ("ant", "bee"), "label 2019 of sample 0 is outside the 2 classes"),
        (("1", "2", "3"), ("ant", "bee", "cat"), "label 3 of sample 2 is outside"),
        (("0", "1", "-1"), ("ant", "bee"), "label -1: class indices start at 0"),
        (("0.5", "1"), ("0", "1"), "does not know these classes of the dataset: 0.5"),
        (("TRUE", "FALSE"), ("False", "True"), "does not know these classes"),
        (("1",), ("01", "1.0"), "two classes of the model are named 1"),
    ],
)
def test_labels_that_are_neither_names_nor_indices_are_refused(
    tmp_path: Path, labels: tuple[str, ...], classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        match_classes(manifest(tmp_path, *labels), classes)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKD"])
def test_names_are_the_same_in_every_unicode_form(form: str) -> None:
    model = tuple(
        unicodedata.normalize("NFD" if form == "NFC" else "NFC", name) for name in ("Café", "한국", "Ångström")
    )
    names = tuple(unicodedata.normalize(form, name) for name in ("Ångström", "한국", "Café"))
    matched = match_classes(labelled((0, 1, 2, -1), names), model)
    assert matched.indices.tolist() == [2, 1, 0, -1]
    assert "Unicode form" in matched.remarks[0]


def test_a_name_in_the_models_own_form_goes_before_one_in_another() -> None:
    both = ("Cafe\u0301", "Caf\u00e9")
    assert match_classes(labelled((0, 1), both[::-1]), both).indices.tolist() == [1, 0]


def test_classes_whose_order_nobody_says_are_the_datasets_with_its_doubts() -> None:
    assert own_classes(labelled((0, 1), ("ant", "bee"))) == (("ant", "bee"), ())
    assert own_classes(labelled((0, 1), None)) == (None, ())
    assert "sort differently in Unicode forms" in own_classes(labelled((0, 1), ("Bär", "Äpfel")))[1][0]
    assert "numbers in the order of text, 1, 10, 11" in own_classes(labelled((0, 1), TWELVE))[1][0]


def test_two_classes_whose_names_differ_in_unicode_form_only_are_refused_as_an_order() -> None:
    with pytest.raises(DatasetError, match=r"two classes are named Cafe.*, in different Unicode forms"):
        own_classes(labelled((0, 1), ("Cafe\u0301", "Caf\u00e9")))


def test_whole_numbers_that_are_no_indices_have_no_order_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"label -1: class indices start at 0; .*--class-names"):
        own_classes(manifest(tmp_path, "-1", "0", "1"))
