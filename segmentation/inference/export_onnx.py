"""A model as one ONNX file: from prepared images in [0, 1] to probabilities, for any batch and any size."""

import json
import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from segmentation import SkipSegError
from segmentation.inference.agreement import example_size
from segmentation.inference.backend_torch import TorchBackend
from segmentation.runs import atomic_path

OPSET = 20
INPUT, OUTPUT = "image", "probabilities"
METADATA = "skipseg"
"""Entry of the file's metadata that holds model.json, with what the input and the output mean."""
_UNWRITABLE = ("noise", "shuffle")
"""Placebos that a graph cannot hold."""
_LIMIT = 2**31 - 2**24
"""Bytes that one ONNX file can hold; some of them are not weights."""


def write_onnx(backend: TorchBackend, description: Mapping[str, Any], target: Path) -> None:
    """Write a model as ONNX, opset 20, everything in one file.

    Args:
        backend: The model.
        description: Its ``model.json``, which goes into the file's metadata.
        target: File to write.

    Raises:
        SkipSegError: If the ``export`` extra is missing, the network cannot be written as ONNX, or it is too large.
    """
    placebo = backend.architecture.settings.long_skip_placebo
    if placebo in _UNWRITABLE:
        raise SkipSegError(f"placebo {placebo} draws on chance or the size of the window, which ONNX cannot; use torch")
    if sum(tensor.nbytes for tensor in backend.classifier.state_dict().values()) > _LIMIT:
        raise SkipSegError("an ONNX file holds at most 2 GiB and these weights are larger; export as torch")
    program = _program(backend)
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces, with the paths of this machine
    program.model.metadata_props[METADATA] = json.dumps(about_tensors(description))
    with atomic_path(target) as draft:
        program.save(str(draft), external_data=False)


def about_tensors(description: Mapping[str, Any]) -> dict[str, Any]:
    """``model.json``, and what the input and the output of an exported model mean."""
    classes = sorted(description["labels"], key=description["labels"].__getitem__)
    return {
        "input": {INPUT: "prepared intensities in [0, 1]; axes: batch, channel, space in the order of model.json"},
        "output": {OUTPUT: f"probabilities summing to 1; axes: batch, class ({', '.join(classes)}), space"},
        **description,
    }


def _program(backend: TorchBackend) -> Any:
    """The traced network, of any batch and size."""
    architecture = backend.architecture
    image = torch.zeros(2, architecture.in_channels, *example_size(architecture.strides))
    free = dict.fromkeys((0, *range(2, image.ndim)), torch.export.Dim.DYNAMIC)
    try:
        with _quietly():
            return torch.onnx.export(
                backend.classifier,
                (image,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=(free,),
                verbose=False,
            )
    except ImportError as error:
        raise SkipSegError(f"{error.name} is missing; run: python -m pip install 'skipseg[export]'") from None
    except torch.onnx.OnnxExporterError as error:
        settings = architecture.settings
        kinds = f"long_skip {settings.long_skip}, placebo {settings.long_skip_placebo}, norm {settings.norm}"
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise SkipSegError(f"this network ({kinds}) cannot be written as ONNX ({reason}); export it as torch") from None


@contextmanager
def _quietly() -> Generator[None]:
    """Hold back what the exporter says about packages that it does not find and ways that it does not take."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
