"""Several labels a sample: what each way of writing them says, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from batchcam.data.csv_manifest import open_csv
from batchcam.data.findings import AS_THE_DATA_SAYS, Findings, LabelReading, own_findings, read_findings
from batchcam.data.labels import match_classes, own_classes
from batchcam.data.map_source import MapSource
from batchcam.data.samples import Source
from batchcam.errors import ClassesError, ConfigError, DatasetError

CLASSES = ("Edema", "Effusion", "Mass")
SAID = LabelReading("multi-label")


def manifest(folder: Path, *lines: str) -> Source:
    (folder / "list.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return open_csv(str(folder / "list.csv"), str(folder / "list.csv"))


def read(source: Source, reading: LabelReading = AS_THE_DATA_SAYS) -> Findings:
    found = read_findings(source, CLASSES, reading)
    assert found is not None
    return found


def values(source: Source, reading: LabelReading = AS_THE_DATA_SAYS) -> list[list[int]]:
    found = np.asarray(read(source, reading).values)
    assert found.dtype == np.int8
    return found.tolist()


# columns


def test_columns_named_as_the_classes_are_labels_in_the_models_order(tmp_path: Path) -> None:
    source = manifest(
        tmp_path, "path,Mass,Sex,Edema,Effusion", "1.png,1.0,F,0,", "2.png,-1.0,M,1,0", "3.png,nan,M,-1,TRUE"
    )
    assert values(source) == [[0, -1, 1], [1, 0, -1], [-1, 1, -1]]
    assert dict(read(source).columns) == {"Edema": "Edema", "Effusion": "Effusion", "Mass": "Mass"}
    assert "of 9, 3 are yes, 2 no, 4 not known" in read(source).remarks[1]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("path,Edema,Effusion", "1.png,1,1"), "columns are named as 2 of 3 classes, not Mass: say --problem-type"),
        (
            ("path,Edema,Effusion,Mass", "1.png,0.9,0.05,0.05"),
            r"column Edema of sample 1.png: 0.9: want 1, 0, .* or say",
        ),
        (("path,Edema,Effusion,Mass", "1.png,,,"), "say nothing of any sample: say --problem-type"),
    ],
)
def test_columns_that_may_be_labels_are_asked_about(tmp_path: Path, lines: tuple[str, ...], told: str) -> None:
    source = manifest(tmp_path, *lines)
    with pytest.raises(DatasetError, match=told):
        read_findings(source, CLASSES, AS_THE_DATA_SAYS)
    assert read_findings(source, CLASSES, LabelReading("single-label")) is None


@pytest.mark.parametrize("lines", [("path,Edema", "1.png,1"), ("path,label,Edema,Effusion,Mass", "1.png,Mass,0,0,1")])
def test_other_columns_are_no_labels(tmp_path: Path, lines: tuple[str, ...]) -> None:
    assert read_findings(manifest(tmp_path, *lines), CLASSES, AS_THE_DATA_SAYS) is None


@pytest.mark.parametrize("odd", ["0,0,0", "1,1,0", ",,", "1,0,"])
def test_a_single_odd_row_does_not_make_one_hot_labels_several(tmp_path: Path, odd: str) -> None:
    rows = [f"{n}.png,{'1,0,0' if n % 2 else '0,1,0'}" for n in range(19)]
    source = manifest(tmp_path, "path,Edema,Effusion,Mass", *rows, f"19.png,{odd}")
    count = "each sample is" if odd == ",," else "19 of 20 labelled samples are"
    with pytest.raises(DatasetError, match=f"{count} of exactly one class: say --problem-type"):
        read_findings(source, CLASSES, AS_THE_DATA_SAYS)


def test_a_list_that_says_none_and_some_is_refused(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Edema|Mass", "2.png,No Finding|Mass")
    with pytest.raises(DatasetError, match=r"label No Finding\|Mass: says of one sample that it has none and some"):
        read_findings(source, CLASSES, AS_THE_DATA_SAYS)


def test_columns_and_labels_that_differ_in_case_blanks_or_underscores_are_the_classes_and_that_is_told(
    tmp_path: Path,
) -> None:
    source = manifest(tmp_path, "path,MASS,edema,_effusion", "1.png,1,0,", "2.png,0,1,1")
    assert values(source) == [[0, -1, 1], [1, 1, 0]]
    assert "columns named otherwise: edema for Edema, _effusion for Effusion, MASS for Mass" in read(source).remarks
    exact = manifest(tmp_path, "path,edema,Edema,Effusion,Mass", "1.png,1,0,0,0", "2.png,0,1,1,0")
    assert values(exact) == [[0, 0, 0], [1, 1, 0]]
    lists = manifest(tmp_path, "path,label", "1.png,mass|Edema", "2.png,EFFUSION")
    assert values(lists, SAID) == [[1, 0, 1], [0, 1, 0]]
    assert any("they differ in case, blanks or underscores" in remark for remark in read(lists, SAID).remarks)


def test_a_column_that_two_classes_come_near_is_that_of_the_class_of_its_name(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,a b", "1.png,1", "2.png,0")
    for classes, expected in ((("a_b", "a b"), [[-1, 1], [-1, 0]]), (("A b", "a_b"), [[-1, -1], [-1, -1]])):
        found = read_findings(source, classes, SAID)
        assert found is not None
        assert np.asarray(found.values).tolist() == expected


def test_classes_without_a_column_are_not_known_where_the_user_says_multi_label(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,Edema,Effusion", "1.png,1,0", "2.png,0,0")
    assert values(source, SAID) == [[1, 0, -1], [0, 0, -1]]
    assert "no label at all of Mass" in read(source, SAID).remarks


def test_findings_name_the_columns_also_of_other_names(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,Edema,Pleural/Effusion,Mass", "1.png,1,0,1", "2.png,0,1,1")
    reading = LabelReading.of(None, None, ["Edema", "Effusion=Pleural/Effusion"])
    assert values(source, reading) == [[1, 0, -1], [0, 1, -1]]
    columns = read(source, reading).columns
    assert columns["Effusion"] == r"Pleural\x2fEffusion"
    assert values(source, LabelReading("multi-label", "", columns)) == [[1, 0, -1], [0, 1, -1]]


@pytest.mark.parametrize(
    ("findings", "message"),
    [(["Ede"], "--findings Ede: no class"), (["Mass=M"], "--findings M: .* has no such column")],
)
def test_findings_that_are_not_there_are_refused(tmp_path: Path, findings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(manifest(tmp_path, "path,Mass", "1.png,1"), LabelReading.of(None, None, findings))


def test_a_text_that_says_neither_is_refused_with_its_sample(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,Edema", "1.png,1", "2.png,maybe")
    with pytest.raises(DatasetError, match=r"column Edema of sample 2\.png: maybe: want 1, 0"):
        read(source, SAID)


@pytest.mark.parametrize("data", ["columns", "vectors"])
def test_exactly_one_class_a_sample_is_refused_with_both_readings(tmp_path: Path, data: str) -> None:
    source = manifest(tmp_path, "path,Edema,Effusion,Mass", "1.png,0,1,0", "2.png,1,0,0")
    source = source if data == "columns" else vectors([[0, 1, 0], [1, 0, 0]])
    with pytest.raises(DatasetError, match=r"--problem-type single-label .* or multi-label"):
        read(source)
    assert values(source, SAID) == [[0, 1, 0], [1, 0, 0]]
    one = read(source, LabelReading("single-label"))
    assert one.one_each("here").tolist() == [1, 0]


def test_one_class_a_sample_is_refused_where_a_sample_has_two(tmp_path: Path) -> None:
    found = read(manifest(tmp_path, "path,Edema,Effusion,Mass", "1.png,0,1,0", "2.png,1,0,1"))
    with pytest.raises(DatasetError, match="here: sample 1 is of 2 classes"):
        found.one_each("here")


# lists


def test_lists_name_the_classes_that_are_true_and_no_label_is_not_known(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Mass|Edema", "2.png,No Finding", "3.png,", "4.png, Effusion | ")
    assert values(source) == [[1, 0, 1], [0, 0, 0], [-1, -1, -1], [0, 1, 0]]
    assert read(source).separator == "|"


def test_a_class_that_is_called_no_finding_is_a_class(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Mass|Edema", "2.png,No Finding")
    found = read_findings(source, ("Edema", "Mass", "No Finding"), AS_THE_DATA_SAYS)
    assert found is not None
    assert np.asarray(found.values).tolist() == [[1, 1, 0], [0, 0, 1]]


def test_another_separator_is_said(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Mass; Edema", "2.png,Edema")
    assert values(source, LabelReading.of(None, ";", None)) == [[1, 0, 1], [1, 0, 0]]
    assert read_findings(source, CLASSES, AS_THE_DATA_SAYS) is None  # a class of this name, for all that is known


def test_an_unknown_class_in_a_list_is_named(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Mass|Oedema")
    with pytest.raises(ClassesError, match=r"label Mass\|Oedema: the model has no one class Oedema"):
        read(source, SAID)
    with pytest.raises(DatasetError, match=r"line 2: label Mass\|Oedema is several labels .*--problem-type"):
        read(source)


def json_lines(folder: Path, *labels: Any) -> Source:
    rows = [json.dumps({"path": f"{row}.png", "label": label}) for row, label in enumerate(labels)]
    (folder / "list.jsonl").write_text("\n".join(rows))
    return open_csv("spec", str(folder / "list.jsonl"))


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        ([["Mass", "Edema"], ["Effusion"], [], None], [[1, 0, 1], [0, 1, 0], [0, 0, 0], [-1, -1, -1]]),
        ([["No Finding"], ["Edema", "Mass"]], [[0, 0, 0], [1, 0, 1]]),
        ([[0, 2], [1], None], [[1, 0, 1], [0, 1, 0], [-1, -1, -1]]),
        ([[1, 0, 1], [0, 1, -1], None], [[1, 0, 1], [0, 1, -1], [-1, -1, -1]]),
        ([[1.0, 0.0, None], [True, True, False]], [[1, 0, -1], [1, 1, 0]]),
    ],
)
def test_lists_of_json_are_names_indices_or_vectors(tmp_path: Path, labels: list[Any], rows: list[list[int]]) -> None:
    assert values(json_lines(tmp_path, *labels)) == rows


def test_lists_of_json_that_may_be_meant_otherwise_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"label \[0, 1\]: yes and no of two classes, or their indices"):
        read_findings(json_lines(tmp_path, [0, 1], [1, 0]), ("a", "b"), SAID)
    each_one = json_lines(tmp_path, ["Mass"], ["Edema"])
    with pytest.raises(DatasetError, match="each sample is of exactly one class: say --problem-type"):
        read(each_one)
    assert read(each_one, LabelReading("single-label")).one_each("here").tolist() == [2, 0]


def test_lists_of_class_indices_go_by_the_names_that_the_table_has(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = {"names": ["Mass", "Edema", "Effusion"], "_type": "ClassLabel"}
    for feature in ({"feature": names, "_type": "List"}, [names]):
        info = json.dumps({"info": {"features": {"findings": feature}}})
        table = arrow.table({"path": ["1.png", "2.png", "3.png"], "findings": [[0, 1], [2], None]})
        parquet.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "x.parquet")
        source = open_csv("spec", str(tmp_path / "x.parquet"))
        assert values(source) == [[1, 0, 1], [0, 1, 0], [-1, -1, -1]]


def test_labels_that_are_no_classes_are_passed_over_where_the_user_names_those_that_count(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Mass|Hernia", "2.png,Hernia", "3.png,Oedema", "4.png,")
    with pytest.raises(ClassesError, match=r"no one class Hernia; .* by --findings 'Edema,…' or CLASS=LABEL,…"):
        read(source, SAID)
    reading = LabelReading.of(None, None, ["Mass", "Edema=Oedema"])
    assert values(source, reading) == [[0, -1, 1], [0, -1, 0], [1, -1, 0], [-1, -1, -1]]
    found = read(source, reading)
    assert "labels passed over: Hernia of 2 samples" in found.remarks
    assert read(source, LabelReading(SAID.problem_type, found.separator, found.columns)).remarks == found.remarks


def test_whoever_wants_one_label_a_sample_refuses_lists(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Mass|Edema")
    for ask in (own_classes, lambda source: match_classes(source, CLASSES)):
        with pytest.raises(DatasetError, match=r"line 2: label Mass\|Edema is several labels"):
            ask(source)
    assert read_findings(source, CLASSES, LabelReading("single-label")) is None


def test_labels_in_a_column_and_in_columns_are_refused_with_both_readings(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label,Edema,Effusion,Mass", "1.png,Mass|Edema,0,1,0")
    with pytest.raises(DatasetError, match=r"by --label-separator '\|' or by --findings"):
        read(source, SAID)
    assert values(source, LabelReading.of(None, "|", None)) == [[1, 0, 1]]
    assert values(source, LabelReading.of(None, None, ["Effusion"])) == [[-1, 1, -1]]


def test_a_dataset_without_labels_knows_none(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path", "1.png", "2.png")
    assert values(source, SAID) == [[-1] * 3] * 2
    assert read_findings(source, CLASSES, AS_THE_DATA_SAYS) is None


# vectors


class Pictures:
    """A map-style dataset; its labels stand in its items only, unless it is given attributes."""

    def __init__(self, labels: Any, **attributes: Any) -> None:
        self._labels = labels
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        return Image.new("RGB", (4, 4)), self._labels[index]


def vectors(labels: Any, **attributes: Any) -> Source:
    return MapSource("spec", Pictures(labels, **attributes))


ROWS = [[1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "labels", [ROWS, np.array(ROWS, bool), torch.tensor(ROWS), [torch.tensor(row, dtype=torch.float32) for row in ROWS]]
)
@pytest.mark.parametrize("as_attribute", [False, True])
def test_vectors_are_labels_by_place(labels: Any, as_attribute: bool) -> None:
    source = vectors(labels, **({"targets": labels} if as_attribute else {}))
    assert values(source) == ROWS
    assert source.labels.tolist() == [-1, -1]
    with pytest.raises(DatasetError, match="labels are vectors, several labels a sample"):
        match_classes(source, CLASSES)


def test_vectors_are_labels_by_the_datasets_own_names() -> None:
    assert values(vectors(ROWS, classes=["Mass", "Edema", "Effusion"])) == [[0, 1, 1], [0, 0, 0]]
    with pytest.raises(ClassesError, match="the model has no one class Wrist"):
        read(vectors(ROWS, classes=["Mass", "Edema", "Wrist"]))
    with pytest.raises(ClassesError, match="labels are vectors of 3, its classes are 2"):
        read(vectors(ROWS, classes=["Mass", "Edema"]))
    with pytest.raises(ClassesError, match="labels are vectors of 2, the model has 3 classes"):
        read(vectors([[0, 1], [1, 1]]))


def test_unknown_entries_of_vectors_are_nan_or_minus_one_or_no_vector() -> None:
    assert values(vectors([[1, np.nan, -1], None], targets=[[1, np.nan, -1], None])) == [[1, -1, -1], [-1, -1, -1]]


def test_attributes_of_torchvisions_celeba_are_read_without_its_images() -> None:
    attributes = {"attr": torch.tensor(ROWS), "attr_names": ["Edema", "Effusion", "Mass", ""], "target_type": ["attr"]}
    source = vectors(ROWS, **attributes)
    assert (values(source), source.class_names, source.notes) == (ROWS, CLASSES, ())


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match="goes with --problem-type multi-label"):
        LabelReading.of("single-label", "|", None)


# a dataset's own classes


def own(source: Source, reading: LabelReading = AS_THE_DATA_SAYS) -> tuple[tuple[str, ...], list[list[int]]] | None:
    found = own_findings(source, reading)
    return None if found is None else (found[0], np.asarray(found[1].values).tolist())


def test_a_dataset_of_one_label_a_sample_has_no_classes_of_several(tmp_path: Path) -> None:
    assert own(manifest(tmp_path, "path,label,Edema", "1.png,cat,1", "2.png,dog,0")) is None
    assert own(manifest(tmp_path, "path", "1.png")) is None


def test_own_classes_are_the_columns_of_nothing_but_truths(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,Mass,Age,Edema,Blank,a/b", "1.png,1.0,64,0,,1", "2.png,-1,1,yes,,0")
    assert own(source, SAID) == (("Edema", "Mass", "a/b"), [[0, 1, 1], [1, -1, 0]])
    assert own(source, LabelReading("single-label", columns={"x": "Edema", "y": "a/b"})) == (
        ("x", "y"),
        [[0, 1], [1, 0]],
    )
    with pytest.raises(
        DatasetError, match=r"columns Edema, Mass, a/b hold 1 and 0 .*: say --problem-type single-label"
    ):
        own_findings(source, AS_THE_DATA_SAYS)


def test_own_classes_are_those_that_lists_name_numbers_in_their_order(tmp_path: Path) -> None:
    source = manifest(tmp_path, "path,label", "1.png,Mass|Edema", "2.png,No Finding", "3.png,Edema", "4.png,")
    assert own(source) == (("Edema", "Mass"), [[1, 1], [0, 0], [1, 0], [-1, -1]])
    assert own(manifest(tmp_path, "path,label", "1.png,10|2", "2.png,2")) == (("2", "10"), [[1, 1], [1, 0]])
    assert own(manifest(tmp_path, "path,label", "1.png,a;b", "2.png,b"), LabelReading(separator=";")) == (
        ("a", "b"),
        [[1, 1], [0, 1]],
    )


@pytest.mark.parametrize("label", ['"[a, b]"', "[a|b]", '"a,b"'])
def test_lists_that_the_separator_does_not_part_are_refused(tmp_path: Path, label: str) -> None:
    source = manifest(tmp_path, "path,label", f"1.png,{label}", "2.png,a", "3.png,b")
    with pytest.raises(DatasetError, match="label"):
        own_findings(source, SAID if source.several else AS_THE_DATA_SAYS)
