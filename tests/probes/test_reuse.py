import numpy as np
import pytest
import torch
from torch import nn

from segmentation.config import NetworkSettings
from segmentation.model.blocks import ConvBlock
from segmentation.model.unet import UNet
from segmentation.probes.context import NotMeasurableError, ProbeContext
from segmentation.probes.reuse import dense_blocks, draw, probe, reuse_map


def test_map_of_a_block_whose_weights_name_their_source():
    block = ConvBlock(NetworkSettings(), 2, 3, 4, (3, 3), "dense", convs=2)
    first, second, fuse = (unit[0].weight for unit in (*block.units, block.fuse))
    with torch.no_grad():
        first.fill_(-7.0)
        second[:, :3], second[:, 3:] = 1.0, -4.0  # reads 3 input channels and 2 of unit 0
        fuse[:, :3], fuse[:, 3:5], fuse[:, 5:] = 2.0, 8.0, 4.0
    nan = np.nan
    np.testing.assert_allclose(reuse_map(block), [[1, nan, nan], [0.25, 1, nan], [0.25, 1, 0.5]])


def test_a_branch_of_three_convolutions_reads_by_its_first():
    block = ConvBlock(NetworkSettings(block="bottleneck"), 2, 3, 4, (3, 3), "dense", convs=2)
    readers = [block.units[0], block.units[3], block.fuse]
    with torch.no_grad():
        for unit, weights in zip(readers, ([5.0], [1.0, 4.0], [2.0, 8.0, 4.0]), strict=True):
            for place, weight in zip(([0, 3], [3, 5], [5, 7]), weights, strict=False):
                unit[0].weight[:, place[0] : place[1]] = weight
    nan = np.nan
    np.testing.assert_allclose(reuse_map(block), [[1, nan, nan], [0.25, 1, nan], [0.25, 1, 0.5]])


def test_only_dense_blocks_are_mapped():
    settings = NetworkSettings(depth=1, width=4, short_skip="dense", short_skip_where=["encoder", "decoder"])
    assert list(dense_blocks(UNet(settings, 2, 1, 2))) == ["encoder.0", "decoder.0"]


def test_drawing_names_sources_and_readers():
    figure = draw("encoder.0", np.eye(3))
    assert list(figure.ticks) == ["input", "unit 0", "unit 1"]
    assert list(figure.rows) == ["unit 0", "unit 1", "1x1 unit"]


def test_probe_needs_a_dense_block(context: ProbeContext):
    with pytest.raises(NotMeasurableError, match="no dense block"):
        probe(context)


def test_probe_maps_every_block(context: ProbeContext, monkeypatch: pytest.MonkeyPatch):
    network: nn.Module = UNet(NetworkSettings(depth=1, width=4, short_skip="dense"), 2, 1, 2)
    monkeypatch.setitem(context.__dict__, "network", network)
    result = probe(context)
    assert set(result.values) == {"encoder.0", "bottleneck", "decoder.0"}
    assert len(result.figures) == 3
