"""A chain of convolution units: the plainest network in which gradients vanish and units can be removed."""

from torch import Tensor, nn

from segmentation.config import Activation, Init, NetworkSettings, Norm, ShortSkip
from segmentation.model.blocks import ConvBlock, draw_weights
from segmentation.model.units import CONV


class Chain(nn.Module):
    """A convolution to ``channels``, a chain of ``length`` units at one resolution, and a 1x1 convolution to logits.

    Args:
        length: Units in the chain.
        channels: Channels of each unit; with ``"dense"`` a unit writes ``channels / length`` of them, at least 1.
        in_channels: Channels of the image.
        out_channels: Channels of the logits.
        short: Short skip of the chain.
        activation: Non-linearity of the units.
        norm: Normalisation of the units.
        init: How weights are drawn.
        seed: Seed of the initial weights.
        dims: 2 or 3 spatial axes.
        every: Units that an additive short skip spans; with 1, each unit alone is a residual branch.
        kernel: Size of the convolutions, odd.
        zero_last: Start every residual branch at zero.

    Attributes:
        units: The units in order.

    Examples:
        >>> import torch
        >>> chain = Chain(8, 4, in_channels=1, out_channels=1, short="add")
        >>> len(chain.units), chain(torch.zeros(1, 1, 9, 7)).shape
        (8, torch.Size([1, 1, 9, 7]))
    """

    def __init__(
        self,
        length: int,
        channels: int,
        in_channels: int,
        out_channels: int,
        short: ShortSkip = "none",
        activation: Activation = "relu",
        norm: Norm = "none",
        init: Init = "he",
        seed: int = 0,
        dims: int = 2,
        every: int = 1,
        kernel: int = 3,
        zero_last: bool = False,
    ) -> None:
        super().__init__()
        self.settings = NetworkSettings(
            short_skip=short,
            short_skip_every=every,
            convs=length,
            activation=activation,
            norm=norm,
            init=init,
            zero_last=zero_last,
        )
        self.stem = CONV[dims](in_channels, channels, kernel, padding=kernel // 2)
        self.block = ConvBlock(self.settings, dims, channels, channels, (kernel,) * dims, short)
        self.head = CONV[dims](channels, out_channels, 1)
        draw_weights(self, self.settings, seed)

    @property
    def units(self) -> nn.ModuleList:
        """The units in order."""
        return self.block.units

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape ``(B, in_channels, *S)`` to logits of shape ``(B, out_channels, *S)``."""
        return self.head(self.block(self.stem(x)))
