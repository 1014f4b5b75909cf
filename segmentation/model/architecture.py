"""What a network is built from, as plain data; only building it takes PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segmentation.config import NetworkSettings
from segmentation.plain import from_plain, to_plain

if TYPE_CHECKING:
    from segmentation.model.unet import UNet

_LEVEL_FIELDS = ("long_skip_levels", "short_skip_levels", "convs_levels")


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

    def build(self, seed: int = 0) -> "UNet":
        """Build the network with the initial weights of ``seed``."""
        # Networks are described, counted and frozen into studies where PyTorch is not loaded.
        import torch

        from segmentation.model.unet import UNet

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
