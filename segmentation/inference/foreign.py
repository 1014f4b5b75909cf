"""Models that nnU-Net v2 trained, read into a model folder of ours.

What is the same: the network, its weights, the window, the axes that it sees and that it may mirror, the spacing, and
the mapping of intensities. What is not, and is written into model.json as ``notes``:

* Scans are resampled linearly here, by cubic splines there, and class probabilities are averaged here, logits there.
* nnU-Net crops a scan to its non-zero box before anything else. Here windows cover the whole scan, and z-scores are
  taken over the whole scan.
* A scan smaller than the window is padded with zeros there; here the window shrinks to it.
* Its post-processing is a pickle, and is left out.

A trainer that builds another network under the names of nnU-Net's own cannot be told from the weights.
"""

import logging
import math
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segmentation import SkipSegError, __version__
from segmentation.config import ImportSettings
from segmentation.data.preprocessing import Normalisation, Preprocessing
from segmentation.model.architecture import Architecture
from segmentation.model.foreign import nnunet_architecture, nnunet_weights
from segmentation.model.storage import save_model
from segmentation.runs import file_hash, read_json

log = logging.getLogger(__name__)

ZSCORE_RANGE = 64.0
"""nnU-Net cuts no z-score off; beyond this, here, they are. [0, 1] in fp32 then resolves a z-score to 1e-5."""

_FRAMES = {"SimpleITKIO": "stored", "NibabelIO": "stored", "NibabelIOWithReorient": "canonical"}
"""Readers of volumes, and the axes in which they hand them on: those of the file, or closest to RAS+."""
_PICTURES = "NaturalImage2DIO"
_NUMBERS = ("Float64", "Float32", "Int64", "Int32", "Bool")
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)
_NOTES = (
    "scans are resampled linearly, nnU-Net uses cubic splines",
    "windows cover the whole scan, and z-scores are of the whole scan; nnU-Net first crops to what is not zero",
    "a scan below the window's size is not padded; nnU-Net pads it with zeros",
    "probabilities of overlapping windows are averaged, nnU-Net averages logits",
    "nnU-Net's post-processing, a pickle, is left out",
)


