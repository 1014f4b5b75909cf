import re

import pytest
import torch
from monai.networks.nets.basic_unet import BasicUNet
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus

from segmentation.config import NetworkSettings
from segmentation.model.unet import UNet, count_parameters
from segmentation.model.wiring import Route

WIDTHS = [6, 6, 12, 24, 48]  # MONAI keeps the channels of an upsampled map at the finest level, ours takes those of it
MONAI = {
    "features": (*WIDTHS, 6),
    "act": ("LeakyReLU", {"negative_slope": 0.01, "inplace": True}),
    "norm": ("instance", {"affine": True}),
    "bias": False,
}
UNIT = {"conv.weight": "0.weight", "adn.N.weight": "1.weight", "adn.N.bias": "1.bias"}


def ours_of(name: str) -> str:
    """Our name of a parameter of MONAI's U-Net++ or U-Net."""
    if name.startswith("final_conv"):
        return name.replace("final_conv_0_4", "heads.0").replace("final_conv", "heads.0")
    for theirs, ours in UNIT.items():
        name = re.sub(rf"(?:convs\.)?conv_(\d)\.{re.escape(theirs)}", rf"units.\1.{ours}", name)
    if match := re.fullmatch(r"(?:conv_(\d)_0|conv_0|down_(\d))\.(.+)", name):
        level = int(match[1] or match[2] or 0)
        return f"{'bottleneck' if level == 4 else f'encoder.{level}'}.{match[3]}"
    level, column, rest = re.fullmatch(r"upcat_(\d)(?:_(\d))?\.(.+)", name).groups()
    if column is None:
        level, column = str(int(level) - 1), str(5 - int(level))
    last = int(level) + int(column) == 4
    if rest.startswith("upsample.deconv."):
        rest = rest.removeprefix("upsample.deconv.")
        return f"up.{level}.{rest}" if last else f"nested.ups.{level}_{column}.{rest}"
    return f"decoder.{level}.{rest}" if last else f"nested.blocks.{level}_{column}.{rest}"


def translated(theirs: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Their weights by our names, without the heads of nodes that we do not supervise."""
    return {ours_of(n): v for n, v in theirs.state_dict().items() if not re.match(r"final_conv_0_[123]", n)}


def test_the_nested_network_is_monais_unetplusplus():
    theirs = BasicUNetPlusPlus(spatial_dims=2, in_channels=2, out_channels=3, **MONAI).eval()
    ours = UNet(NetworkSettings(depth=4, widths=WIDTHS, long_skip="nested"), 2, 2, 3).eval()
    weights = translated(theirs)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {n: v.shape for n, v in weights.items()}
    ours.load_state_dict(weights)
    x = torch.randn(2, 2, 32, 48)
    assert torch.allclose(ours(x), theirs(x)[0], atol=1e-4)


def test_the_plain_network_is_monais_unet():
    theirs = BasicUNet(spatial_dims=3, in_channels=1, out_channels=2, **MONAI).eval()
    ours = UNet(NetworkSettings(depth=4, widths=WIDTHS), 3, 1, 2).eval()
    weights = translated(theirs)
    for level, width in enumerate(WIDTHS[:-1]):  # MONAI stacks the encoder map in front, we the decoder map
        name = f"decoder.{level}.units.0.0.weight"
        weights[name] = weights[name].roll(width, dims=1)
    assert {name: value.shape for name, value in ours.state_dict().items()} == {n: v.shape for n, v in weights.items()}
    ours.load_state_dict(weights)
    x = torch.randn(1, 1, 32, 32, 16)
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)


def test_nested_nodes_at_odd_sizes_are_the_formula():
    network = UNet(NetworkSettings(depth=3, width=4, long_skip="nested", upsample="linear"), 2, 1, 2).eval()
    x = torch.randn(1, 1, 13, 22)
    maps = {}
    y = x
    for level in range(3):
        maps[level, 0] = y = network.encoder[level](y)
        y = network.down[level](y)
    maps[3, 0] = network.bottleneck(y)
    for column in (1, 2, 3):
        for level in range(4 - column):
            last = level + column == 3
            up = network.up[level] if last else network.nested.ups[f"{level}_{column}"]
            block = network.decoder[level] if last else network.nested.blocks[f"{level}_{column}"]
            raised = torch.nn.functional.interpolate(maps[level + 1, column - 1], scale_factor=2, mode="bilinear")
            height, width = maps[level, 0].shape[2:]
            row = [maps[level, j] for j in range(column)]
            maps[level, column] = block(torch.cat([*row, up(raised[..., :height, :width])], dim=1))
    decoded = network.decode(x)
    assert all(torch.allclose(decoded[level], maps[level, 3 - level], atol=1e-5) for level in range(3))


def test_a_fullscale_level_reads_every_level_once():
    network = UNet(NetworkSettings(depth=3, width=4, long_skip="fullscale"), 2, 1, 2).eval()
    x = torch.randn(1, 1, 16, 24)
    e0 = network.encoder[0](x)
    e1 = network.encoder[1](network.down[0](e0))
    e2 = network.encoder[2](network.down[1](e1))
    bottom = network.bottleneck(network.down[2](e2))

    def level(index: int, *maps: torch.Tensor) -> torch.Tensor:
        block = network.decoder[index]
        return block.fuse(torch.cat([unit(y) for unit, y in zip(block.branches, maps, strict=True)], dim=1))

    def down(y: torch.Tensor, factor: int) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(y, factor)

    def up(y: torch.Tensor, factor: int) -> torch.Tensor:
        return torch.nn.functional.interpolate(y, scale_factor=factor, mode="bilinear")

    d2 = level(2, down(e0, 4), down(e1, 2), e2, up(bottom, 2))
    d1 = level(1, down(e0, 2), e1, up(d2, 2), up(bottom, 4))
    d0 = level(0, e0, up(d1, 2), up(d2, 4), up(bottom, 8))
    decoded = network.decode(x)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(decoded, (d0, d1, d2), strict=True))
    assert d0.shape[1] == d1.shape[1] == d2.shape[1] == 4 * 4


def test_fullscale_channels_are_those_of_the_paper():
    """64 channels from each of five levels make 320 at every decoder level (Huang et al. 2020); here a sixteenth."""
    network = UNet(NetworkSettings(depth=4, width=4, long_skip="fullscale"), 2, 3, 1)
    reads = [[unit.conv.in_channels for unit in level.branches] for level in network.decoder]
    assert reads[3] == [4, 8, 16, 32, 64]
    assert reads[0] == [4, 20, 20, 20, 64]
    assert {unit.conv.out_channels for level in network.decoder for unit in level.branches} == {4}
    assert {(level.fuse.conv.in_channels, level.fuse.conv.out_channels) for level in network.decoder} == {(20, 20)}
    assert len(network.up) == len(network.joins) == 0


@pytest.mark.parametrize(("source", "target"), [(0, 1), (2, 0)])
def test_a_route_carries_a_map_to_another_level(source, target):
    route = Route(2, [3, 5, 7], [(2, 2), (2, 2)], source, target)
    sizes = [(9, 14), (5, 7), (3, 4)]
    x = torch.randn(1, [3, 5, 7][source], *sizes[source])
    y = route(x, sizes[target])
    assert y.shape == (1, [3, 5, 7][target], *sizes[target])
    assert torch.equal(y, route.project(route.rescale(x, sizes[target])))
    assert count_parameters(route) == [3, 5, 7][source] * [3, 5, 7][target] + [3, 5, 7][target]
