"""Items of map-style datasets become samples, whatever of labels, ids and images they hold."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from batchcam.data.map_source import MapSource
from batchcam.errors import DatasetError
from batchcam.images.decoding import UnreadableImageError
from batchcam.images.passing_faults import PassingFaultError
from batchcam.images.planes import Decoding

torch.set_num_threads(1)


class Items:
    """A map-style dataset of given items, which raises those that are exceptions."""

    def __init__(self, *items: Any, **attributes: Any) -> None:
        self.items = items
        self.asked: list[int] = []
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        if isinstance(self.items[index], Exception):
            raise self.items[index]
        return self.items[index]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, shape, np.uint8)


def listing(*items: Any, **attributes: Any) -> MapSource:
    return MapSource("spec", Items(*items, **attributes))


PICTURE = Image.fromarray(noise(4, 6, 3))


def test_pass_over_items_gives_labels_and_ids() -> None:
    listed = listing((PICTURE, 2, "b"), (PICTURE, torch.tensor(0), "a"), (PICTURE, None, "c"), (PICTURE, np.int8(1), 4))
    assert list(listed.sample_ids) == ["b", "a", "c", "4"]
    assert listed.labels.tolist() == [2, 0, -1, 1]
    assert listed.labels.dtype == np.int64
    assert len(listed.notes) == 1


def test_items_without_ids_are_numbered() -> None:
    assert list(listing((PICTURE, 0), (PICTURE, 0)).sample_ids) == ["00000", "00001"]


@pytest.mark.parametrize("labels", [[3, -1, 0], np.array([3, -1, 0], np.int16), (3, None, 0)])
@pytest.mark.parametrize("name", ["targets", "labels", "_labels"])
def test_attributes_spare_the_pass(name: str, labels: Any) -> None:
    listed = listing(*[(PICTURE, 9)] * 3, **{name: labels}, sample_ids=["x", "y", "z"], classes=list("abcd"))
    assert listed.labels.tolist() == [3, -1, 0]
    assert list(listed.sample_ids) == ["x", "y", "z"]
    assert listed.class_names == ("a", "b", "c", "d")
    assert listed._dataset.asked == [0]
    assert listed.notes == ()


def test_tensor_targets_are_labels() -> None:
    assert listing((PICTURE, 0), (PICTURE, 0), targets=torch.tensor([1, 0])).labels.tolist() == [1, 0]


def test_synonyms_of_a_class_go_by_the_first() -> None:
    assert listing((PICTURE, 1), classes=[("tench", "Tinca"), ("crane",)]).class_names == ("tench", "crane")


def test_arrays_tell_the_size_of_an_image_and_others_do_not() -> None:
    assert listing((PICTURE, 0), (PICTURE, 0), data=noise(2, 5, 5, 3)).sizes.tolist() == [75, 75]
    assert listing((PICTURE, 0)).sizes.tolist() == [-1]


def test_files_of_a_dataset_tell_their_size(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    paths = [(str(tmp_path / "a"), 0), (str(tmp_path / "gone"), 0)]
    assert listing((PICTURE, 0), (PICTURE, 0), samples=paths).sizes.tolist() == [3, -1]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_pictures_and_uint8_tensors_are_rgb_with_the_digest_of_their_pixels(as_tensor: bool) -> None:
    pixels = noise(4, 6, 3)
    image = torch.from_numpy(pixels).permute(2, 0, 1) if as_tensor else Image.fromarray(pixels)
    sample = listing((image, 0)).read(0)
    assert isinstance(sample.image, Image.Image)
    np.testing.assert_array_equal(np.asarray(sample.image), pixels)
    assert sample.sha256 == hashlib.sha256(pixels.tobytes()).digest()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_grey_becomes_three_equal_channels(as_tensor: bool) -> None:
    grey = noise(4, 6)
    image = torch.from_numpy(grey)[None] if as_tensor else Image.fromarray(grey)
    np.testing.assert_array_equal(np.asarray(listing((image, 0)).read(0).image), np.stack([grey] * 3, axis=2))


def test_a_picture_with_exif_keeps_the_turn_its_dataset_gave_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    PICTURE.save(stream, "PNG", exif=exif)
    assert listing((Image.open(stream), 0)).read(0).image.size == PICTURE.size


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_float_tensors_count_as_preprocessed(dtype: torch.dtype) -> None:
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 4, 3))).to(dtype)
    sample = listing((values.permute(2, 0, 1), 0)).read(0)
    assert isinstance(sample.image, torch.Tensor)
    assert sample.image.dtype == torch.float32
    expected = values.to(torch.float32).numpy().transpose(2, 0, 1)
    np.testing.assert_array_equal(sample.image.numpy(), expected)
    assert sample.sha256 == hashlib.sha256(np.ascontiguousarray(expected).tobytes()).digest()


def test_a_tensor_dataset_is_a_dataset() -> None:
    listed = MapSource("spec", TensorDataset(torch.zeros(3, 3, 4, 4), torch.tensor([0, 1, 2])))
    assert listed.labels.tolist() == [0, 1, 2]
    assert listed.read(2).image.shape == (3, 4, 4)


def test_what_an_item_raises_makes_that_sample_unreadable() -> None:
    broken = ValueError(f"no such thing\nas {object()}")
    listed = listing((PICTURE, 1), broken, FileNotFoundError(2, "gone", "/secret"), (PICTURE, 0))
    assert listed.labels.tolist() == [1, -1, -1, 0]
    for index, message in (
        (1, "ValueError: no such thing as <object object>"),
        (2, "FileNotFoundError: No such file or directory"),
    ):
        with pytest.raises(UnreadableImageError) as caught:
            listed.read(index)
        assert (str(caught.value), caught.value.sha256) == (message, None)
    assert listed.read(3).image.size == PICTURE.size


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM])
def test_an_error_that_is_not_the_samples_ends_the_work_as_for_files(number: int) -> None:
    listed = listing((PICTURE, 1), OSError(number, os.strerror(number)), (PICTURE, 0), targets=[1, -1, 0])
    with pytest.raises(PassingFaultError, match=re.escape(os.strerror(number))):
        listed.read(1)


def test_a_passing_fault_while_listing_leaves_no_label_out() -> None:
    for items in ((ConnectionResetError(), (PICTURE, 0)), ((PICTURE, 0), ConnectionResetError())):
        with pytest.raises(PassingFaultError, match="ConnectionResetError"):
            listing(*items)


def test_a_broken_first_item_does_not_hide_the_others() -> None:
    listed = listing(RuntimeError("x"), (PICTURE, 3))
    assert listed.labels.tolist() == [-1, 3]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_an_item_whose_id_only_it_could_tell_is_refused_with_what_would_tell_it(broken: int) -> None:
    items: list[Any] = [(PICTURE, 0, name) for name in "abc"]
    items[broken] = RuntimeError("x")
    with pytest.raises(DatasetError, match=f"1 of 3 items can't be read, first item {broken}, .* attribute sample_ids"):
        listing(*items)
    assert list(listing(*items, sample_ids=["a", "b", "c"], targets=[0, 0, 0]).sample_ids) == ["a", "b", "c"]


def test_a_label_that_only_a_broken_item_could_tell_is_noted() -> None:
    listed = listing((PICTURE, 0), RuntimeError("x"), (PICTURE, 3))
    assert listed.notes[1] == "1 items can't be read: only an attribute targets would tell their labels"
    assert len(listing((PICTURE, 0), RuntimeError("x"), targets=[0, 1]).notes) == 0


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (PICTURE, "the dataset gave Image, not"),
        ((torch.zeros(2, 4, 4, dtype=torch.uint8), 0), "an image of 2 channels: the network takes 3"),
        ((torch.zeros(4, 4), 0), r"torch.float32 \(4, 4\): expected a PIL image"),
        ((Image.new("F", (2, 2)), 0), "without a defined range"),
    ],
)
def test_an_item_of_another_kind_is_unreadable(item: Any, message: str) -> None:
    with pytest.raises(UnreadableImageError, match=message):
        listing((PICTURE, 0), item, targets=[0, 0]).read(1)


def test_a_truncated_picture_is_unreadable() -> None:
    stream = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(stream, "PNG")
    opened = Image.open(io.BytesIO(stream.getvalue()[:5000]))
    with pytest.raises(UnreadableImageError, match="truncated"):
        listing((opened, 0)).read(0)


@pytest.mark.parametrize(
    ("items", "attributes", "message"),
    [
        ([], {}, "the dataset is empty"),
        ([PICTURE], {}, "items are Image: return"),
        ([(np.zeros((4, 4, 3)), 0)], {}, "images are ndarray: return a PIL image"),
        ([(torch.zeros(3, 4, 4, dtype=torch.int64), 0)], {}, r"images are torch.int64 \(3, 4, 4\)"),
        ([(PICTURE, "cat")], {}, "labels are not class indices"),
        ([(PICTURE, 0)], {"targets": 5}, "labels are not class indices"),
        ([(PICTURE, 0)], {"targets": [["a", "b"]]}, "labels are vectors, but not all of 2 numbers"),
        ([(PICTURE, 0)], {"targets": [[1, 0.5]]}, "labels are vectors that hold 0.5: want 1, 0, and -1 or NaN"),
        ([(PICTURE, 0)], {"targets": [0, 1]}, "2 labels for 1 samples"),
        ([(PICTURE, -2)], {}, "label -2"),
        ([(PICTURE, 2)], {"classes": ["a", "b"]}, "label 2 has no name: attribute classes names 2"),
        ([(PICTURE, 0)], {"sample_ids": ["a", "b"]}, "2 ids for 1 samples"),
        ([(PICTURE, 0, "a"), (PICTURE, 0, "a")], {}, "id 'a' comes twice"),
    ],
)
def test_a_dataset_that_cannot_be_used_is_refused(items: list[Any], attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=f"^spec: .*{message}"):
        listing(*items, **attributes)


def test_a_dataset_without_length_is_refused() -> None:
    with pytest.raises(DatasetError, match="has no length"):
        MapSource("spec", iter([]))


def test_loader_processes_read_the_same_samples() -> None:
    listed = listing(*[(Image.fromarray(noise(4, 4, 3) // (n + 1)), n) for n in range(4)])

    class Digests:
        def __len__(self) -> int:
            return len(listed)

        def __getitem__(self, index: int) -> bytes:
            return listed.read(index).sha256

    expected = [listed.read(index).sha256 for index in range(4)]
    loader = DataLoader(Digests(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert list(loader) == expected


@pytest.mark.parametrize("kind", [Image.fromarray, lambda array: torch.from_numpy(array).permute(2, 0, 1)])
def test_an_image_has_one_digest_for_networks_of_one_and_three_channels(kind: Any) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    source = MapSource("given", Items((kind(array), 0), targets=[0]))
    colour = source.read(0)
    source.decoding = Decoding(channels=1)
    grey = source.read(0)
    assert colour.sha256 == grey.sha256 == hashlib.sha256(array.tobytes()).digest()
    assert isinstance(grey.image, Image.Image)
    np.testing.assert_array_equal(grey.image, Image.fromarray(array).convert("L"))


def test_bytes_of_many_channels_and_deep_images_are_read_as_the_network_takes_them() -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 5, 4)).astype(np.uint8)
    source = MapSource("given", Items((torch.from_numpy(array), 0), targets=[0]))
    source.decoding = Decoding(channels=6)
    stored = source.read(0)
    assert isinstance(stored.image, tuple)
    np.testing.assert_array_equal(np.stack([np.asarray(plane) for plane in stored.image]), array)
    assert stored.sha256 == hashlib.sha256(array.transpose(1, 2, 0).tobytes()).digest()
    deep = MapSource("given", Items((Image.fromarray(array[0].astype(np.uint16) * 16), 0), targets=[0]))
    deep.decoding = Decoding(channels=1, range=(0, 4080))
    (plane,) = deep.read(0).image  # type: ignore[misc]
    np.testing.assert_allclose(plane, array[0] / 255, rtol=1e-6)
