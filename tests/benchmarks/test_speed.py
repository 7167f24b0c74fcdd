"""The speed benchmark: peers compute what they did, the bound counts every product, shares are of the right stage."""

from __future__ import annotations

import copy
import json
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from benchmarks import contestants, gpu, measured, speed_tables
from tests.helpers.networks import randomised


@pytest.fixture(name="network", scope="module")
def _network() -> nn.Module:
    return randomised(get_model("resnet18", num_classes=10)).eval()


def test_a_network_with_folded_batch_normalisations_gives_the_same_logits(network):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    folded = contestants.folded(copy.deepcopy(network))
    assert not [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-4)


def test_the_bounds_products_are_all_operations_of_the_network(network):
    images = torch.zeros(2, 3, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    operations = sum(2 * g * m * k * n for g, m, k, n in contestants.shapes(network, images))
    assert operations == counter.get_total_flops()


@pytest.mark.parametrize(("m", "k", "n", "cached"), [(40, 3, 5, 30), (7, 2, 3, 10**6), (1, 8, 2, 4)])
def test_a_product_of_some_rows_is_made_often_enough_for_all(m, k, n, cached):
    times, multiply = contestants.product(1, m, k, n, cached, torch.device("cpu"))
    one = multiply()
    assert one.numel() // n * times in range(m - times, m + times)


def test_only_whole_processors_count_for_energy(tmp_path: Path):
    for name, microjoules in (("intel-rapl:0", 5_000_000), ("intel-rapl:1", 2_000_000), ("intel-rapl:0:0", 9_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{microjoules}\n")
    assert measured.energy(tmp_path) == {"joules": 7.0}


@pytest.mark.parametrize("content", [None, "", "denied"])
def test_energy_that_cannot_be_read_is_left_out(tmp_path: Path, content: str | None):
    if content is not None:
        (tmp_path / "intel-rapl:0").mkdir()
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text(content)
    assert measured.energy(tmp_path) == {}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_another_checkout_takes_part_with_its_own_code(tmp_path: Path):
    module = tmp_path / "batchcam" / "commands" / "explain" / "explain.py"
    module.parent.mkdir(parents=True)
    module.touch()
    (tmp_path / "batchcam" / "__init__.py").write_text("MARK = 17\n")

    def contestant(job: object, out: Path, stream: measured.Stream) -> int:
        import batchcam

        stream.more["mark"] = batchcam.MARK
        with stream:
            time.sleep(0.02)
        return 2

    found = measured.measure(contestant, None, 5, torch.device("cpu"), tmp_path)
    assert found["mark"] == 17
    assert found["s"] >= 0.01
    assert found["start_s"] >= 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_contestant_whose_package_is_missing_is_left_out():
    def contestant(job: object, out: Path, stream: measured.Stream) -> None:
        import no_such_package  # noqa: F401

    assert measured.measure(contestant, None, 5, torch.device("cpu")) is None


ROWS = [
    {"name": "batchcam explain", "images_per_s": 50.0},
    {"name": "batchcam explain --pixels tensor", "images_per_s": 60.0},
    {"name": "naive model(x) loop", "images_per_s": 40.0},
    {"name": "stage: decoding", "images_per_s": 200.0},
    {"name": "stage: decoding, --pixels tensor", "images_per_s": 600.0},
    {"name": "stage: forward pass", "images_per_s": 90.0},
    {"name": contestants.BOUND, "images_per_s": 100.0},
]


def test_shares_are_of_the_stage_that_bounds_each():
    assert speed_tables.shares(ROWS) == pytest.approx(
        {
            "batchcam explain, of the decoding stage": 0.25,
            "batchcam explain --pixels tensor, of the decoding stage": 0.1,
            "stage: forward pass, of the bound": 0.9,
        }
    )


XML = '<testsuites><testsuite tests="9" skipped="{skipped}" failures="{failed}" errors="0"/></testsuites>'


@pytest.mark.parametrize(
    ("device", "skipped", "failed", "code"),
    [("cuda", 2, 0, 0), ("cuda", 2, 1, 1), ("cuda", 9, 0, 1), ("cpu", 9, 0, 0)],
)
def test_a_gpus_row_has_what_was_measured_and_tests_that_fail_or_did_not_run_fail(
    tmp_path: Path, device: str, skipped: int, failed: int, code: int
) -> None:
    ours = {**ROWS[0], "bytes_to_device": 150528.0, "bytes_to_host": 52000.0}
    bench = {"machine": "a machine", "jobs": {"JPEG": [ours]}, "shares": {"JPEG": speed_tables.shares(ROWS)}}
    bench["asked"] = {"device": device}
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    (tmp_path / "tests.xml").write_text(XML.format(skipped=skipped, failed=failed))
    assert gpu.main(tmp_path) == code
    row = (tmp_path / "row.md").read_text().splitlines()[-1]
    assert row == f"| a machine | 50 | – | 0.25 | – | 151, 52 | – | {9 - skipped - failed}, {failed} |"
    assert json.loads((tmp_path / "gpu.json").read_text())["tests"]["passed"] == 9 - skipped - failed


def test_a_benchmark_that_did_not_end_is_a_failure(tmp_path: Path):
    assert gpu.main(tmp_path) == 1
