"""A model as a MONAI bundle: its inference.json runs with ``python -m monai.bundle run``, where SkipSeg is installed.

    configs/metadata.json, inference.json, logging.conf
    docs/README.md, data_license.txt
    models/model.json, model.safetensors    a model folder of ours, in place of a pickle

Reading, orientation, spacing, the sliding window and writing are MONAI's; intensities, network and post-processing are
ours, by :mod:`segmentation.inference.bundle`.
"""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segmentation import SkipSegError, __version__
from segmentation.data.preprocessing import Preprocessing
from segmentation.inference.export_card import UNKNOWN, model_card
from segmentation.model.folder import WEIGHTS, write_description
from segmentation.runs import write_json, write_text

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_PACKAGES = ("nibabel", "safetensors")
_STEPS = "segmentation.inference.bundle"
_MODELS = "$@bundle_root + '/models'"
_HOW = """This folder is a MONAI bundle, beside which SkipSeg must be installed (`pip install skipseg`):

    python -m monai.bundle run --config_file configs/inference.json --bundle_root . \\
        --dataset_dir SCANS --output_dir MASKS

SCANS holds NIfTI files, one a scan, or `CASE_0000.nii.gz`, `CASE_0001.nii.gz` and so on, one a channel. Masks lie in
the frames of the scans. They are those of `skipseg predict` up to voxels that are undecided: MONAI places windows and
resamples a little otherwise, and pads a scan that is smaller than the window."""
_LOGGING = """[loggers]
keys=root

[handlers]
keys=consoleHandler

[formatters]
keys=fullFormatter

[logger_root]
level=INFO
handlers=consoleHandler

[handler_consoleHandler]
class=StreamHandler
level=INFO
formatter=fullFormatter
args=(sys.stdout,)

[formatter_fullFormatter]
format=%(asctime)s - %(name)s - %(levelname)s - %(message)s
"""


def write_bundle(model: Path, out: Path, description: Mapping[str, Any]) -> None:
    """Write a bundle.

    Args:
        model: Model folder.
        out: Folder of the bundle.
        description: ``model.json`` as it is to leave the house.

    Raises:
        SkipSegError: If MONAI's parts cannot prepare scans as this model needs.
    """
    preparation = Preprocessing.from_plain(description["preprocessing"])
    if len(preparation.spacing_mm) == 2:
        raise SkipSegError("a bundle reads volumes, but this model segments pictures; export it as onnx or torch")
    if preparation.context_slices:
        raise SkipSegError(
            "MONAI slides over single slices, but this model reads neighbours; export it as onnx or torch"
        )
    if preparation.frame != "canonical":
        raise SkipSegError(
            "a bundle turns scans to RAS, but this model reads them as stored; export it as onnx or torch"
        )
    write_json(out / "configs" / "metadata.json", _metadata(preparation, description))
    write_json(out / "configs" / "inference.json", _inference(preparation, description))
    write_text(out / "configs" / "logging.conf", _LOGGING)
    write_text(out / "docs" / "README.md", model_card(model, description, _HOW))
    data = description.get("dataset") or {}
    terms = [f"{title}: {data.get(title.lower()) or UNKNOWN}" for title in ("Name", "Licence", "Citation", "Notice")]
    write_text(out / "docs" / "data_license.txt", "\n".join(["Data that the model learnt from", *terms, ""]))
    write_description(out / "models", description)
    shutil.copyfile(model / WEIGHTS, out / "models" / WEIGHTS)


def _metadata(preparation: Preprocessing, description: Mapping[str, Any]) -> dict[str, Any]:
    """What MONAI's schema of 25 July 2024 asks for."""
    labels = description["labels"]
    classes = {str(value): name for name, value in labels.items()}
    channels = description["channel_names"]
    tensor = {"spatial_shape": list(description["patch_size"]), "dtype": "float32", "value_range": [0, 1]}
    image = {"type": "image", "format": "magnitude", "modality": "n/a", "num_channels": len(channels), **tensor}
    image |= {"is_patch_data": True, "channel_def": {str(index): name for index, name in enumerate(channels)}}
    pred = {"type": "probabilities", "format": "segmentation", "num_channels": len(labels), **tensor}
    pred |= {"is_patch_data": True, "channel_def": classes}
    data = description.get("dataset") or {}
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by SkipSeg {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"skipseg": __version__, **{name: version(name) for name in _PACKAGES}},
        "name": f"Segmentation of {', '.join(name for name, value in labels.items() if value)}",
        "task": "Segmentation",
        "description": f"A {preparation.dims}-D U-Net trained by SkipSeg; docs/README.md is its card",
        "authors": UNKNOWN,
        "copyright": UNKNOWN,
        "data_source": data.get("name") or UNKNOWN,
        "data_type": "nifti",
        "intended_use": "research; see docs/README.md",
        "references": [data["citation"]] if data.get("citation") else [],
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def _inference(preparation: Preprocessing, description: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that ``monai.bundle run`` reads."""
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": "scans",
        "output_dir": "masks",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": f"{_STEPS}.load_network", "folder": _MODELS},
        "preprocessing": {"_target_": "Compose", "transforms": _preparing(preparation)},
        "dataset": {
            "_target_": "Dataset",
            "data": {"_target_": f"{_STEPS}.find_cases", "folder": "@dataset_dir"},
            "transform": "@preprocessing",
        },
        "inferer": _inferer(preparation, description),
        "postprocessing": {"_target_": "Compose", "transforms": _finishing()},
        "evaluator": {
            "_target_": f"{_STEPS}.Evaluator",
            "dataset": "@dataset",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "device": "@device",
        },
        "run": ["$@evaluator.run()"],
    }


def _preparing(preparation: Preprocessing) -> list[dict[str, Any]]:
    """Transforms from a file to the image that the network reads."""
    resample = {"pixdim": list(preparation.spacing_mm), "mode": "bilinear", "padding_mode": "border"}
    return [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader", "ensure_channel_first": True},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
        {"_target_": "Lambdad", "keys": "image", "func": {"_target_": f"{_STEPS}.Intensities", "folder": _MODELS}},
        {"_target_": "Spacingd", "keys": "image", "scale_extent": True, "align_corners": True, **resample},
    ]


def _inferer(preparation: Preprocessing, description: Mapping[str, Any]) -> dict[str, Any]:
    """MONAI's sliding window, with our overlap and blending; over slices if the network is 2-D."""
    common = {"roi_size": list(description["patch_size"]), "sw_batch_size": 1, "overlap": 0.5, "mode": "gaussian"}
    common |= {"sigma_scale": 0.125, "padding_mode": "replicate"}
    if preparation.slice_axis is None:
        return {"_target_": "SlidingWindowInferer", **common}
    return {"_target_": "SliceInferer", "spatial_dim": preparation.slice_axis, **common}


def _finishing() -> list[dict[str, Any]]:
    """Transforms from probabilities to a mask in the frame of the scan."""
    inverse = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False, "to_tensor": True}
    where = {"output_dir": "@output_dir", "output_postfix": "", "separate_folder": False, "resample": False}
    return [
        {"_target_": "Invertd", "keys": "pred", **inverse},
        {"_target_": "Lambdad", "keys": "pred", "func": {"_target_": f"{_STEPS}.Decide", "folder": _MODELS}},
        {"_target_": "SaveImaged", "keys": "pred", **where, "output_ext": ".nii.gz", "output_dtype": "$'uint8'"},
    ]
