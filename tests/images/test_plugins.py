"""HEIF and JPEG XL are read where their plugin is installed, and say which one where it is not."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from batchcam.data.loader import BatchStream, RangeBatches, SampleDataset
from batchcam.data.preprocessing import PRESETS
from batchcam.data.sources import open_source
from batchcam.images.decoding import UnsupportedImageError, decode_image
from batchcam.images.plugins import PLUGINS, is_registered, plugin_for

STARTS = {"HEIF": b"\0\0\0\x18ftypheic\0\0\0\0", "JXL": b"\xff\x0a\xfa\x7f"}
PLUGIN = pytest.mark.parametrize("plugin", PLUGINS, ids=[plugin.format for plugin in PLUGINS])


@pytest.fixture
def nothing_known():
    is_registered.cache_clear()
    yield
    is_registered.cache_clear()


@PLUGIN
def test_the_package_that_reads_a_format_is_named(plugin, nothing_known, monkeypatch):
    monkeypatch.setitem(sys.modules, plugin.module, None)
    with pytest.raises(UnsupportedImageError, match=f"^{plugin.format}, which .* pip install {plugin.package}$"):
        decode_image(STARTS[plugin.format] + bytes(100))


def test_avif_is_pillows_own():
    assert plugin_for(b"\0\0\0\x18ftypavif\0\0\0\0") is None


@PLUGIN
def test_an_installed_plugin_reads_in_every_process(plugin, nothing_known, tmp_path):
    pytest.importorskip(plugin.module)
    ramp = np.add.outer(np.arange(64), np.arange(96)).astype(np.uint8)
    pixels = np.stack([ramp, ramp, 255 - ramp], axis=-1)
    assert is_registered(plugin)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, plugin.format, quality=95)
    (tmp_path / "cat").mkdir()
    for name in "abcd":
        (tmp_path / "cat" / f"{name}{plugin.endings[0]}").write_bytes(buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(pixels).save(turned, plugin.format, exif=exif.tobytes())
    assert decode_image(turned.getvalue()).size == ((64, 96) if plugin.format == "HEIF" else (96, 64))
    source = open_source(str(tmp_path))
    assert np.abs(np.asarray(source.read(0).image).astype(int) - pixels).mean() < 3
    is_registered.cache_clear()
    dataset = SampleDataset(source, PRESETS["stl10"], (128, 128))
    with BatchStream(dataset, RangeBatches([(0, 4)], 2), 2, torch.device("cpu"), batch_size=2) as stream:
        assert [batch.errors for batch in stream] == [["", ""]] * 2
