"""A model on disk: weights as safetensors, everything else as JSON beside them. Nothing is ever unpickled.

    model.safetensors    the weights
    model.json           architecture, preprocessing, labels, licence of the data, and the sha256 of the weights

The two files are all that inference needs, on any machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from segmentation import SkipSegError
from segmentation.model.architecture import Architecture
from segmentation.model.folder import FORMAT, WEIGHTS, read_description, unreadable, write_description
from segmentation.model.unet import UNet
from segmentation.runs import file_hash, write_bytes


@dataclass(frozen=True)
class StoredModel:
    """A model as it lies in its folder.

    Attributes:
        network: The network with its trained weights, in evaluation mode.
        description: All of model.json.
    """

    network: UNet
    description: Mapping[str, Any] = field(repr=False)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights, each of the shape of its parameter, as safetensors; the same weights give the same bytes."""
    write_bytes(path, save({name: weights[name].contiguous() for name in sorted(weights)}))


def save_model(
    folder: Path, architecture: Architecture, weights: Mapping[str, Tensor], description: Mapping[str, Any]
) -> None:
    """Write ``model.safetensors`` and then ``model.json``, which names the hash of the weights.

    Args:
        folder: Folder to write into.
        architecture: What rebuilds the network.
        weights: Each of the shape of its parameter.
        description: The rest of ``model.json``, plain data.
    """
    save_weights(folder / WEIGHTS, weights)
    content = {
        "format": FORMAT,
        "sha256": file_hash(folder / WEIGHTS),
        "architecture": architecture.to_plain(),
        **description,
    }
    write_description(folder, content)


def load_model(folder: Path) -> StoredModel:
    """Load a model from its folder.

    Raises:
        SkipSegError: If the folder holds no model, the weights are not those that model.json names, or the
            two do not fit together.
    """
    description = read_description(folder)
    try:
        network = Architecture.from_plain(description["architecture"]).build()
        network.load_state_dict(load_file(folder / WEIGHTS))
    except SkipSegError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        raise unreadable(folder, error) from None
    return StoredModel(network.eval().requires_grad_(False), description)
