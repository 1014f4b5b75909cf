"""Named architectures as plain settings: a starting point that every other setting may depart from.

A preset is what our settings can say of a published network. Where they cannot say all of it, its line in
:data:`ABOUT` names what differs; the tests count the difference in parameters.
"""

from collections.abc import Mapping
from typing import Any

from segmentation import SkipSegError
from segmentation.plain import nest

_UNET2015: dict[str, Any] = {
    "long_skip": "concat",
    "depth": 4,
    "width": 64,
    "max_width": 1024,
    "activation": "relu",
    "norm": "none",
}

_NNUNET: dict[str, Any] = {
    "long_skip": "concat",
    "depth": 5,
    "width": 32,
    "max_width": 320,
    "activation": "leaky_relu",
    "norm": "instance",
    "downsample": "first_conv",
    "deep_supervision": True,
}
PRESETS: dict[str, dict[str, Any]] = {
    "unet2015": _UNET2015,
    "unet_noskip": _UNET2015 | {"long_skip": "none"},
    "wilm_notop": _UNET2015 | {"long_skip_levels": {0: "none"}},
    "attention": _UNET2015 | {"long_skip": "gated", "norm": "batch", "upsample": "nearest"},
    "unetpp": _UNET2015 | {"long_skip": "nested", "width": 32, "max_width": 512},
    "unet3p": _UNET2015 | {"long_skip": "fullscale", "norm": "batch"},
    "multires": _UNET2015 | {"long_skip": "respath", "short_skip": "add", "width": 32, "norm": "batch"},
    "resunet_drozdzal": {
        "long_skip": "add",
        "short_skip": "add",
        "short_skip_every": 1,
        "input_skip": True,
        "depth": 5,
        "widths": [32, 32, 128, 256, 512, 1024],
        "convs_levels": {0: 1, 1: 1, 2: 3, 3: 8, 4: 10, 5: 3},
        "block": "bottleneck",
        "order": "norm-act-conv",
        "activation": "relu",
        "norm": "batch",
        "downsample": "first_conv",
        "upsample": "nearest",
    },
    "linknet": {
        "long_skip": "add",
        "short_skip": "add",
        "depth": 3,
        "width": 64,
        "max_width": 512,
        "convs": 4,
        "activation": "relu",
        "norm": "batch",
        "downsample": "first_conv",
    },
    "vnet": {
        "long_skip": "concat",
        "short_skip": "add",
        "short_skip_every": 3,
        "depth": 4,
        "width": 16,
        "max_width": 256,
        "convs": 3,
        "convs_levels": {0: 1, 1: 2},
        "kernel": 5,
        "activation": "prelu",
        "norm": "none",
        "downsample": "stride",
    },
    "tiramisu": {
        "long_skip": "concat",
        "short_skip": "dense",
        "depth": 5,
        "widths": [64, 80, 112, 160, 192, 240],
        "convs_levels": {0: 4, 1: 5, 2: 7, 3: 10, 4: 12, 5: 15},
        "order": "norm-act-conv",
        "activation": "relu",
        "norm": "batch",
    },
    "nnunet_like": _NNUNET,
    "resenc_like": {**_NNUNET, "short_skip": "add", "short_skip_where": ["encoder", "bottleneck"]},
    "sigmoid_plain": {
        "long_skip": "none",
        "depth": 3,
        "width": 8,
        "activation": "sigmoid",
        "norm": "none",
        "init": "torch",
    },
}
"""Name of a preset to the network settings that it sets."""

ABOUT: dict[str, str] = {
    "unet2015": "U-Net (Ronneberger et al. 2015, arXiv:1505.04597), convolutions padded",
    "unet_noskip": "unet2015 without its long skips: an autoencoder",
    "wilm_notop": "unet2015 without the finest long skip (Wilm et al. 2024, arXiv:2402.08276)",
    "attention": "Attention U-Net (Oktay et al. 2018, arXiv:1804.03999); no normalisation inside the gates, which are "
    "computed from the map that is already upsampled, also at the finest level, as most reimplementations do",
    "unetpp": "U-Net++ (Zhou et al. 2018, arXiv:1807.10165)",
    "unet3p": "U-Net 3+ (Huang et al. 2020, arXiv:2004.08790); the head is 1x1 and there is no classification branch",
    "multires": "residual paths of MultiResUNet (Ibtehaz and Rahman 2020, arXiv:1902.04049) around residual blocks of "
    "two convolutions, in place of its blocks of three widths",
    "resunet_drozdzal": "residual network with both skips (Drozdzal et al. 2016, arXiv:1608.04117), blocks "
    "3, 8, 10, 3, 10, 8, 3; each upsampling has a convolution of its own, and the two outer levels have bottlenecks",
    "linknet": "additive skips of LinkNet (Chaurasia and Culurciello 2017, arXiv:1707.03718) at full resolution; "
    "the decoder is as deep as the encoder",
    "vnet": "V-Net (Milletari et al. 2016, arXiv:1606.04797); the decoder is as wide as the encoder, and a step down "
    "is a 5x5x5 convolution that keeps the channels, not one of 2x2x2 that doubles them",
    "tiramisu": "FC-DenseNet103 (Jegou et al. 2017, arXiv:1611.09326); a 1x1 unit ends each dense block",
    "nnunet_like": "nnU-Net's plain network (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z)",
    "resenc_like": "nnU-Net's residual encoder (Isensee et al. 2024, arXiv:2404.09556), one residual block a level",
    "sigmoid_plain": "small sigmoid network without skips and normalisation, whose gradient vanishes",
}
"""Name of a preset to its source and to what differs from it."""


_DISPLACED = {"width": "widths", "convs": "convs_levels"}
"""What holds for all levels takes the place of what a preset says level by level."""


def with_preset(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the given network settings over those of the preset that they name.

    Args:
        plain: Settings of a command as plain data, only those that were given; nested, or with dotted names.

    Returns:
        Nested settings. What was given stays; a given ``width`` also takes the place of the preset's ``widths``, and
        given ``convs`` that of its ``convs_levels``.

    Raises:
        SkipSegError: If there is no such preset, or it says level by level what is given for all, or for fewer levels.

    Examples:
        >>> with_preset({"network.preset": "sigmoid_plain", "network.width": 4, "epochs": 9})["network"]["width"]
        4
        >>> with_preset({"epochs": 9})
        {'epochs': 9}
    """
    nested = nest(plain)
    given: Mapping[str, Any] = nested.get("network") or {}
    name = given.get("preset")
    if name is None:
        return nested
    if name not in PRESETS:
        raise SkipSegError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    preset = PRESETS[name]
    own = "widths" in preset and given.get("width") is None and given.get("widths") is None
    if given.get("max_width") is not None and own:
        raise SkipSegError(f"preset {name} says the channels of each level; give widths instead of max_width")
    displaced = [of_levels for of_all, of_levels in _DISPLACED.items() if given.get(of_all) is not None]
    preset = {key: value for key, value in preset.items() if key not in displaced}
    told = [key for key in _DISPLACED.values() if key in preset and key not in given]
    if given.get("depth") not in (None, preset.get("depth")) and told:
        raise SkipSegError(f"preset {name} says {' and '.join(told)} for a depth of {preset['depth']}; give them, too")
    return nested | {"network": {**preset, **given}}
