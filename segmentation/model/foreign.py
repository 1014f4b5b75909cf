"""nnU-Net's plain network in our terms: what it is built from as an architecture, its weights under our names.

The network is the same function: logits agree to rounding. Three things are written differently.

* Its arrays run (z, y, x), ours (x, y, z) or as the caller says: kernels, steps and weights are permuted.
* Its convolutions have a bias in front of a normalisation, which subtracts it again: it is dropped.
* It has an output at each level for training: only the finest is kept, which alone predicts.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segmentation import SkipSegError
from segmentation.config import Activation, NetworkSettings
from segmentation.model.architecture import Architecture

_ACTIVATIONS: dict[str, Activation] = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}
_READ = {
    *("n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_conv_per_stage"),
    *("n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "nonlin", "nonlin_kwargs", "nonlin_first"),
    *("deep_supervision", "dropout_op", "dropout_op_kwargs"),  # without effect on a prediction
}
_SPARE = ("decoder.encoder.", "decoder.seg_layers.")
"""Beginnings of names that repeat a weight, or hold an output of a coarser level."""


def nnunet_architecture(
    network: str, plan: Mapping[str, Any], in_channels: int, classes: int, order: Sequence[int]
) -> Architecture:
    """Say in our settings what nnU-Net builds from its plan.

    Args:
        network: Name of its class, with or without the module.
        plan: Arguments of the class, ``arch_kwargs`` in plans.json.
        in_channels: Channels of the image.
        classes: Channels of the logits.
        order: Which of its axes each of our axes is.

    Raises:
        SkipSegError: If our settings cannot say it; the message names what.

    Examples:
        >>> plan = {"n_stages": 2, "features_per_stage": [8, 16], "conv_op": "torch.nn.Conv3d", "kernel_sizes": 3}
        >>> plan |= {"strides": [1, [1, 2, 2]], "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2}
        >>> plan |= {"norm_op": "torch.nn.InstanceNorm3d", "norm_op_kwargs": {"affine": True}}
        >>> plan |= {"nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True}}
        >>> nnunet_architecture("PlainConvUNet", plan, 1, 2, order=(2, 1, 0)).strides
        [[2, 2, 1]]
    """
    try:
        return _architecture(network, plan, in_channels, classes, order)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise SkipSegError(f"the plan of the network is not one that nnU-Net writes ({error!r})") from None


def nnunet_weights(state: Mapping[str, Tensor], architecture: Architecture, order: Sequence[int]) -> dict[str, Tensor]:
    """Give nnU-Net's weights our names and our order of axes.

    Args:
        state: Its state dict; convolutions of shape ``(C_out, C_in, *kernel)``.
        architecture: From :func:`nnunet_architecture`.
        order: Which of its axes each of our axes is.

    Returns:
        Weights of ``architecture.build()``, all of them.

    Raises:
        SkipSegError: If a weight is missing, left over, of another shape, or not finite.
    """
    left = {name for name in state if ".all_modules." not in name and not name.startswith(_SPARE)}
    weights: dict[str, Tensor] = {}
    for ours, theirs in _names(architecture.settings):
        left -= {theirs, f"{theirs.removesuffix('.conv.weight')}.conv.bias"}
        if theirs in state:
            weights[ours] = _permuted(state[theirs], order)
        elif ours.startswith("up.") and ours.endswith(".bias"):
            weights[ours] = torch.zeros(weights[ours.replace(".bias", ".weight")].shape[1])
        else:
            raise SkipSegError(f"the weights lack {theirs}, so they are not those of the plan's network")
    if left:
        raise SkipSegError(f"the weights hold {min(left)}, which the plan's network has not")
    if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
        raise SkipSegError("the weights hold NaN or infinity; take another checkpoint")
    try:
        architecture.build().load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise SkipSegError(f"the weights do not fit the plan's network ({reason})") from None
    return weights


def _architecture(
    network: str, plan: Mapping[str, Any], in_channels: int, classes: int, order: Sequence[int]
) -> Architecture:
    """As :func:`nnunet_architecture`, for a plan of the right form."""
    name = network.rpartition(".")[2]
    _require(name == "PlainConvUNet", f"its network is a {name}; only PlainConvUNet is the same as one of ours")
    _require(plan.keys() <= _READ, f"its network has {', '.join(sorted(plan.keys() - _READ))}, which ours has not")
    dims, levels = int(plan["conv_op"][-2]), int(plan["n_stages"])
    _require(len(order) == dims, f"its network is {dims}-D, its patches are {len(order)}-D")
    encoder = _per_level(plan["n_conv_per_stage"], levels)
    decoder = _per_level(plan["n_conv_per_stage_decoder"], levels - 1)[::-1]
    _require(encoder[:-1] == decoder, "its encoder and decoder have other numbers of convolutions in a level")
    strides, kernels = (
        [_reordered(value, order) for value in _per_level(plan[key], levels)] for key in ("strides", "kernel_sizes")
    )
    _require(max(strides[0]) == 1, f"its first level shrinks the image by {strides[0]}")
    _require(all(size % 2 for kernel in kernels for size in kernel), "it has kernels of an even size")
    settings = NetworkSettings(
        long_skip="concat",
        depth=levels - 1,
        widths=[int(width) for width in _per_level(plan["features_per_stage"], levels)],
        convs=encoder[0],
        convs_levels={level: count for level, count in enumerate(encoder) if count != encoder[0]},
        activation=_activation(plan),
        norm="instance",
        downsample="first_conv",
    )
    return Architecture(settings, dims, in_channels, classes, strides[1:], kernels)


def _activation(plan: Mapping[str, Any]) -> Activation:
    """The non-linearity, once it and the normalisation are known to be like ours."""
    norm, options = str(plan["norm_op"]).rpartition(".")[2], {"eps": 1e-5, **(plan.get("norm_op_kwargs") or {})}
    same = norm.startswith("InstanceNorm") and options["eps"] == 1e-5 and options.get("affine") is True
    _require(same and options.keys() <= {"eps", "affine"}, f"its normalisation is {norm} with {options}")
    nonlin, options = str(plan["nonlin"]).rpartition(".")[2], dict(plan.get("nonlin_kwargs") or {})
    slope = options.pop("negative_slope", 0.01)
    same = nonlin in _ACTIVATIONS and options.keys() <= {"inplace"} and slope == 0.01
    _require(same and not plan.get("nonlin_first"), f"its non-linearity is {nonlin} of slope {slope} with {options}")
    return _ACTIVATIONS[nonlin]


def _names(settings: NetworkSettings) -> Iterator[tuple[str, str]]:
    """Our name and nnU-Net's of each weight, the weight of a layer before its bias."""
    depth = len(settings.channels()) - 1
    blocks = [(f"encoder.{level}", f"encoder.stages.{level}.0", level) for level in range(depth)]
    blocks += [("bottleneck", f"encoder.stages.{depth}.0", depth)]
    blocks += [(f"decoder.{level}", f"decoder.stages.{depth - 1 - level}", level) for level in range(depth)]
    for ours, theirs, level in blocks:
        for unit in range(settings.convs_at(level)):
            for ending, name in (("0.weight", "conv.weight"), ("1.weight", "norm.weight"), ("1.bias", "norm.bias")):
                yield f"{ours}.units.{unit}.{ending}", f"{theirs}.convs.{unit}.{name}"
    layers = [(f"up.{level}", f"decoder.transpconvs.{depth - 1 - level}") for level in range(depth)]
    for ours, theirs in [*layers, ("heads.0", f"decoder.seg_layers.{depth - 1}")]:
        yield f"{ours}.weight", f"{theirs}.weight"
        yield f"{ours}.bias", f"{theirs}.bias"


def _permuted(weight: Tensor, order: Sequence[int]) -> Tensor:
    """Turn the axes of a kernel; weights without spatial axes stay."""
    weight = weight.detach().float()
    return weight.permute(0, 1, *(2 + axis for axis in order)).contiguous() if weight.ndim > 2 else weight.clone()


def _per_level(value: Any, levels: int) -> list[Any]:
    """One value a level, where one for all may be given."""
    values = [value] * levels if isinstance(value, int) else list(value)
    _require(len(values) == levels, f"its network has {levels} levels, but {values} names {len(values)}")
    return values


def _reordered(value: int | Sequence[int], order: Sequence[int]) -> list[int]:
    """One value an axis, in our order."""
    return [value] * len(order) if isinstance(value, int) else [int(value[axis]) for axis in order]


def _require(condition: bool, problem: str) -> None:
    """Refuse what cannot be imported."""
    if not condition:
        raise SkipSegError(f"{problem}; this model cannot be imported")
