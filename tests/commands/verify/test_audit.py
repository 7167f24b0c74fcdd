"""The audit: true rows pass whatever their numbers, and a row that contradicts itself does not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from batchcam.commands.verify.audit import audit
from batchcam.store.plan import Plan
from batchcam.store.stored_cams import predicted_cams
from tests.helpers.synthetic import ALL_NEGATIVE, CONSTANT, NON_FINITE, UNREADABLE, Rows, bilinear

CAMS = ("all", "predicted", "predicted+label", "topk:2")
ORDINARY = 1
"""A row that is special in no way."""


def block_of(rows: Rows) -> dict[str, np.ndarray]:
    texts = {name: np.array([t.encode() for t in values]) for name, values in rows.texts.items()}
    return {name: values.copy() for name, values in {**rows.columns, **texts}.items()}


def broken(block: dict[str, np.ndarray], plan: Plan, bias: np.ndarray) -> dict[tuple[str, str], list[int]]:
    """Rule and array of each contradiction, and its rows."""
    return {(w.rule, w.array): np.flatnonzero(w.rows).tolist() for w in audit(block, plan, bias)}


@pytest.fixture
def sound(make_plan, make_rows):
    plan = make_plan()
    rows = make_rows(plan)
    return block_of(rows), plan, rows.bias


@pytest.mark.parametrize("maps", ["uint8", "float32", "none"])
@pytest.mark.parametrize("cams", CAMS)
@pytest.mark.parametrize("seed", range(4))
def test_true_rows_pass(make_plan, make_rows, cams: str, maps: str, seed: int) -> None:
    plan = make_plan(cams=cams, maps=maps, sample_count=60)
    rows = make_rows(plan, seed)
    assert broken(block_of(rows), plan, rows.bias) == {}


@pytest.mark.parametrize(("grid", "size"), [((1, 1), (8, 8)), ((1, 7), (5, 9)), ((7, 7), (224, 224)), ((5, 3), (5, 3))])
def test_true_rows_pass_whatever_the_sizes(make_plan, make_rows, grid: tuple, size: tuple) -> None:
    plan = make_plan(grid_size=grid, input_size=size)
    rows = make_rows(plan)
    block = block_of(rows)
    if grid == (1, 1):  # one cell is a constant map
        readable = np.isfinite(block["logits"]).all(1)
        block["status"][readable] = 4 | np.where(predicted_cams(block).max((1, 2)) <= 0, 8, 0)[readable]
        block["maps"][:] = 0
    assert broken(block, plan, rows.bias) == {}


@pytest.mark.parametrize("contrast", [1e-2, 1e-3, 1e-4, 1e-5, 3e-6])
def test_a_worker_that_rounds_otherwise_passes_however_little_contrast_a_map_has(
    make_plan, make_rows, contrast: float
) -> None:
    plan = make_plan(sample_count=2, cams="predicted")
    rows = make_rows(plan)
    block, rng = block_of(rows), np.random.default_rng(5)
    cams = (1000 * (1 + contrast * rng.random((2, 3, 5)))).astype(np.float32)
    block["cams"] = cams[:, None]
    block["prediction"][:] = 2
    block["cam_class"][:] = 2
    block["logits"][:] = -1000
    block["logits"][:, 2] = cams.astype(np.float64).mean((1, 2)) + rows.bias[2]
    block["confidence"][:] = 1
    exact = np.abs(cams.astype(np.float64).mean((1, 2)) + rows.bias[2] - block["logits"][:, 2])
    block["identity_residual"] = exact.astype(np.float32)
    block["status"][:] = 0
    upsampled = bilinear(cams.astype(np.float64), plan.input_size).astype(np.float32)
    upsampled = np.nextafter(upsampled, np.float32(np.inf), where=rng.random(upsampled.shape) < 0.5, out=upsampled)
    low, high = upsampled.min((1, 2)), upsampled.max((1, 2))
    block["map_range"] = np.stack([low, high], 1)
    scaled = (upsampled - low[:, None, None]) / (high - low)[:, None, None] * np.float32(255)
    block["maps"] = np.rint(scaled).astype(np.uint8)
    assert broken(block, plan, rows.bias) == {}


CHANGES = {
    "label above": ("label", lambda v: 5, ("label", "label")),
    "label below": ("label", lambda v: -2, ("label", "label")),
    "prediction": ("prediction", lambda v: (v + 1) % 5, ("prediction", "prediction")),
    "no prediction": ("prediction", lambda v: -1, ("prediction", "prediction")),
    "confidence": ("confidence", lambda v: v + 2e-4, ("confidence", "confidence")),
    "confidence absent": ("confidence", lambda v: np.nan, ("confidence", "confidence")),
    "logit": ("logits", lambda v: v - 0.5 * np.eye(5)[v.argmin()], ("identity", "cams")),
    "logit absent": ("logits", lambda v: np.where(np.arange(5) == 1, np.nan, v), ("status", "status")),
    "cam": ("cams", lambda v: v + 0.01, ("identity", "cams")),
    "cam absent": ("cams", lambda v: v * np.nan, ("status", "status")),
    "residual": ("identity_residual", lambda v: v + 1e-3, ("identity", "identity_residual")),
    "residual absent": ("identity_residual", lambda v: np.nan, ("identity", "identity_residual")),
    "map": ("maps", lambda v: v ^ 2, ("map", "maps")),
    "map blank": ("maps", lambda v: v * 0, ("map", "maps")),
    "map upside down": ("maps", lambda v: v[::-1], ("map", "maps")),
    "map mirrored": ("maps", lambda v: v[:, ::-1], ("map", "maps")),
    "range": ("map_range", lambda v: v * 1.001, ("map-range", "map_range")),
    "range absent": ("map_range", lambda v: v * np.nan, ("map-range", "map_range")),
    "unreadable": ("status", lambda v: 1, ("status", "logits")),
    "non-finite": ("status", lambda v: 2, ("status", "status")),
    "constant": ("status", lambda v: 4, ("status", "status")),
    "no evidence": ("status", lambda v: v ^ 8, ("status", "status")),
    "unknown flag": ("status", lambda v: 16, ("status", "status")),
    "missing shard": ("status", lambda v: 255, ("status", "status")),
    "class": ("cam_class", lambda v: v[::-1], ("cam-class", "cam_class")),
    "id": ("sample_id", lambda v: b"\xff", ("text", "sample_id")),
    "error": ("error", lambda v: b"broken", ("status", "error")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_row_is_found_and_only_that_row(sound, name: str) -> None:
    block, plan, bias = sound
    array, change, expected = CHANGES[name]
    block["error"] = block["error"].astype("S64")
    block[array][ORDINARY] = change(block[array][ORDINARY])
    found = broken(block, plan, bias)
    assert expected in found
    assert {row for rows in found.values() for row in rows} == {ORDINARY}


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_features_of_every_row_pass_and_a_changed_one_is_found(make_plan, make_rows, kind: str) -> None:
    plan = make_plan(features=kind)
    rows = make_rows(plan)
    block = block_of(rows)
    assert not list(audit(block, plan, rows.bias, rows.weight))
    block["features"][ORDINARY, 2] += 0.1
    (wrong,) = audit(block, plan, rows.bias, rows.weight)
    assert (wrong.rule, wrong.array, np.flatnonzero(wrong.rows).tolist()) == ("identity", "features", [ORDINARY])
    block["features"][UNREADABLE] = 0
    assert {w.array for w in audit(block, plan, rows.bias, rows.weight)} == {"features", "logits"}


@pytest.mark.parametrize("row", [UNREADABLE, NON_FINITE, CONSTANT, ALL_NEGATIVE])
@pytest.mark.parametrize("status", [0, 1, 2, 4, 8, 3, 5, 9, 6, 10, 12])
def test_only_the_true_flags_of_a_special_row_pass(sound, row: int, status: int) -> None:
    block, plan, bias = sound
    true = int(block["status"][row])
    block["status"][row] = status
    assert bool(broken(block, plan, bias)) == (status != true)


@pytest.mark.parametrize("array", ["logits", "cams", "confidence", "identity_residual", "map_range"])
def test_an_unreadable_row_holds_no_numbers(sound, array: str) -> None:
    block, plan, bias = sound
    block[array][UNREADABLE] = 0
    assert broken(block, plan, bias) == {("status", "logits"): [UNREADABLE]}


@pytest.mark.parametrize(("maps", "value"), [("uint8", 1), ("float32", 0)])
def test_an_unreadable_row_has_no_map(make_plan, make_rows, maps: str, value: int) -> None:
    plan = make_plan(maps=maps)
    rows = make_rows(plan)
    block = block_of(rows)
    block["maps"][UNREADABLE, 3, 3] = value
    assert broken(block, plan, rows.bias) == {("map", "maps"): [UNREADABLE]}


@pytest.mark.parametrize("row", [NON_FINITE, CONSTANT])
def test_a_row_without_a_map_to_show_has_a_blank_one(sound, row: int) -> None:
    block, plan, bias = sound
    block["maps"][row, 3, 3] = 1
    assert broken(block, plan, bias) == {("map", "maps"): [row]}


def test_a_float_map_is_compared_in_its_own_units(make_plan, make_rows) -> None:
    plan = make_plan(maps="float32")
    rows = make_rows(plan)
    block = block_of(rows)
    block["maps"][ORDINARY, 3, 3] += 1e-3 * np.abs(block["maps"][ORDINARY]).max()
    assert broken(block, plan, rows.bias) == {("map", "maps"): [ORDINARY]}


@pytest.mark.parametrize("cams", ["predicted", "predicted+label", "topk:2"])
def test_stored_classes_are_those_that_the_plan_asks_for(make_plan, make_rows, cams: str) -> None:
    plan = make_plan(cams=cams)
    rows = make_rows(plan)
    block = block_of(rows)
    block["cam_class"][ORDINARY, -1] = (block["cam_class"][ORDINARY, -1] + 1) % 5
    assert broken(block, plan, rows.bias)[("cam-class", "cam_class")] == [ORDINARY]


def test_a_cam_without_a_class_holds_no_numbers(make_plan, make_rows) -> None:
    plan = make_plan(cams="predicted+label")
    rows = make_rows(plan)
    block = block_of(rows)
    unlabelled = int(np.flatnonzero((block["label"] == -1) & (block["status"] == 0))[0])
    block["cams"][unlabelled, 1, 0, 0] = 1
    assert broken(block, plan, rows.bias) == {("cam-class", "cams"): [unlabelled]}


@pytest.mark.parametrize(("classes", "passes"), [((0, 1, 3), True), ((0, 3, 1), True), ((0, 1, 1), False)])
def test_classes_of_equal_logits_may_stand_in_any_order_but_once(
    make_plan, make_rows, classes: tuple, passes: bool
) -> None:
    plan = make_plan(cams="topk:3", maps="none", sample_count=1, sample_id_bytes=40)
    rows = make_rows(plan)
    block = block_of(rows)
    cams = np.zeros((1, 3, 3, 5), np.float32)
    cams[0, :, 0, 0] = 15
    block.update(cams=cams, logits=np.array([[3, 1, 0, 1, 0]], np.float32) + 0)
    bias = block["logits"][0].astype(np.float64) - 1
    powers = np.exp(block["logits"][0])
    block["confidence"] = np.array([powers.max() / powers.sum()], np.float32)
    block.update(prediction=np.array([0]), cam_class=np.array([classes]), identity_residual=np.zeros(1, np.float32))
    assert (broken(block, plan, bias) == {}) == passes


def test_of_equal_logits_the_first_class_is_the_predicted_one(make_plan, make_rows) -> None:
    plan = make_plan(sample_count=1, maps="none")
    rows = make_rows(plan)
    block = block_of(rows)
    cams = np.zeros((1, 5, 3, 5), np.float32)
    cams[0, :, 0, 0] = 15
    block.update(cams=cams, logits=np.array([[0, 4, 2, 4, 0]], np.float32), identity_residual=np.zeros(1, np.float32))
    powers = np.exp(block["logits"][0])
    block["confidence"] = np.array([powers.max() / powers.sum()], np.float32)
    bias = block["logits"][0].astype(np.float64) - 1
    block["prediction"] = np.array([1])
    assert broken(block, plan, bias) == {}
    block["prediction"] = np.array([3])
    assert broken(block, plan, bias) == {("prediction", "prediction"): [0]}


def shifted(make_plan, make_rows, by: float):
    """Rows whose logits are `by` off, with the residual that says so."""
    plan = make_plan(maps="none")
    rows = make_rows(plan)
    block = block_of(rows)
    scale = np.maximum(1, np.nan_to_num(np.abs(block["logits"])).max(1))
    block["cams"] = (block["cams"] + (by * scale)[:, None, None, None]).astype(np.float32)
    sums = block["cams"].astype(np.float64).mean((2, 3)) + rows.bias
    block["identity_residual"] = np.abs(sums - block["logits"]).max(1).astype(np.float32)
    top = predicted_cams(block)
    flags = block["status"] & ~np.uint8(8)
    block["status"] = np.where((top.max((1, 2)) <= 0), flags | 8, flags).astype(np.uint8)
    return block, plan, rows.bias


@pytest.mark.parametrize(
    ("precision", "by", "passes"),
    [
        ("fp32", 0.5e-4, True),
        ("fp32", 2e-4, False),
        ("bf16", 2e-2, True),
        ("bf16", 1e-1, False),
        ("fp16", 5e-3, True),
        ("tf32", 1e-2, False),
    ],
)
def test_identity_has_to_hold_as_well_as_the_precision_allows(
    make_plan, make_rows, precision: str, by: float, passes: bool
) -> None:
    block, plan, bias = shifted(make_plan, make_rows, by)
    found = broken(block, dataclasses.replace(plan, precision=precision), bias)
    assert set(found) == (set() if passes else {("identity", "cams")})


def test_a_waived_identity_is_not_asked_for_but_its_residual_is(make_plan, make_rows) -> None:
    block, plan, bias = shifted(make_plan, make_rows, 0.5)
    waived = dataclasses.replace(plan, identity=False)
    assert broken(block, waived, bias) == {}
    block["identity_residual"][ORDINARY] = 0
    assert broken(block, waived, bias) == {("identity", "identity_residual"): [ORDINARY]}


def test_the_audit_changes_nothing(sound) -> None:
    block, plan, bias = sound
    before = {name: values.copy() for name, values in block.items()}
    for values in block.values():
        values.setflags(write=False)
    list(audit(block, plan, bias))
    for name, values in before.items():
        np.testing.assert_array_equal(block[name], values)
