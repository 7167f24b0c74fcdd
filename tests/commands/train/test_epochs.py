"""One epoch and what it starts from: splits, orders, new heads, sums over batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from batchcam.commands.train import epochs as training
from batchcam.commands.train.epochs import (
    flipped_samples,
    initial_network,
    predict,
    shuffled_batches,
    split_by_class,
    train_epoch,
    validate,
)
from batchcam.data.loader import BatchStream, SampleDataset
from batchcam.data.preprocessing import Preprocessing
from batchcam.errors import BatchcamError, CheckpointError, ModelError, StoppedEarlyError, stopped_by
from tests.helpers.memory_source import UNREADABLE, MemorySource
from tests.helpers.networks import GapNetwork, seeded

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing((16,), (16, 16), (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.9])
def test_split_takes_its_share_of_every_class_and_no_sample_twice(fraction):
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 5], [40, 10, 3, 1]))
    learn, hold = split_by_class(labels, fraction, seed=0)
    assert sorted([*learn, *hold]) == list(range(len(labels)))
    for label, count in ((0, 40), (1, 10), (2, 3), (5, 1)):
        held = int((labels[hold] == label).sum())
        assert abs(held - fraction * count) <= 1
        assert held < count  # something to learn from


def test_split_is_decided_by_the_seed():
    labels = np.repeat([0, 1], 50)
    once, again, other = (split_by_class(labels, 0.2, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert set(once) != set(other)


def test_split_does_not_depend_on_the_other_classes_members():
    labels = np.array([0] * 20 + [1] * 20)
    hold = split_by_class(labels, 0.25, 0)[1]
    assert ((labels[hold] == 0).sum(), (labels[hold] == 1).sum()) == (5, 5)


def test_batches_are_every_position_once_in_an_order_that_seed_and_epoch_decide():
    positions = np.arange(100, 150)
    orders = {k: shuffled_batches(positions, 8, *k) for k in ((0, 1), (0, 2), (1, 1))}
    for batches in orders.values():
        assert sorted(i for b in batches for i in b) == positions.tolist()
        assert [len(b) for b in batches] == [8] * 6 + [2]
    assert orders[0, 1] == shuffled_batches(positions, 8, 0, 1)
    flat = [tuple(i for b in batches for i in b) for batches in orders.values()]
    assert len({*flat, tuple(positions.tolist())}) == 4


def test_each_epoch_mirrors_another_half_of_the_samples_as_the_seed_decides():
    chosen = {key: flipped_samples(1000, *key) for key in ((0, 1), (0, 2), (1, 1))}
    for one in chosen.values():
        assert 450 < one.sum() < 550
    assert {450 < (chosen[0, 1] ^ chosen[key]).sum() < 550 for key in ((0, 2), (1, 1))} == {True}
    np.testing.assert_array_equal(chosen[0, 1], flipped_samples(1000, 0, 1))


@pytest.mark.parametrize(("count", "sizes"), [(17, [8, 8]), (1, []), (2, [2]), (8, [8])])
def test_last_batch_of_one_is_dropped(count, sizes):
    assert [len(b) for b in shuffled_batches(np.arange(count), 8, 0, 1)] == sizes


def test_seed_beside_epoch_is_not_their_sum():
    positions = np.arange(50)
    assert shuffled_batches(positions, 50, 1, 2) != shuffled_batches(positions, 50, 2, 1)


def stream(kinds: list[object], size: int = 4) -> BatchStream:
    dataset = SampleDataset(MemorySource(kinds), PREPROCESSING, (16, 16))
    return BatchStream(dataset, [list(range(i, min(i + size, len(kinds)))) for i in range(0, len(kinds), size)], 0, CPU)


LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def test_validation_is_the_mean_over_readable_samples_whatever_the_batches():
    network = seeded(GapNetwork)
    kinds: list[object] = [(16, 20)] * 10
    with stream(kinds, 10) as batches:
        pixels = next(batches).pixels
    kinds[3] = kinds[7] = UNREADABLE
    keep = [i for i in range(10) if i not in (3, 7)]
    with torch.no_grad():
        logits = network((pixels[keep] / 255 - 0.5) / 0.5)
        truth = torch.from_numpy(LABELS[keep])
        expected = (float(F.cross_entropy(logits, truth)), float((logits.argmax(1) == truth).float().mean()))
    network.train()
    for size in (1, 4, 10):
        with stream(kinds, size) as batches:
            score = validate(network, PREPROCESSING, LABELS, batches, CPU)
        assert (score.loss, score.score) == pytest.approx(expected, rel=1e-5)
        assert score.unreadable == 2


def test_an_epoch_sees_the_chosen_samples_mirrored_and_the_others_as_they_are():
    seen: list[torch.Tensor] = []
    network = seeded(GapNetwork)
    network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    flipped = np.array([True, False, True, True, False, False, True, False, True, False])
    kinds: list[object] = [(16, 20)] * 10
    kinds[2] = UNREADABLE
    with stream(kinds) as batches:
        pixels = np.concatenate([batch.pixels.numpy()[~batch.unreadable] for batch in batches]) / np.float32(255)
    with stream(kinds) as batches:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        train_epoch(network, optimizer, PREPROCESSING, LABELS, batches, CPU, lambda count: None, flipped)
    for image, original, mirror in zip(torch.cat(seen), (pixels - 0.5) / 0.5, np.delete(flipped, 2), strict=True):
        np.testing.assert_allclose(image, original[..., ::-1] if mirror else original, atol=1e-6)


def test_epoch_takes_one_step_of_the_optimizer_for_each_batch():
    ours, theirs = seeded(GapNetwork), seeded(GapNetwork)
    optimizers = [torch.optim.Adam(n.parameters(), lr=1e-2, weight_decay=1e-2) for n in (ours, theirs)]
    advanced: list[int] = []
    with stream([(16, 20)] * 10) as batches:
        score = train_epoch(ours, optimizers[0], PREPROCESSING, LABELS, batches, CPU, advanced.append)
    losses = []
    with stream([(16, 20)] * 10) as batches:
        for batch in batches:
            loss = F.cross_entropy(theirs((batch.pixels / 255 - 0.5) / 0.5), torch.from_numpy(LABELS[batch.indices]))
            optimizers[1].zero_grad()
            loss.backward()
            optimizers[1].step()
            losses.append(float(loss.detach()) * len(batch.indices))
    assert advanced == [4, 4, 2]
    assert score.loss == pytest.approx(sum(losses) / 10, rel=1e-5)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def one_output(network_class: type[GapNetwork] = GapNetwork) -> nn.Module:
    network = seeded(network_class)
    network.head = nn.Linear(network.head.in_features, 1)
    nn.init.constant_(network.head.weight, 3)
    return network


def test_one_output_learns_and_is_judged_by_binary_cross_entropy_and_its_sign():
    ours, theirs, labels = one_output(), one_output(), LABELS % 2
    optimizers = [torch.optim.Adam(n.parameters(), lr=1e-2, weight_decay=1e-2) for n in (ours, theirs)]
    with stream([(16, 20)] * 10) as batches:
        learned = train_epoch(ours, optimizers[0], PREPROCESSING, labels, batches, CPU, lambda n: None)
    losses, right = [], 0
    with stream([(16, 20)] * 10) as batches:
        for batch in batches:
            z, truth = theirs((batch.pixels / 255 - 0.5) / 0.5)[:, 0], torch.from_numpy(labels[batch.indices])
            loss = F.binary_cross_entropy_with_logits(z, truth.float())
            optimizers[1].zero_grad()
            loss.backward()
            optimizers[1].step()
            losses.append(float(loss.detach()) * len(z))
            right += int(((z > 0) == truth.bool()).sum())
    assert (learned.loss, learned.score) == pytest.approx((sum(losses) / 10, right / 10), rel=1e-5)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    with stream([(16, 20)] * 10, 10) as batches:
        pixels = next(batches).pixels
    with stream([(16, 20)] * 10) as batches:
        judged = validate(ours, PREPROCESSING, labels, batches, CPU)
    with torch.no_grad():
        z = ours((pixels / 255 - 0.5) / 0.5)[:, 0]
    truth = torch.from_numpy(labels)
    expected = (float(F.binary_cross_entropy_with_logits(z, truth.float())), float(((z > 0) == truth).float().mean()))
    assert (judged.loss, judged.score) == pytest.approx(expected, rel=1e-5)


def test_unreadable_samples_are_left_out_of_the_step_and_counted():
    networks = [seeded(GapNetwork), seeded(GapNetwork)]
    kinds: list[object] = [(16, 20), (16, 20), UNREADABLE, (16, 20)]
    for network, order in zip(networks, ([0, 1, 2, 3], [0, 1, 3]), strict=True):
        dataset = SampleDataset(MemorySource(kinds), PREPROCESSING, (16, 16))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        with BatchStream(dataset, [order], 0, CPU) as batches:
            score = train_epoch(network, optimizer, PREPROCESSING, LABELS, batches, CPU, lambda n: None)
        assert score.unreadable == len(order) - 3
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kinds", [[UNREADABLE] * 4, [UNREADABLE, (16, 20), UNREADABLE, UNREADABLE]])
def test_batch_with_less_than_two_readable_samples_is_no_step(kinds):
    network = seeded(GapNetwork)
    before = [p.clone() for p in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with stream(kinds) as batches:
        train_epoch(network, optimizer, PREPROCESSING, LABELS, batches, CPU, lambda n: None)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_reason_to_stop_ends_the_epoch_before_the_next_step():
    network = seeded(GapNetwork)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    advanced: list[int] = []

    def advance(count: int) -> None:
        advanced.append(count)
        raise stopped_by("SIGTERM")

    with stream([(16, 20)] * 10) as batches, pytest.raises(StoppedEarlyError, match="stopped by SIGTERM"):
        train_epoch(network, optimizer, PREPROCESSING, LABELS, batches, CPU, advance)
    assert len(advanced) == 1


def test_loss_that_is_not_finite_is_an_error_that_says_what_to_do():
    network = seeded(GapNetwork)
    nn.init.constant_(network.head.bias, math.inf)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    with stream([(16, 20)] * 4) as batches, pytest.raises(BatchcamError, match=r"diverged.*lower --learning-rate"):
        train_epoch(network, optimizer, PREPROCESSING, LABELS, batches, CPU, lambda n: None)


def test_training_and_validation_set_the_networks_mode():
    network = torchvision.models.resnet18(num_classes=3)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    before = network.bn1.running_mean.clone()
    with stream([(16, 20)] * 4) as batches:
        validate(network, PREPROCESSING, LABELS, batches, CPU)
    assert torch.equal(network.bn1.running_mean, before)
    with stream([(16, 20)] * 4) as batches:
        train_epoch(network, optimizer, PREPROCESSING, LABELS, batches, CPU, lambda n: None)
    assert not torch.equal(network.bn1.running_mean, before)


def test_predicted_logits_are_the_networks_and_nan_of_unreadable_samples():
    network = seeded(GapNetwork)
    with stream([(16, 20), UNREADABLE, (16, 20)]) as batches:
        batch = next(batches)
    with torch.inference_mode():
        expected = network((batch.pixels / 255 - 0.5) / 0.5).numpy()
    expected[1] = math.nan
    np.testing.assert_allclose(predict(network, PREPROCESSING, batch, 3, CPU, "fp32"), expected, rtol=1e-5)


def test_batch_without_a_readable_sample_has_no_predictions():
    with stream([UNREADABLE] * 3) as batches:
        assert np.isnan(predict(seeded(GapNetwork), PREPROCESSING, next(batches), 3, CPU, "fp32")).all()


def test_untrained_network_is_decided_by_the_seed():
    one, again, other = (initial_network("resnet18", 3, None, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one.conv1.weight, again.conv1.weight)
    assert not torch.equal(one.conv1.weight, other.conv1.weight)
    assert one.fc.out_features == 3


@pytest.mark.parametrize(("name", "layer"), [("resnet18", "fc"), ("mobilenet_v2", "classifier.1")])
def test_weights_of_another_class_count_get_a_new_last_layer_and_keep_all_others(tmp_path, name, layer):
    torch.manual_seed(5)
    pretrained = torchvision.models.get_model(name, weights=None, num_classes=7)
    torch.save(pretrained.state_dict(), tmp_path / "weights.pth")
    network = initial_network(name, 3, str(tmp_path / "weights.pth"), seed=0)[0]
    assert network.get_submodule(layer).weight.shape[0] == 3
    again = initial_network(name, 3, str(tmp_path / "weights.pth"), seed=0)[0]
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        if not key.startswith(layer):
            assert torch.equal(value, pretrained.state_dict()[key])


def test_weights_of_another_network_are_refused_with_their_keys(tmp_path):
    torch.save(torchvision.models.resnet18(num_classes=7).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"weights\.pth.*missing"):
        initial_network("resnet34", 3, str(tmp_path / "weights.pth"), seed=0)


def test_weights_that_neither_are_a_file_nor_known_are_refused():
    with pytest.raises(CheckpointError, match="--weights no-such: no such file, and resnet18 has no weights of that"):
        initial_network("resnet18", 3, "no-such", seed=0)


def test_weights_that_can_not_be_downloaded_are_refused_with_a_way_out(monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", fail)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(CheckpointError, match="cannot download: network is unreachable; give a local file"):
        initial_network("resnet18", 3, "DEFAULT", seed=0)


def test_weights_by_name_get_a_new_last_layer(monkeypatch):
    state = torchvision.models.resnet18(num_classes=1000).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: state)
    network = initial_network("resnet18", 3, "IMAGENET1K_V1", seed=0)[0]
    assert network.fc.out_features == 3
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("name", [n for n in torchvision.models.list_models() if n.startswith("squeezenet")])
def test_network_that_ends_in_a_relu_has_no_one_output(name):
    assert initial_network(name, 2, None, 0)
    with pytest.raises(ModelError, match=f"{name} ends in a ReLU: its one output is never negative"):
        initial_network(name, 1, None, 0)


def test_network_without_a_linear_layer_has_none_to_replace():
    with pytest.raises(ModelError, match="no linear layer to replace"):
        training._replace_last_layer(nn.Sequential(nn.Conv2d(3, 3, 1)), 3)


class SideExit(GapNetwork):
    """In training, logits come with those of a side exit, as GoogLeNet's do."""

    def forward(self, images):
        logits = super().forward(images)
        return torchvision.models.GoogLeNetOutputs(logits, logits, logits) if self.training else logits


@pytest.mark.parametrize("factory", [seeded, one_output], ids=["one output a class", "one output"])
def test_network_with_side_exits_learns_from_its_last_one(factory):
    networks = [factory(GapNetwork), factory(SideExit)]
    for network in networks:
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        with stream([(16, 20)] * 4) as batches:
            train_epoch(network, optimizer, PREPROCESSING, LABELS % 2, batches, CPU, lambda n: None)
    assert torch.equal(networks[0].head.weight, networks[1].head.weight)