def import_nnunet(settings: ImportSettings) -> Path:
    """Read a trained configuration of nnU-Net into a model folder.

    Returns:
        The folder, which holds ``model.json`` and ``model.safetensors``.

    Raises:
        SkipSegError: If a file is missing or damaged, the checkpoint holds anything but numbers, texts and tensors,
            or our description of a model cannot say what nnU-Net does with a scan; the message names what.
    """
    source = settings.source
    if not (source / "plans.json").is_file():
        raise SkipSegError(
            f"{source} holds no plans.json; give nnU-Net's folder of a trained configuration, for weights alone, "
            "as MONAI's are, do not say how scans were prepared"
        )
    plans, dataset = read_json(source / "plans.json"), read_json(source / "dataset.json")
    path = source / f"fold_{settings.fold}" / settings.checkpoint
    checkpoint = load_checkpoint(path)
    try:
        architecture, weights, description = _read(plans, dataset, checkpoint)
    except SkipSegError as error:
        raise SkipSegError(f"{source}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise SkipSegError(f"{source} is not a folder that nnU-Net wrote ({error!r})") from None
    origin = {"program": "nnU-Net", "fold": settings.fold, "checkpoint": path.name, "sha256": file_hash(path)}
    origin |= {"trainer": str(checkpoint.get("trainer_name")), **description["imported"]}
    for note in _NOTES:
        log.info("%s", note)
    save_model(settings.out, architecture, weights, description | {"imported": origin})
    return settings.out


def _read(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> tuple[Architecture, dict[str, Tensor], dict[str, Any]]:
    """Architecture, weights, and the rest of model.json."""
    name = checkpoint["init_args"]["configuration"]
    configuration = _configuration(plans, name)
    order, preprocessing = _preprocessing(plans, configuration)
    labels, channels = _labels(plans, dataset), _channels(dataset)
    _require(len(channels) == len(preprocessing.normalisation), "its channels and their normalisations differ")
    network, arguments = _network(configuration)
    architecture = nnunet_architecture(network, arguments, len(channels), len(labels), order)
    mirrored = checkpoint.get("inference_allowed_mirroring_axes") or ()
    description = {
        "skipseg": __version__,
        "preprocessing": preprocessing.to_plain(),
        "channel_names": channels,
        "labels": labels,
        "patch_size": [int(configuration["patch_size"][axis]) for axis in order],
        "flip_axes": [ours for ours, theirs in enumerate(order) if theirs in mirrored],
        "mirror": len(mirrored) > 0,
        "keep_largest": False,
        "dataset": {"name": str(plans.get("dataset_name", "")), "licence": str(dataset.get("licence", ""))},
        "imported": {"configuration": name},
        "notes": list(_NOTES),
    }
    return architecture, nnunet_weights(checkpoint["network_weights"], architecture, order), description


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of tensors, texts and numbers; a pickle of anything else is refused before it can run.

    nnU-Net's log of a training holds numbers of NumPy, which are let through by name.

    Raises:
        SkipSegError: If the file is missing or damaged, or holds objects.
    """
    if not path.exists():
        raise SkipSegError(f"{path} does not exist; name another with --fold or --checkpoint")
    # NumPy before 2 wrote its module as numpy.core. The function is private, but it is the one that pickles name.
    scalar = np._core.multiarray.scalar  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]
    numbers: list[Any] = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype]
    numbers += [getattr(np.dtypes, f"{number}DType") for number in _NUMBERS]
    try:
        if not zipfile.is_zipfile(path):  # a bare pickle, as PyTorch wrote before 1.6
            raise pickle.UnpicklingError
        with torch.serialization.safe_globals(numbers):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        reason = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), type(error).__name__)
        raise SkipSegError(
            f"{path} is no checkpoint of plain numbers and tensors ({reason}); it was not read"
        ) from None
    if not isinstance(found, dict) or "network_weights" not in found:
        raise SkipSegError(f"{path} holds no network_weights; it is not a checkpoint of nnU-Net v2")
    return found


def _configuration(plans: Mapping[str, Any], name: str, below: Sequence[str] = ()) -> dict[str, Any]:
    """A configuration of the plans, laid over the one that it inherits from."""
    _require(name not in below, f"configuration {name} inherits from itself")
    found = dict(plans["configurations"][name])
    if "inherits_from" in found:
        found = _configuration(plans, found["inherits_from"], (*below, name)) | found
    _require(not found.get("previous_stage"), f"{name} is a cascade, which reads the masks of another model")
    return found


def _network(configuration: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Class of the network and its arguments; plans from before nnU-Net 2.4 name them otherwise."""
    if "architecture" in configuration:
        return configuration["architecture"]["network_class_name"], configuration["architecture"]["arch_kwargs"]
    convs, dims = configuration["n_conv_per_stage_encoder"], len(configuration["patch_size"])
    base, most = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    arguments = {
        "n_stages": len(convs),
        "features_per_stage": [min(base * 2**level, most) for level in range(len(convs))],
        "conv_op": f"torch.nn.Conv{dims}d",
        "kernel_sizes": configuration["conv_kernel_sizes"],
        "strides": configuration["pool_op_kernel_sizes"],
        "n_conv_per_stage": convs,
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
        "norm_op": f"torch.nn.InstanceNorm{dims}d",
        "norm_op_kwargs": {"affine": True},
        "nonlin": "torch.nn.LeakyReLU",
    }
    return configuration["UNet_class_name"], arguments


def _preprocessing(plans: Mapping[str, Any], configuration: Mapping[str, Any]) -> tuple[list[int], Preprocessing]:
    """Which axis of nnU-Net's each of ours is, and how scans are prepared.

    Its readers hand a volume on as (z, y, x), and ``transpose_forward`` turns that again. Our axes are (x, y, z).
    """
    reader, dims = plans["image_reader_writer"], len(configuration["patch_size"])
    if reader == _PICTURES:
        _require(dims == 2, f"reader {reader} with {dims}-D patches")
        order, frame = [0, 1], "canonical"
    else:
        _require(reader in _FRAMES, f"its scans are read by {reader}; known are {', '.join(_FRAMES)} and {_PICTURES}")
        _require(dims == 3, "it reads volumes slice by slice at any distance, but ours have a fixed spacing")
        turned = list(plans["transpose_forward"])
        order, frame = [turned.index(2 - axis) for axis in range(3)], _FRAMES[reader]
    spacing = tuple(float(configuration["spacing"][axis]) for axis in order)
    _require(all(math.isfinite(size) and size > 0 for size in spacing), f"its spacing is {spacing}")
    intensities = plans.get("foreground_intensity_properties_per_channel") or {}
    schemes = zip(configuration["normalization_schemes"], configuration["use_mask_for_norm"], strict=True)
    normalisation = tuple(
        _normalisation(scheme, masked, intensities.get(str(channel), {}))
        for channel, (scheme, masked) in enumerate(schemes)
    )
    return order, Preprocessing.from_plain(
        {
            "dims": dims,
            "spacing_mm": spacing,
            "slice_axis": None,
            "context_slices": 0,
            "normalisation": [vars(entry) for entry in normalisation],
            "frame": frame,
        }
    )


def _normalisation(scheme: str, masked: bool, found: Mapping[str, float]) -> Normalisation:
    """How one channel becomes [0, 1], such that the network then sees what nnU-Net would show it."""
    match scheme:
        case "CTNormalization":
            low, high = float(found["percentile_00_5"]), float(found["percentile_99_5"])
            _require(high > low, f"its intensities run from {low} to {high}")
            mean, width = float(found["mean"]), high - low
            return Normalisation("window", low, high, (mean - low) / width, max(float(found["std"]), 1e-8) / width)
        case "ZScoreNormalization":
            _require(not masked, "it takes z-scores among voxels that are not zero, ours are of all voxels")
            return Normalisation("zscore", -ZSCORE_RANGE, ZSCORE_RANGE, 0.5, 0.5 / ZSCORE_RANGE)
        case "RGBTo01Normalization":
            return Normalisation("range", 0.0, 255.0, 0.0, 1.0)
        case _:
            raise SkipSegError(f"its normalisation {scheme} is not one of ours; this model cannot be imported")


def _labels(plans: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, int]:
    """Class names and values, background first."""
    _require(
        plans.get("label_manager", "LabelManager") == "LabelManager", f"its labels are {plans.get('label_manager')}"
    )
    given: dict[str, Any] = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    regions = [name for name, value in given.items() if isinstance(value, list) and len(value) > 1]
    _require(not regions, f"its labels overlap ({', '.join(regions)}), ours exclude each other")
    values = {name: int(value[0] if isinstance(value, list) else value) for name, value in given.items()}
    ordered = dict(sorted(values.items(), key=lambda item: item[1]))
    _require(list(ordered.values()) == list(range(len(ordered))), f"its label values are {list(ordered.values())}")
    return ordered


def _channels(dataset: Mapping[str, Any]) -> list[str]:
    """Names of the channels in order."""
    names = dataset.get("channel_names") or dataset["modality"]
    return [str(names[key]) for key in sorted(names, key=int)]


def _require(condition: bool, problem: str) -> None:
    """Refuse what cannot be imported."""
    if not condition:
        raise SkipSegError(f"{problem}; this model cannot be imported")
