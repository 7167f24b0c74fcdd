"""Batches in, arrays out: selections, statuses, placeholders, types, and the hook that is never left."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from batchcam.data.preprocessing import Preprocessing
from batchcam.errors import DeviceError, ModelError
from batchcam.maps import parts
from batchcam.maps.explainer import ExplainedBatch, Explainer, Request
from batchcam.maps.gradients import with_gradients
from batchcam.maps.preparation import ExplainableNetwork
from batchcam.network.device import pick_device
from batchcam.network.precision import in_precision, set_precision
from batchcam.network.proof import ExactNetwork, prove
from batchcam.rules import EXACT, IDENTITY_TOLERANCE, LEGRAD, METHODS, CamSelection, Status
from tests.helpers.networks import (
    CHANNELS,
    CLASSES,
    FailingNetwork,
    GapNetwork,
    RandomDropNetwork,
    ResidualNetwork,
    hook_count,
    random_images,
    seeded,
)

CPU = torch.device("cpu")
SIZE = (16, 24)
COUNT = 6
PREPROCESSING = Preprocessing(SIZE, SIZE, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
SELECTIONS = ("all", "predicted", "predicted+label", "topk:1", "topk:2", "topk:3")
MAPS = ("uint8", "float32", "none")
OF_GRIDS = [method for method in METHODS if method not in (EXACT, LEGRAD)]
WAYS = [*((EXACT, cams) for cams in SELECTIONS), *((method, "topk:2") for method in OF_GRIDS)]


@pytest.fixture
def network() -> nn.Module:
    return seeded(GapNetwork)


@pytest.fixture
def images() -> Tensor:
    return random_images(COUNT, *SIZE)


LABELS = np.array([0, 1, 2, -1, 0, -1])


def explain(
    network: nn.Module | ExplainableNetwork,
    pixels: Tensor,
    *,
    cams: str = "all",
    maps: str = "uint8",
    labels: np.ndarray | None = None,
    unreadable: tuple[int, ...] = (),
    preprocessing: Preprocessing | None = None,
    precision: str = "fp32",
    identity: bool = True,
) -> ExplainedBatch:
    proved = prove(network, random_images(2, *SIZE, seed=9)) if isinstance(network, nn.Module) else network
    count = len(pixels) if len(pixels) else len(unreadable)
    rows = np.isin(np.arange(count), unreadable)
    with Explainer(
        proved, preprocessing, Request(CamSelection.parse(cams), maps, SIZE, precision, identity), CPU
    ) as explainer:
        return explainer(pixels, np.full(count, -1) if labels is None else labels, rows)


def assert_same(one: ExplainedBatch, other: ExplainedBatch, rows: object = slice(None)) -> None:
    assert one.columns().keys() == other.columns().keys()
    for name, values in one.columns().items():
        assert values.dtype == other.columns()[name].dtype, name
        np.testing.assert_array_equal(values[rows], other.columns()[name][rows], name)


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("cams", SELECTIONS)
def test_a_batch_in_parts_for_the_cache_gives_what_a_whole_one_gives(network, images, monkeypatch, cams, maps):
    whole = explain(network, images, cams=cams, maps=maps, labels=LABELS, unreadable=(4,))
    monkeypatch.setattr(parts, "PIXELS_AT_ONCE", 4 * SIZE[0] * SIZE[1])
    sizes = []
    hook = network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    joined = explain(network, images, cams=cams, maps=maps, labels=LABELS, unreadable=(4,))
    hook.remove()
    assert sizes[-2:] == [4, COUNT - 4]
    for name, values in whole.columns().items():
        rounding = 1 if values.dtype == np.uint8 else 1e-5
        np.testing.assert_allclose(joined.columns()[name].astype(float), values, atol=rounding, err_msg=name)


def test_arrays_have_the_schemas_types_and_shapes(network, images):
    found = {k: (v.dtype.name, v.shape) for k, v in explain(network, images).columns().items()}
    height, width = SIZE[0] // 4, SIZE[1] // 4
    assert found == {
        "prediction": ("int64", (COUNT,)),
        "confidence": ("float32", (COUNT,)),
        "logits": ("float32", (COUNT, CLASSES)),
        "cam_class": ("int64", (COUNT, CLASSES)),
        "cams": ("float32", (COUNT, CLASSES, height, width)),
        "identity_residual": ("float32", (COUNT,)),
        "status": ("uint8", (COUNT,)),
        "maps": ("uint8", (COUNT, *SIZE)),
        "map_range": ("float32", (COUNT, 2)),
    }


def test_numbers_are_those_of_the_network(network, images):
    batch = explain(network, images)
    with torch.no_grad():
        logits = network(images)
        activations = network.body(network.stem(images))
        sums = activations.mean((2, 3)) @ network.head.weight.T + network.head.bias
    np.testing.assert_allclose(batch.logits, logits, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(batch.prediction, logits.numpy().argmax(1))
    np.testing.assert_allclose(batch.confidence, logits.softmax(1).amax(1), rtol=1e-6)
    np.testing.assert_allclose(batch.cams.mean((2, 3)) + network.head.bias.detach().numpy(), sums, atol=1e-6)
    residual = np.abs(batch.cams.mean((2, 3)) + network.head.bias.detach().numpy() - batch.logits).max(1)
    np.testing.assert_allclose(batch.identity_residual, residual, rtol=0, atol=1e-6)
    assert (batch.status == 0).all()


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("cams", SELECTIONS)
def test_selected_cams_are_a_gather_from_all_of_them(network, images, cams, maps):
    every = explain(network, images, maps=maps)
    batch = explain(network, images, cams=cams, maps=maps, labels=LABELS)
    ranked = np.argsort(-every.logits, axis=1, kind="stable")
    expected = {
        "all": np.tile(np.arange(CLASSES), (COUNT, 1)),
        "predicted": every.prediction[:, None],
        "predicted+label": np.stack([every.prediction, LABELS], 1),
    }.get(cams, ranked[:, : int(cams[-1])] if cams.startswith("topk") else None)
    np.testing.assert_array_equal(batch.cam_class, expected)
    for n in range(COUNT):
        for m, k in enumerate(batch.cam_class[n]):
            if k < 0:
                assert np.isnan(batch.cams[n, m]).all()
            else:
                np.testing.assert_allclose(batch.cams[n, m], every.cams[n, k], rtol=0, atol=1e-6)
    for name in ("prediction", "logits", "confidence", "status"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(every, name))
    if maps == "uint8":
        assert np.abs(batch.maps.astype(int) - every.maps).max() <= 1
    elif maps == "float32":
        np.testing.assert_allclose(batch.maps, every.maps, rtol=0, atol=1e-6)
    else:
        assert batch.maps is None
        assert batch.map_range is None


def test_unknown_label_has_a_map_of_nan_and_a_sound_status(network, images):
    batch = explain(network, images, cams="predicted+label", labels=LABELS)
    unknown = LABELS < 0
    assert (batch.cam_class[unknown, 1] == -1).all()
    assert np.isnan(batch.cams[unknown, 1]).all()
    assert np.isfinite(batch.cams[~unknown]).all()
    assert (batch.status == 0).all()
    assert (batch.identity_residual < 1e-5).all()


def test_equal_logits_give_the_first_class_and_rank_in_order_of_class(network, images):
    with torch.no_grad():
        network.head.weight[2] = network.head.weight[1]
        network.head.bias[1:] = 5
    batch = explain(network, images, cams="topk:3")
    np.testing.assert_array_equal(batch.logits[:, 1], batch.logits[:, 2])
    assert (batch.prediction == 1).all()
    np.testing.assert_array_equal(batch.cam_class, np.tile([1, 2, 0], (COUNT, 1)))


def test_uint8_pixels_give_what_their_normalised_floats_give(network):
    pixels = torch.randint(0, 256, (COUNT, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (PREPROCESSING.mean, PREPROCESSING.std))
    floats = (pixels.float() / 255 - mean) / std
    assert_same(explain(network, pixels, preprocessing=PREPROCESSING), explain(network, floats))


def test_uint8_pixels_without_preprocessing_are_refused(network):
    with pytest.raises(ModelError, match="no preprocessing"):
        explain(network, torch.zeros((1, 3, *SIZE), dtype=torch.uint8))


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("cams", SELECTIONS)
def test_unreadable_rows_are_blank_and_the_others_are_as_if_nothing_were_wrong(network, images, cams, maps):
    blank, replaced = images.clone(), images.clone()
    blank[[1, 4]] = 0
    replaced[[1, 4]] = 7.0
    batch = explain(network, blank, cams=cams, maps=maps, labels=LABELS, unreadable=(1, 4))
    good = [0, 2, 3, 5]
    assert_same(batch, explain(network, replaced, cams=cams, maps=maps, labels=LABELS), good)
    rows = [1, 4]
    for name in ("logits", "cams", "confidence", "identity_residual"):
        assert np.isnan(getattr(batch, name)[rows]).all()
    assert (batch.prediction[rows] == -1).all()
    assert (batch.status[rows] == Status.UNREADABLE).all()
    assert (batch.cam_class[rows] == (np.arange(CLASSES) if cams == "all" else -1)).all()
    if maps != "none":
        assert np.isnan(batch.map_range[rows]).all()
        assert np.isnan(batch.maps[rows]).all() if maps == "float32" else (batch.maps[rows] == 0).all()


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize("cams", SELECTIONS)
def test_batch_without_a_readable_sample_is_what_unreadable_rows_of_any_batch_are(network, images, cams, maps):
    among = explain(network, images, cams=cams, maps=maps, unreadable=tuple(range(COUNT)))
    alone = explain(network, torch.empty(0), cams=cams, maps=maps, unreadable=tuple(range(COUNT)))
    assert_same(alone, among)


def test_placeholders_that_overflow_do_not_stop_the_batch(network, images):
    images[2] = 1e38
    batch = explain(network, images, unreadable=(2,))
    assert batch.status.tolist() == [0, 0, int(Status.UNREADABLE), 0, 0, 0]


@pytest.mark.parametrize("cams", SELECTIONS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_sample_of_nan_or_infinity_is_flagged_without_a_prediction_or_a_map(network, images, value, cams):
    images[3] = value
    batch = explain(network, images, cams=cams, labels=LABELS)
    assert batch.status.tolist() == [0, 0, 0, int(Status.NON_FINITE), 0, 0]
    assert batch.prediction[3] == -1
    assert not batch.maps[3].any()
    assert np.isnan(batch.map_range[3]).all()
    assert not np.isfinite(batch.logits[3]).all()


@pytest.mark.parametrize("method", OF_GRIDS)
def test_maps_by_gradients_have_no_residual_not_even_in_a_row_without_a_class(network, images, method):
    images[3] = torch.nan
    batch = explain(with_gradients(network, images[:2], method), images, cams="predicted", identity=False)
    assert batch.cam_class[:, 0].tolist() == [*batch.prediction[:3], -1, *batch.prediction[4:]]
    assert np.isnan(batch.identity_residual).all()


def test_all_classes_maps_by_gradients_are_those_of_each_class_alone(network, images):
    found = with_gradients(network, images, "gradcam")
    both = explain(found, images, cams="all"), explain(found, images, cams="topk:3")
    for ranked, row in zip(both[1].cam_class, range(COUNT), strict=True):
        np.testing.assert_array_equal(both[0].cams[row][ranked], both[1].cams[row])


def test_float_map_of_a_sample_without_a_prediction_is_nan(network, images):
    proved = prove(network, images)
    with torch.no_grad():
        network.head.bias[2] = float("nan")
    batch = explain(proved, images, maps="float32")
    assert np.isfinite(batch.cams).all()
    assert (batch.status == Status.NON_FINITE).all()
    assert np.isnan(batch.maps).all()
    assert np.isnan(batch.map_range).all()


def test_weights_of_nan_flag_every_sample(network, images):
    proved = prove(network, images)
    nn.init.constant_(network.body[0].weight, float("nan"))
    batch = explain(proved, images)
    assert (batch.status == Status.NON_FINITE).all()
    assert (batch.prediction == -1).all()
    assert not batch.maps.any()


def test_nan_in_a_class_that_is_not_predicted_is_flagged_with_all_cams(network, images):
    """Its logit is NaN as well, and so there is no argmax."""
    proved = prove(network, images)
    with torch.no_grad():
        network.head.weight[2, 0] = float("nan")
    assert (explain(proved, images).status == Status.NON_FINITE).all()


def test_constant_map_is_flagged_and_shown_as_nothing(network, images):
    with torch.no_grad():
        network.body[0].weight.zero_()
        network.body[0].bias.fill_(1)
        network.head.weight.fill_(1)
        network.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    batch = explain(network, images)
    assert (batch.status == Status.CONSTANT_MAP).all()
    assert (batch.prediction == 1).all()
    assert not batch.maps.any()
    np.testing.assert_allclose(batch.map_range, CHANNELS, rtol=1e-6)


def test_map_of_zeros_is_constant_and_without_positive_evidence(network, images):
    with torch.no_grad():
        network.head.weight.zero_()
    batch = explain(network, images)
    assert (batch.status == Status.CONSTANT_MAP | Status.NO_POSITIVE_EVIDENCE).all()


def test_map_without_a_cell_above_zero_is_flagged_and_kept(network, images):
    with torch.no_grad():
        network.head.weight.copy_(-network.head.weight.abs())
    batch = explain(network, images)
    assert (batch.cams <= 0).all()
    assert (batch.status == Status.NO_POSITIVE_EVIDENCE).all()
    assert (batch.maps.max((1, 2)) == 255).all()


def test_constant_map_of_one_sample_leaves_the_maps_of_others(network, images):
    network.body[0].bias.data.fill_(-100)  # only samples of large values get through
    images[1:] *= 0
    images[0] *= 1e4
    batch = explain(network, images, identity=True)
    assert (batch.status[1:] & Status.CONSTANT_MAP > 0).all()
    assert batch.status[0] & Status.CONSTANT_MAP == 0
    assert batch.maps[0].max() == 255


def test_bfloat16_records_float32_within_its_tolerance():
    network = seeded(ResidualNetwork)
    images = random_images(COUNT, *SIZE)
    exact, rough = (explain(network, images, precision=p) for p in ("fp32", "bf16"))
    assert {rough.cams.dtype, rough.logits.dtype} == {np.dtype(np.float32)}
    assert (rough.identity_residual > exact.identity_residual.max()).any()
    scale = np.maximum(1, np.abs(rough.logits).max(1))
    assert (rough.identity_residual <= IDENTITY_TOLERANCE["bf16"] * scale).all()
    assert 0 < np.abs(rough.cams - exact.cams).max() < 0.1 * np.ptp(exact.cams)


def noisy() -> ExactNetwork:
    network = seeded(RandomDropNetwork)
    proved = prove(network, random_images(2, *SIZE))
    network.noisy = True
    return proved


def test_batch_whose_maps_do_not_add_up_stops_the_job_with_the_measured_residual(images):
    loose = explain(noisy(), images, identity=False)
    with pytest.raises(ModelError) as error:
        explain(noisy(), images)
    assert "row 0 of a batch" in str(error.value)
    assert f"{loose.identity_residual[0]:.3g}" in str(error.value)


def test_maps_that_do_not_add_up_are_recorded_when_the_identity_was_waived(images):
    batch = explain(noisy(), images, identity=False)
    assert (batch.identity_residual > 1e-3).all()


def test_unreadable_rows_do_not_count_for_the_identity(images):
    batch = explain(noisy(), images, unreadable=tuple(range(COUNT)))
    assert (batch.status == Status.UNREADABLE).all()


def test_batches_do_not_depend_on_each_other(network, images):
    proved = prove(network, images)
    with Explainer(proved, None, Request(CamSelection("all"), "uint8", SIZE, "fp32", True), CPU) as explainer:
        none, labels = np.zeros(COUNT, bool), np.full(COUNT, -1)
        first = explainer(images, labels, none)
        explainer(images.flip(0), labels, none)
        assert_same(explainer(images, labels, none), first)


def test_results_can_be_written_to_and_do_not_change_with_the_next_batch(network, images):
    proved = prove(network, images)
    with Explainer(proved, None, Request(CamSelection("all"), "float32", SIZE, "fp32", True), CPU) as explainer:
        first = explainer(images, np.full(COUNT, -1), np.zeros(COUNT, bool))
        copies = {k: v.copy() for k, v in first.columns().items()}
        explainer(images.flip(0) * 2, np.full(COUNT, -1), np.zeros(COUNT, bool))
    for name, values in first.columns().items():
        np.testing.assert_array_equal(values, copies[name])
        assert values.flags.writeable


class PeekingNetwork(GapNetwork):
    """Looks at a value of its own, for which a GPU has to be waited for."""

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits if self.training or float(logits.sum()) < np.inf else -logits


def submit_without_values(network: ExplainableNetwork, cams: str, maps: str, labels: np.ndarray) -> None:
    """Submit a batch of tensors that have shapes but no values: whatever asks for a value raises."""
    request = Request(CamSelection.parse(cams), maps, SIZE, "fp32", True)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Explainer(network, PREPROCESSING, request, CPU) as it:
        pixels = mode.from_tensor(torch.zeros(COUNT, 3, *SIZE, dtype=torch.uint8))
        it.submit(pixels, labels, np.zeros(COUNT, bool))


@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize(("method", "cams"), WAYS)
def test_a_batch_is_submitted_without_asking_for_a_value(network, images, method, cams, maps):
    found = prove(network, images) if method == EXACT else with_gradients(network, images, method)
    submit_without_values(found, cams, maps, LABELS)


def test_asking_for_a_value_would_have_been_noticed(images):
    network = prove(seeded(PeekingNetwork), images)
    with pytest.raises(ModelError, match="raised DataDependentOutputException"):
        submit_without_values(network, "all", "uint8", LABELS)


@pytest.mark.gpu
@pytest.mark.parametrize("maps", MAPS)
@pytest.mark.parametrize(("method", "cams"), [each for each in WAYS if each[0] != "eigencam"])
def test_batches_submitted_one_after_the_other_come_back_from_a_gpu_as_from_a_cpu(network, method, cams, maps):
    generator = torch.Generator().manual_seed(0)
    batches = torch.randint(0, 256, (4, COUNT, 3, *SIZE), dtype=torch.uint8, generator=generator)
    request, none = Request(CamSelection.parse(cams), maps, SIZE, "fp32", method == EXACT), np.zeros(COUNT, bool)
    expected, found = [], []
    for device, results in ((CPU, expected), (torch.device("cuda"), found)):
        probe = random_images(2, *SIZE).to(device)
        network.to(device)
        explainable = prove(network, probe) if method == EXACT else with_gradients(network, probe, method)
        with Explainer(explainable, PREPROCESSING, request, device) as explainer:
            explainer(batches[0], LABELS, none)  # the first call loads libraries, and waits
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            try:
                submitted = [explainer.submit(batch, LABELS, none) for batch in batches]
            finally:
                if device.type == "cuda":
                    torch.cuda.set_sync_debug_mode("default")
            results += [each.result() for each in submitted]
    for cpu, gpu in zip(expected, found, strict=True):
        for name, values in gpu.columns().items():
            rounding = {"maps": 1 if maps == "uint8" else 1e-4, "status": 0}.get(name, 1e-4)
            np.testing.assert_allclose(values.astype(float), cpu.columns()[name], atol=rounding, err_msg=name)


def test_hook_is_gone_after_the_block(network, images):
    proved = prove(network, images)
    request = Request(CamSelection("all"), "uint8", SIZE, "fp32", True)
    with Explainer(proved, None, request, CPU):
        assert hook_count(network) == 1
    assert hook_count(network) == 0
    with pytest.raises(KeyboardInterrupt), Explainer(proved, None, request, CPU):
        raise KeyboardInterrupt
    assert hook_count(network) == 0


def test_hook_is_gone_after_the_network_raised_inside_the_block(images):
    network = seeded(FailingNetwork)
    proved = prove(seeded(GapNetwork), images)
    proved = ExactNetwork(network, "body", proved.weight, proved.bias, proved.grid_size, 0.0)
    with pytest.raises(ModelError, match="raised RuntimeError: out of memory, say"):
        explain(proved, images)
    assert hook_count(network) == 0


def test_device_by_name():
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "", "meta", "cpu:x", "-1"])
def test_device_that_is_not_here_is_refused_with_those_that_are(name):
    with pytest.raises(DeviceError, match=rf"--device {name}: not on this machine; there are: cpu"):
        pick_device(name)


def test_precision_is_fixed_for_the_process():
    threads = torch.get_num_threads()
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for precision, expected in (("tf32", True), ("fp32", False), ("bf16", False)):
            set_precision(precision, CPU, 1)
            assert torch.backends.cudnn.allow_tf32 is expected
            with in_precision(precision, CPU):
                assert torch.backends.cuda.matmul.allow_tf32 is expected
                assert torch.is_autocast_enabled("cpu") is (precision == "bf16")
            assert torch.backends.cuda.matmul.allow_tf32 is False  # CAMs are contracted in float32
            with contextlib.suppress(ZeroDivisionError), in_precision(precision, CPU):
                raise ZeroDivisionError
            assert torch.backends.cuda.matmul.allow_tf32 is False
        assert torch.backends.cudnn.deterministic
        assert torch.get_num_threads() == 1
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
        torch.set_num_threads(threads)
