"""The one hook: what it keeps, when it lets go, and that it is never left behind."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn

from batchcam.maps.capture import ActivationCapture
from tests.helpers.networks import CHANNELS, GapNetwork, ResidualNetwork, hook_count, random_images, seeded

PAGE = 4096
MEBIBYTE = 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_capture_gives_the_layers_output():
    network, images = seeded(GapNetwork), random_images(2, 16, 24)
    with ActivationCapture(network.body) as capture, torch.no_grad():
        network(images)
        torch.testing.assert_close(capture.take(), network.body(network.stem(images)))


def test_capture_keeps_the_output_as_it_was_before_a_later_in_place_sum():
    network, images = seeded(ResidualNetwork), random_images(2, 16, 24)
    with ActivationCapture(network.block.bn) as capture, torch.no_grad():
        network(images)
        features = network.stem(images)
        # the second run of `bn` is the reference, and comes after the first capture was taken
        captured = capture.take()
        torch.testing.assert_close(captured, network.block.bn(network.block.conv(features)))
    assert (captured < 0).any()  # the block rectifies in place


def test_capture_does_not_change_what_the_network_gives():
    network, images = seeded(ResidualNetwork), random_images(2, 16, 24)
    with torch.no_grad():
        before = network(images)
        with ActivationCapture(network.block.bn):
            during = network(images)
    assert torch.equal(before, during)


def test_output_is_given_once_per_forward_pass():
    network = seeded(GapNetwork)
    with ActivationCapture(network.body) as capture, torch.no_grad():
        network(random_images(1, 8, 8))
        capture.take()
        with pytest.raises(RuntimeError, match="did not run"):
            capture.take()


def test_layer_that_does_not_run_is_told():
    network = seeded(GapNetwork)
    with ActivationCapture(nn.Identity()) as capture, torch.no_grad():
        network(random_images(1, 8, 8))
        with pytest.raises(RuntimeError, match="target layer did not run"):
            capture.take()


def test_hook_is_gone_after_the_block():
    network = seeded(GapNetwork)
    with ActivationCapture(network.body):
        assert hook_count(network) == 1
    assert hook_count(network) == 0


def test_hook_is_gone_after_an_exception_inside_the_block():
    network = seeded(GapNetwork)
    with pytest.raises(ZeroDivisionError), ActivationCapture(network.body):
        raise ZeroDivisionError
    assert hook_count(network) == 0


def test_hook_is_gone_after_the_capture_was_entered_twice():
    network = seeded(GapNetwork)
    capture = ActivationCapture(network.body)
    with capture, pytest.raises(RuntimeError, match="already"), capture:
        pass
    assert hook_count(network) == 0


def test_hooks_of_others_stay():
    network, seen = seeded(GapNetwork), []
    network.body.register_forward_hook(lambda *_: seen.append(1))
    with ActivationCapture(network.body), torch.no_grad():
        network(random_images(1, 8, 8))
    assert (hook_count(network), seen) == (1, [1])


def test_capture_can_be_used_again_after_its_block():
    network, images = seeded(GapNetwork), random_images(1, 8, 8)
    capture = ActivationCapture(network.body)
    for _ in range(2):
        with capture, torch.no_grad():
            network(images)
            assert capture.take().shape[1] == CHANNELS
    assert hook_count(network) == 0


def test_activations_are_freed_when_they_were_taken_and_dropped():
    network = seeded(GapNetwork)
    with ActivationCapture(network.body) as capture, torch.no_grad():
        network(random_images(1, 8, 8))
        reference = weakref.ref(capture.take())
        gc.collect()
        assert reference() is None


def test_activations_that_nobody_took_are_freed_at_the_end_of_the_block():
    network = seeded(GapNetwork)
    capture = ActivationCapture(network.body)
    with capture, torch.no_grad():
        network(random_images(1, 8, 8))
    with pytest.raises(RuntimeError):
        capture.take()


def test_memory_stays_flat_over_hundreds_of_batches():
    network = seeded(GapNetwork)
    images = random_images(16, 128, 128)  # 1 MiB of activations a batch: 300 that stay would show
    with ActivationCapture(network.stem) as capture, torch.inference_mode():
        for batch in range(350):
            if batch == 50:
                warm = resident_bytes()
            network(images)
            assert capture.take().numel() * 4 == MEBIBYTE
    assert resident_bytes() - warm < 8 * MEBIBYTE
