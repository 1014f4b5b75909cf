"""The stage ``export``: a trained model for other programs, compared with PyTorch before it is kept."""

import logging
import math
import shutil
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.config import ExportSettings
from segmentation.inference.agreement import differences
from segmentation.inference.backend import RUNTIMES, Backend, open_runtime
from segmentation.inference.backend_torch import TorchBackend
from segmentation.inference.export_bundle import write_bundle
from segmentation.inference.export_card import model_card
from segmentation.inference.export_onnx import METADATA, about_tensors, write_onnx
from segmentation.model.folder import WEIGHTS, read_description, released, write_description
from segmentation.runs import atomic_path, write_text

log = logging.getLogger(__name__)

CARD = "README.md"
_HOW_TORCH = """This folder is a model of SkipSeg, complete as it lies here:

    skipseg predict --model THIS_FOLDER --input SCANS --output MASKS"""
_HOW_OPENVINO = """OpenVINO reads model.xml and model.bin: from prepared images in [0, 1], axes batch, channel, space,
to probabilities of the classes, in fp32 and for any size. How a scan is prepared stands in model.json."""


def export(settings: ExportSettings) -> Path:
    """Write a trained model for other programs.

    What is written names no case: model.json of an export counts the cases that the model learnt from.

    Returns:
        The file (onnx) or folder (openvino, bundle, torch).

    Raises:
        SkipSegError: If the folder holds no readable model, ``out`` cannot take it, a package is missing, the network
            cannot be written in this format, or the copy does not compute what PyTorch does.
    """
    write = {"onnx": _onnx, "openvino": _openvino, "bundle": _bundle, "torch": _torch}[settings.format]
    description = released(read_description(settings.model))
    reference = TorchBackend.load(settings.model)
    if settings.format == "onnx":
        if settings.out.suffix != ".onnx":
            raise SkipSegError(f"out must be a file that ends in .onnx, got {settings.out}")
        difference = write(settings.model, settings.out, reference, description)
    else:
        with _new_folder(settings.out) as draft:
            difference = write(settings.model, draft, reference, description)
    log.info("probabilities differ from PyTorch's by at most %.1e", difference)
    return settings.out


def _onnx(model: Path, out: Path, reference: TorchBackend, description: Mapping[str, Any]) -> float:
    """One file, compared in every runtime that is installed, before it takes its place."""
    with atomic_path(out) as draft:
        write_onnx(reference, description, draft)
        return differences(_runtimes(draft), reference)


def _openvino(model: Path, out: Path, reference: TorchBackend, description: Mapping[str, Any]) -> float:
    """model.xml and model.bin, with model.json and the card."""
    _need("openvino")
    from segmentation.inference.backend_openvino import save_ir  # an optional package

    onnx = out / "model.onnx"
    write_onnx(reference, description, onnx)
    save_ir(onnx, out / "model.xml", _smallest(reference), {METADATA: about_tensors(description)})
    onnx.unlink()
    write_description(out, description)
    write_text(out / CARD, model_card(model, description, _HOW_OPENVINO))
    return differences([open_runtime("openvino", out / "model.xml")], reference)


def _torch(model: Path, out: Path, reference: TorchBackend, description: Mapping[str, Any]) -> float:
    """The two files that we read, with the card."""
    shutil.copyfile(model / WEIGHTS, out / WEIGHTS)
    write_description(out, description)
    write_text(out / CARD, model_card(model, description, _HOW_TORCH))
    return differences([TorchBackend.load(out)], reference)


def _bundle(model: Path, out: Path, reference: TorchBackend, description: Mapping[str, Any]) -> float:
    """A MONAI bundle; its models folder is a model folder of ours."""
    write_bundle(model, out, description)
    return differences([TorchBackend.load(out / "models")], reference)


def _runtimes(file: Path) -> list[Backend]:
    """Every installed runtime, with ``file`` open."""
    installed = [name for name in RUNTIMES if find_spec(name)]
    if not installed:
        _need("onnxruntime")
    return [open_runtime(name, file) for name in installed]


def _need(package: str) -> None:
    """Refuse to go on without an optional package."""
    if find_spec(package) is None:
        raise SkipSegError(f"{package} is missing; run: python -m pip install 'skipseg[export]'")


def _smallest(reference: TorchBackend) -> list[int]:
    """Smallest image along each axis that every pooling can take."""
    return [math.prod(steps) for steps in zip(*reference.architecture.strides, strict=True)]


@contextmanager
def _new_folder(target: Path) -> Generator[Path]:
    """Give a folder beside ``target`` that takes its name when the block succeeds."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SkipSegError(f"{target} stands already; choose another folder, or delete it")
    draft = target.parent / f".{uuid.uuid4().hex[:12]}.partial"
    try:
        draft.mkdir(parents=True)
        yield draft
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
