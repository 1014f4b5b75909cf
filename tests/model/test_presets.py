"""Each preset against its paper's or a public implementation's parameters; what differs is counted, too."""

from typing import Any

import pytest
import torch
from torch import nn

from segmentation import SkipSegError
from segmentation.arguments import parse
from segmentation.cli import main
from segmentation.config import DescribeSettings, NetworkSettings, TrainSettings
from segmentation.model.layers import layers, total_cost
from segmentation.model.presets import ABOUT, PRESETS, with_preset
from segmentation.model.unet import UNet, count_parameters
from segmentation.plain import from_plain, to_plain


def preset(name: str, **changes: Any) -> NetworkSettings:
    """The network of a preset."""
    return from_plain(NetworkSettings, with_preset({"network": {"preset": name, **changes}})["network"])


def parameters(name: str, dims: int = 2, in_channels: int = 1, classes: int = 1, **changes: Any) -> int:
    return total_cost(preset(name, **changes), dims, in_channels, classes).parameters


def held(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def monai_network(name: str, *arguments: Any, **options: Any) -> nn.Module:
    """A network of MONAI, whose import takes seconds."""
    from monai.networks import nets

    return getattr(nets, name)(*arguments, **options)


def conv(read: int, write: int, kernel: int) -> int:
    """A 2-D convolution with bias."""
    return read * write * kernel**2 + write


WIDE = [64, 128, 256, 512, 1024]


def biases_before_norms(name: str, **changes: Any) -> int:
    """Biases that public code has, and we leave out, in convolutions that a normalisation follows."""
    found = layers(preset(name, **changes), 2, 3, 1, follow=False)
    return sum(layer.channels for layer in found if layer.name.endswith(".1") and layer.parameters)


# Equal to the published number


def test_unet2015_has_the_well_known_count():
    """31,030,593, as printed by summaries of the usual Keras and PyTorch ports, for one channel and one output."""
    assert parameters("unet2015") == 31_030_593


def test_without_long_skips_the_decoder_reads_half_the_channels():
    concatenated = [9 * width**2 for width in WIDE[:-1]]
    assert parameters("unet2015") - parameters("unet_noskip") == sum(concatenated)
    assert parameters("unet2015") - parameters("wilm_notop") == concatenated[0]


def test_unetpp_has_the_count_in_the_authors_code():
    """MrGiovanni/UNetPlusPlus, keras/helper_functions.py: 9,041,601, and 7,759,521 for the U-Net of these widths."""
    assert parameters("unetpp") == 9_041_601
    assert parameters("unetpp", long_skip="concat") == 7_759_521


@pytest.mark.slow
def test_nnunet_like_is_monais_dynunet():
    """With a bias in transposed convolutions, as nnU-Net has it, and without the heads of deep supervision."""
    steps = {"strides": [1, 2, 2, 2, 2, 2], "upsample_kernel_size": [2] * 5}
    network = monai_network("DynUNet", 3, 1, 2, [3] * 6, **steps, trans_bias=True)
    assert parameters("nnunet_like", 3, 1, 2, deep_supervision=False) == held(network)


# Different by what can be counted


def test_attention_lacks_the_biases_before_norms_and_the_norms_in_its_gates():
    """LeeJunHyun/Image_Segmentation's AttU_Net has 34,878,573 for three channels and one output."""
    gate_norms = sum(2 * (2 * (width // 2) + 1) for width in WIDE[:-1])
    missing = biases_before_norms("attention") + gate_norms
    assert parameters("attention", in_channels=3) + missing == 34_878_573


def test_unet3p_lacks_the_biases_before_norms_and_has_a_head_of_one_voxel():
    """ZJUGiveLab/UNet-Version, models/UNet_3Plus, written out: 26,971,777 for three channels and one output."""
    public, read = conv(320, 1, 3), 3
    for width in WIDE:
        public += conv(read, width, 3) + conv(width, width, 3) + 2 * 2 * width
        read = width
    for level in range(4):
        branches = [*WIDE[: level + 1], *[320] * (3 - level), 1024]
        public += sum(conv(channels, 64, 3) + 2 * 64 for channels in branches) + conv(320, 320, 3) + 2 * 320
    assert public == 26_971_777
    missing = biases_before_norms("unet3p") + conv(320, 1, 3) - conv(320, 1, 1)
    assert parameters("unet3p", in_channels=3) + missing == public


@pytest.mark.slow
def test_resenc_like_is_monais_residual_dynunet_but_for_norms_on_its_projections():
    """MONAI normalises a projection and gives it no bias: 2 C instead of C, at levels 0 to 5."""
    steps = {"strides": [1, 2, 2, 2, 2, 2], "upsample_kernel_size": [2] * 5}
    network = monai_network("DynUNet", 3, 1, 2, [3] * 6, **steps, trans_bias=True, res_block=True)
    projected = 32 + 64 + 128 + 256 + 320 + 320
    assert parameters("resenc_like", 3, 1, 2, deep_supervision=False) + projected == held(network)


def test_resunet_spends_a_third_on_upsampling_that_the_paper_does_by_repetition():
    """Ours convolves after each repetition, 3x3 behind a normalisation; Drozdzal's next block does with what it has."""
    found = layers(preset("resunet_drozdzal"), 2, 1, 1, follow=False)
    steps = [(1024, 512), (512, 256), (256, 128), (128, 32), (32, 32)]
    upsampling = sum(9 * coarse * fine + 2 * coarse for coarse, fine in steps)
    assert sum(layer.parameters for layer in found if layer.name.startswith("up.")) == upsampling == 6_243_136
    assert parameters("resunet_drozdzal") - upsampling == 10_709_249


# Different in kind: how far apart


@pytest.mark.slow
def test_vnet_is_a_tenth_smaller_than_monais_for_its_decoder_is_narrower_and_its_steps_down_are_larger():
    assert parameters("vnet", 3) / held(monai_network("VNet", 3, 1, 1)) == pytest.approx(0.897, abs=0.001)


def test_linknet_is_larger_than_its_paper_for_its_decoder_is_as_deep_as_its_encoder():
    """The abstract of arXiv:1707.03718 gives 11.5 million."""
    assert parameters("linknet", 2, 3, 20) / 11.5e6 == pytest.approx(1.30, abs=0.01)


def test_tiramisu_has_half_the_parameters_for_each_block_hands_on_fewer_channels():
    """SimJeg/FC-DenseNet written out: 103 layers, growth 16, every block hands on all that it has stacked."""

    def unit(read: int, kernel: int, write: int) -> int:
        return 2 * read + conv(read, write, kernel)

    growth, counts = 16, [4, 5, 7, 10, 12]
    channels, public, skips = 48, conv(3, 48, 3), []
    for count in counts:
        public += sum(unit(channels + index * growth, 3, growth) for index in range(count))
        channels += count * growth
        skips.append(channels)
        public += unit(channels, 1, channels)
    public += sum(unit(channels + index * growth, 3, growth) for index in range(15))
    new = 15 * growth
    for count, skip in zip(counts[::-1], skips[::-1], strict=True):
        public += conv(new, new, 3) + sum(unit(new + skip + index * growth, 3, growth) for index in range(count))
        channels, new = new + skip + count * growth, count * growth
    public += conv(channels, 11, 1)
    assert public == 9_322_091
    network = preset("tiramisu")
    growths = [width // network.convs_at(level) for level, width in enumerate(network.channels())]
    assert growths == [growth] * 6
    assert parameters("tiramisu", 2, 3, 11) / public == pytest.approx(0.481, abs=0.001)


def test_multires_is_near_its_authors_code_though_its_blocks_differ():
    """nibtehaz/MultiResUNet, pytorch/MultiResUNet.py, written out: its blocks stack convolutions of three widths."""

    def unit(read: int, write: int, kernel: int) -> int:
        return conv(read, write, kernel) + 2 * write

    def block(read: int, width: int) -> tuple[int, int]:
        a, b, c = (int(width * 1.67 * share) for share in (0.167, 0.333, 0.5))
        write = a + b + c
        return unit(read, write, 1) + unit(read, a, 3) + unit(a, b, 3) + unit(b, c, 3) + 4 * write, write

    public, read, written = 0, 1, []
    for level in range(5):
        added, read = block(read, 32 * 2**level)
        written.append(read)
        path = unit(read, read, 1) + unit(read, read, 3) + 2 * read
        public += added + (4 - level) * path
    for level in reversed(range(4)):
        width = 32 * 2**level
        added, following = block(width + written[level], width)
        public += conv(read, width, 2) + added
        read = following
    public += unit(read, 2, 1)
    assert public == 8_920_169
    assert parameters("multires", classes=2) / public == pytest.approx(1.038, abs=0.001)


def test_sigmoid_plain_has_only_sigmoid_convolutions():
    network = UNet(preset("sigmoid_plain"), 2, 1, 1)
    assert {type(each) for each in network.modules() if type(each).__module__ == "torch.nn.modules.activation"} == {
        nn.Sigmoid
    }
    assert dict(network.taps) == {}


# All of them


@pytest.mark.parametrize("name", PRESETS)
def test_a_thin_version_of_each_preset_is_built_and_counted(name):
    thin = [max(1, width // 16) for width in preset(name).channels()]
    settings = preset(name, widths=thin)
    network = UNet(settings, 2, 1, 2)
    assert network(torch.randn(2, 1, 32, 32)).shape == (2, 2, 32, 32)
    assert count_parameters(network) == total_cost(settings, 2, 1, 2).parameters


def test_every_preset_has_its_source_and_differs_from_the_others():
    assert ABOUT.keys() == PRESETS.keys()
    assert len({repr(preset(name)).partition("long_skip")[2] for name in PRESETS}) == len(PRESETS)


# Laying settings over them


def test_given_settings_win():
    network = with_preset({"network": {"preset": "attention", "norm": "group"}, "epochs": 3})
    assert network["epochs"] == 3
    assert network["network"] == PRESETS["attention"] | {"preset": "attention", "norm": "group"}


def test_a_given_width_takes_the_place_of_the_presets_widths():
    network = preset("resunet_drozdzal", width=8)
    assert network.channels() == [8, 16, 32, 64, 128, 256]
    assert preset("resunet_drozdzal").channels() == [32, 32, 128, 256, 512, 1024]


def test_a_preset_is_not_changed_by_what_is_laid_over_it():
    before = to_plain(PRESETS)
    with_preset({"network.preset": "wilm_notop", "network.long_skip_levels": {1: "add"}, "network.width": 4})
    assert before == PRESETS


def test_an_unknown_preset_is_refused_with_the_list():
    with pytest.raises(SkipSegError, match="there is no preset 'unet2016'; the presets are unet2015, unet_noskip"):
        with_preset({"network.preset": "unet2016"})


def test_what_is_given_for_all_levels_displaces_what_a_preset_says_of_each():
    assert "convs_levels" not in with_preset({"network.preset": "tiramisu", "network.convs": 2})["network"]
    assert "widths" not in with_preset({"network.preset": "tiramisu", "network.width": 8})["network"]
    both = {"network.preset": "tiramisu", "network.convs": 2, "network.convs_levels": {0: 3}}
    assert with_preset(both)["network"]["convs_levels"] == {0: 3}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"depth": 3}, r"says widths and convs_levels for a depth of 5; give them, too"),
        ({"depth": 3, "width": 8}, r"says convs_levels for a depth of 5; give them, too"),
        ({"max_width": 100}, r"says the channels of each level; give widths instead of max_width"),
    ],
)
def test_what_a_preset_says_of_levels_is_not_bent_in_silence(given, said):
    with pytest.raises(SkipSegError, match=said):
        with_preset({"network": {"preset": "tiramisu", **given}})


@pytest.mark.parametrize("name", PRESETS)
def test_settings_that_a_preset_was_resolved_to_are_read_again(name):
    settings = from_plain(TrainSettings, with_preset({"dataset": "d", "out": "o", "network.preset": name}))
    assert from_plain(TrainSettings, with_preset(to_plain(settings))) == settings


def test_the_command_line_takes_the_preset_and_then_the_options(tmp_path):
    settings = parse("describe", ["--network.preset", "unetpp", "--network.long_skip_placebo", "zeros"]).settings
    assert isinstance(settings, DescribeSettings)
    assert settings.network == preset("unetpp", long_skip_placebo="zeros")
    file = tmp_path / "settings.yaml"
    file.write_text("network: {preset: vnet, convs: 2}\n")
    settings = parse("train", ["dataset", "--out=run", f"--config={file}", "--network.kernel=3"]).settings
    assert settings.network == preset("vnet", convs=2, kernel=3)


def test_the_command_line_refuses_an_unknown_preset(capsys):
    assert main(["describe", "--network.preset", "unet2016"]) == 2
    assert "there is no preset 'unet2016'; the presets are" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["describe", "train"])
def test_help_lists_the_presets(capsys, command):
    assert main([command, "--help"]) == 0
    _, listed = capsys.readouterr().out.split("\npresets:\n")
    assert [line.split()[0] for line in listed.strip().splitlines()] == list(ABOUT)
