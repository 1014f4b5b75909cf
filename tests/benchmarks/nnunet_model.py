"""nnU-Net's plain network, written out a second time in its own names, and the folder of a trained model around it.

nnU-Net itself loads what is written here, and so does ``skipseg import``: neither needs the other to be installed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
UPCONV = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class Unit(nn.Module):
    """Convolution, normalisation, activation; each layer also stands in ``all_modules``, so that it is saved twice."""

    def __init__(self, dims: int, read: int, write: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        padding = [size // 2 for size in kernel]
        self.conv = CONV[dims](read, write, tuple(kernel), tuple(stride), padding, bias=True)
        self.norm = NORM[dims](write, eps=1e-5, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class Stage(nn.Module):
    """Two units; the first takes the step down."""

    def __init__(self, dims: int, read: int, write: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        first, second = Unit(dims, read, write, kernel, stride), Unit(dims, write, write, kernel, (1,) * dims)
        self.convs = nn.Sequential(first, second)

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Encoder(nn.Module):
    """All stages down to the bottleneck."""

    def __init__(self, plan: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        widths = plan["features_per_stage"]
        parts = zip((channels, *widths), widths, plan["kernel_sizes"], plan["strides"], strict=False)
        self.stages = nn.Sequential(*(nn.Sequential(Stage(len(part[3]), *part)) for part in parts))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [x]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]


class Decoder(nn.Module):
    """All stages up, coarsest first; it holds the encoder too, whose weights are saved a second time."""

    def __init__(self, encoder: Encoder, plan: Mapping[str, Any], classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        widths, kernels, strides = plan["features_per_stage"], plan["kernel_sizes"], plan["strides"]
        levels = list(reversed(range(len(widths) - 1)))
        dims = len(kernels[0])
        one = (1,) * dims
        self.stages = nn.ModuleList(Stage(dims, 2 * widths[k], widths[k], kernels[k], one) for k in levels)
        steps = [tuple(strides[k + 1]) for k in levels]
        self.transpconvs = nn.ModuleList(
            UPCONV[dims](widths[k + 1], widths[k], step, step) for k, step in zip(levels, steps, strict=True)
        )
        self.seg_layers = nn.ModuleList(CONV[dims](widths[k], classes, 1) for k in levels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = maps[-1]
        for stage, up, skip in zip(self.stages, self.transpconvs, maps[-2::-1], strict=True):
            x = stage(torch.cat((up(x), skip), 1))
        return self.seg_layers[-1](x)


class PlainConvUNet(nn.Module):
    """The network of nnU-Net's plan (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z)."""

    def __init__(self, plan: Mapping[str, Any], channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = Encoder(plan, channels)
        self.decoder = Decoder(self.encoder, plan, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map shape ``(B, C, *S)``, sizes divisible by all strides, to logits of shape ``(B, K, *S)``."""
        return self.decoder(self.encoder(x))


def network_plan(
    widths: Sequence[int], strides: Sequence[Sequence[int]], kernels: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """What plans.json says of a network, as nnU-Net's planner writes it."""
    dims = len(strides[0])
    return {
        "n_stages": len(widths),
        "features_per_stage": list(widths),
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [list(kernel) for kernel in kernels],
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage": [2] * len(widths),
        "n_conv_per_stage_decoder": [2] * (len(widths) - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def make_plans(
    plan: Mapping[str, Any],
    patch_size: Sequence[int],
    spacing: Sequence[float],
    intensities: Sequence[Mapping[str, float] | None],
) -> dict[str, Any]:
    """Make plans.json.

    Args:
        plan: From :func:`network_plan`.
        patch_size: Window along (z, y, x), or (rows, columns) of pictures.
        spacing: In mm along the same axes.
        intensities: Of each channel what CT normalisation needs; ``None`` for z-scores.
    """
    dims = len(patch_size)
    configuration: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_config",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch_size),
        "median_image_size_in_voxels": [float(size) for size in patch_size],
        "spacing": list(spacing),
        "normalization_schemes": ["ZScoreNormalization" if each is None else "CTNormalization" for each in intensities],
        "use_mask_for_norm": [False] * len(intensities),
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": dict(plan),
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    for kind, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        arguments = {"is_seg": kind == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        configuration[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        configuration[f"resampling_fn_{kind}_kwargs"] = arguments
    return {
        "dataset_name": "Dataset001_Phantom",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO" if dims == 3 else "NaturalImage2DIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres" if dims == 3 else "2d": configuration},
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(k): dict(each or {}) for k, each in enumerate(intensities)},
    }


def write_model(
    folder: Path,
    network: nn.Module,
    plans: Mapping[str, Any],
    channels: Sequence[str],
    labels: Mapping[str, Any],
    mirrored: Sequence[int] | None = (0, 1, 2),
) -> Path:
    """Write the folder that a finished training leaves behind, as far as prediction reads it."""
    dataset = {
        "channel_names": {str(k): name for k, name in enumerate(channels)},
        "labels": dict(labels),
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    checkpoint = {
        "network_weights": network.state_dict(),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": None,
        "current_epoch": 1,
        "init_args": {"configuration": next(iter(plans["configurations"])), "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": None if mirrored is None else tuple(mirrored),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder
