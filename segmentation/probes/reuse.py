"""Feature reuse inside dense blocks: how strongly each unit reads each earlier map (Huang et al. 2017, figure 5).

In a dense block (arXiv:1608.06993) unit t reads the block's input (source 0) and the outputs of units 0 to t-1
(sources 1 to t); where a branch is a bottleneck of three convolutions, its first one reads. The map holds the mean |W|
of unit t over the channels of source s, divided by the largest of its row: 1 is the source that the unit reads most.
The last row is the 1x1 unit that brings the stack back.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from segmentation.figures import Figure
from segmentation.model.blocks import ConvBlock
from segmentation.model.order import weight_of
from segmentation.model.units import ConvUnit
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult

NOTE = (
    "Each row is divided by its largest entry. Large entries in the first column mean that late units still read the "
    "block's input; an empty column is a map that nobody uses."
)


def reuse_map(block: ConvBlock) -> NDArray[np.float64]:
    """Reuse map of a dense block.

    Returns:
        Shape ``(T + 1, T + 1)`` for T branches, the last row for the 1x1 unit; nan for sources that come later.
    """
    convs = [weight_of(unit.conv) for unit in (*block.units, block.fuse) if isinstance(unit, ConvUnit)]
    units = [*convs[: -1 : block.span], convs[-1]]
    first, growth = units[0].shape[1], convs[block.span - 1].shape[0]
    found = np.full((len(units), len(units)), np.nan)
    for row, unit in enumerate(units):
        found[row, : row + 1] = source_means(unit, [first, *[growth] * row])
    return found / np.nanmax(found, axis=1, keepdims=True)


def source_means(weight: Tensor, channels: list[int]) -> NDArray[np.float64]:
    """Mean |W| over the input channels of each source.

    Args:
        weight: Of a convolution, shape ``(out, in, *kernel)``.
        channels: Channels of each source, in the order of the stack.

    Returns:
        Shape ``(len(channels),)``.

    Examples:
        >>> import torch
        >>> source_means(torch.tensor([[[[1.0]], [[-3.0]], [[5.0]]]]), [2, 1])
        array([2., 5.])
    """
    parts = weight.detach().double().abs().split(channels, dim=1)
    return np.array([float(part.mean()) for part in parts])


def dense_blocks(network: nn.Module) -> dict[str, ConvBlock]:
    """Dense blocks of a network by name."""
    blocks = {name: module for name, module in network.named_modules() if isinstance(module, ConvBlock)}
    return {name: block for name, block in blocks.items() if block.short == "dense"}


def probe(context: ProbeContext) -> ProbeResult:
    """Map the reuse in every dense block of a run's network.

    Raises:
        NotMeasurableError: If there is none.
    """
    maps = {name: reuse_map(block) for name, block in dense_blocks(context.network).items()}
    if not maps:
        raise NotMeasurableError("this network has no dense block")
    return ProbeResult(
        {name: found.tolist() for name, found in maps.items()}, [draw(*item) for item in maps.items()], NOTE
    )


def draw(name: str, found: NDArray[np.float64]) -> Figure:
    """Draw the reuse map of one block, shape ``(T + 1, T + 1)``."""
    units = len(found) - 1
    sources = ["input", *(f"unit {index}" for index in range(units))]
    rows = [*(f"unit {index}" for index in range(units)), "1x1 unit"]
    return Figure(
        "heatmap", f"Reuse in {name}", "source", "reader", ticks=sources, rows=rows, values=found.tolist(),
        value_label="mean |W|, largest of the row = 1",
    )  # fmt: skip
