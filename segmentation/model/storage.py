"""A model on disk: weights as safetensors, everything else as JSON beside them. Nothing is ever unpickled.

    model.safetensors    the weights
    model.json           architecture, preprocessing, labels, licence of the data, and the sha256 of the weights

The two files are all that inference needs, on any machine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.unet import UNet
from segmentation.plain import from_plain, to_plain
from segmentation.runs import file_hash, read_json, write_bytes, write_json

FORMAT = 1
"""Version of model.json."""


@dataclass(frozen=True)
class Architecture:
    """What a network is built from.

    Attributes:
        settings: Skip connections, depth, width and layers.
        dims: Spatial axes.
        in_channels: Channels of the image.
        classes: Channels of the logits, background included.
        strides: Factor by which each step down shrinks each axis.
        kernels: Size of the convolutions at each level.
    """

    settings: NetworkSettings
    dims: int
    in_channels: int
    classes: int
    strides: Sequence[Sequence[int]]
    kernels: Sequence[Sequence[int]]

    def build(self, seed: int = 0) -> UNet:
        """Build the network with the initial weights of ``seed``."""
        network = UNet(self.settings, self.dims, self.in_channels, self.classes, self.strides, self.kernels, seed)
        if self.dims == 3:
            # On a CPU, 3-D convolutions are about a fifth faster with channels innermost, 2-D ones are slower.
            network.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue] - torch's stubs lack it
        return network

    def to_plain(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {name: to_plain(getattr(self, name)) for name in self.__dataclass_fields__}
        # JSON knows text keys only; from_plain turns them back into levels.
        levels = {k: {str(level): v for level, v in plain["settings"][k].items()} for k in _LEVEL_FIELDS}
        return plain | {"settings": plain["settings"] | levels}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Architecture":
        """Rebuild from :meth:`to_plain`.

        Raises:
            SkipSegError: If a setting is unknown, of the wrong type or not among the choices.
        """
        fields: dict[str, Any] = {**plain, "settings": from_plain(NetworkSettings, plain["settings"])}
        return cls(**fields)


_LEVEL_FIELDS = ("long_skip_levels", "short_skip_levels")


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
    save_weights(folder / "model.safetensors", weights)
    content = {
        "format": FORMAT,
        "sha256": file_hash(folder / "model.safetensors"),
        "architecture": architecture.to_plain(),
        **description,
    }
    write_json(folder / "model.json", content)


def load_model(folder: Path) -> StoredModel:
    """Load a model from its folder.

    Raises:
        SkipSegError: If the folder holds no model, the weights are not those that model.json names, or the
            two do not fit together.
    """
    if not (folder / "model.json").is_file():
        raise SkipSegError(f"{folder} holds no model.json; give the folder of a finished training run")
    description = read_json(folder / "model.json")
    weights = folder / "model.safetensors"
    try:
        if description["format"] > FORMAT:
            raise SkipSegError(f"{folder} was written by a newer SkipSeg (format {description['format']}); upgrade")
        if file_hash(weights) != description["sha256"]:
            raise SkipSegError(f"{weights} is not the file that model.json describes; copy both files again")
        network = Architecture.from_plain(description["architecture"]).build()
        network.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise SkipSegError(f"{weights} is missing; copy it beside model.json") from None
    except SkipSegError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SkipSegError(f"{folder} does not hold a readable model ({reason}); copy both files again") from None
    return StoredModel(network.eval().requires_grad_(False), description)
