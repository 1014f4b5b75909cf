"""Loss landscape about the trained weights, after Li et al. 2018 (arXiv:1712.09913).

A direction d is Gaussian; each filter of it (slice of the first axis) is scaled to the norm of the network's own
filter, d_ij <- d_ij |w_ij| / (|d_ij| + 1e-10), so that networks of different scale can be compared. Biases and
normalisation parameters stay as they are. Drawn are f(a) = L(w + a d) and f(a, b) = L(w + a d + b e) on [-1, 1],
in evaluation mode, on the same batches without augmentation. One pair of directions is one look into a space of many
dimensions: several pairs are taken and their spread is given. See :mod:`segmentation.probes.terrain` for the
numbers that describe a plane.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmentation.figures import Figure, Series
from segmentation.probes.context import Batch, LossFunction, ProbeContext, ProbeResult, on_batches
from segmentation.probes.modes import settle
from segmentation.probes.terrain import Terrain, describe_plane, ring_rise
from segmentation.probes.weights import Direction, kept_weights, move_to

Array = NDArray[np.float64]
NOTE = (
    "The plane shows two of very many dimensions; compare networks by the median over pairs, and mind the spread. "
    "A network that fits better stands elsewhere, so compare at equal loss as well as at equal steps. The largest "
    "eigenvalue of the Hessian (kind curvature) tells networks apart more reliably than any of these numbers."
)


@dataclass(frozen=True)
class Landscape:
    """The loss around one set of weights.

    Attributes:
        centre: Loss at the weights.
        line_at: Positions along the lines, shape ``(M,)``.
        lines: Loss along the first direction of each pair, shape ``(pairs, M)``.
        axis: Positions along both axes of the planes, shape ``(N,)``.
        planes: Loss, shape ``(pairs, N, N)``; rows follow the second direction.
        terrain: What describes each plane.
    """

    centre: float
    line_at: Array
    lines: Array
    axis: Array
    planes: Array
    terrain: Sequence[Terrain]

    def spread(self) -> dict[str, dict[str, float]]:
        """Median, smallest and largest over the pairs of each number that describes a plane."""
        numbers = {name: [asdict(each)[name] for each in self.terrain] for name in asdict(self.terrain[0])}
        return {
            name: {"median": float(np.median(found)), "low": min(found), "high": max(found)}
            for name, found in numbers.items()
        }


def filter_direction(network: nn.Module, generator: torch.Generator) -> list[Tensor]:
    """Draw a Gaussian direction and scale each filter of it to the norm of the network's own filter.

    The generator lives on the CPU, so that a direction is the same on every device.

    Args:
        network: Gives shapes and norms.
        generator: Source of the draw.

    Returns:
        One tensor a parameter; zero for parameters with at most one axis.

    Examples:
        >>> network = nn.Linear(3, 2)
        >>> weight, bias = filter_direction(network, torch.Generator().manual_seed(0))
        >>> torch.allclose(weight.norm(dim=1), network.weight.norm(dim=1)), bias.tolist()
        (True, [0.0, 0.0])
    """
    direction: list[Tensor] = []
    for parameter in network.parameters():
        if parameter.ndim <= 1:
            direction.append(torch.zeros_like(parameter))
            continue
        drawn = torch.randn(parameter.shape, generator=generator).to(parameter)
        norms = parameter.detach().flatten(1).norm(dim=1) / (drawn.flatten(1).norm(dim=1) + 1e-10)
        direction.append(drawn * norms.view(-1, *[1] * (parameter.ndim - 1)))
    return direction


def loss_line(
    network: nn.Module, loss: LossFunction, batches: Sequence[Batch], direction: Direction, at: Array
) -> Array:
    """Loss at ``w + a d`` for each a.

    Args:
        network: Left as it was.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
        direction: d, one tensor a parameter.
        at: The a, shape ``(M,)``.

    Returns:
        Shape ``(M,)``; infinity where the loss is not a number.
    """
    zero = [torch.zeros_like(part) for part in direction]
    return loss_plane(network, loss, batches, (direction, zero), at, np.zeros(1))[0]


def loss_plane(
    network: nn.Module,
    loss: LossFunction,
    batches: Sequence[Batch],
    pair: tuple[Direction, Direction],
    x: Array,
    y: Array,
) -> Array:
    """Loss at ``w + a d + b e`` for each a of ``x`` and b of ``y``.

    Args:
        network: Left as it was.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
        pair: d and e, each one tensor a parameter.
        x: Shape ``(M,)``.
        y: Shape ``(N,)``.

    Returns:
        Shape ``(N, M)``; infinity where the loss is not a number.
    """
    values = np.empty((len(y), len(x)))
    with kept_weights(network) as home:
        for row, b in enumerate(y):
            for column, a in enumerate(x):
                move_to(network, home, [(float(a), pair[0]), (float(b), pair[1])])
                values[row, column] = on_batches(network, loss, batches)
    return np.where(np.isnan(values), np.inf, values)


def survey(
    network: nn.Module,
    loss: LossFunction,
    batches: Sequence[Batch],
    initial_loss: float,
    pairs: int = 5,
    points: int = 11,
    line_points: int = 51,
    seed: int = 0,
) -> Landscape:
    """Look at the landscape along several pairs of directions.

    Args:
        network: Left as it was.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
        initial_loss: Loss of the untrained network, for the basin's radius.
        pairs: Pairs of independent directions.
        points: Points along each axis of a plane on [-1, 1], odd so that the weights are one of them.
        line_points: Points along a line on [-1, 1].
        seed: Source of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = [(filter_direction(network, generator), filter_direction(network, generator)) for _ in range(pairs)]
    line_at, axis = np.linspace(-1, 1, line_points), np.linspace(-1, 1, points)
    lines = np.stack([loss_line(network, loss, batches, pair[0], line_at) for pair in drawn])
    planes = np.stack([loss_plane(network, loss, batches, pair, axis, axis) for pair in drawn])
    centre = float(planes[0, points // 2, points // 2])
    return Landscape(
        centre, line_at, lines, axis, planes, [describe_plane(plane, axis, initial_loss) for plane in planes]
    )


def probe(context: ProbeContext) -> ProbeResult:
    """Survey a run's landscape on its training batches; the untrained network sets the scale."""
    initial = on_batches(settle(context.initial(), context.batches), context.loss, context.batches)
    found = survey(context.network, context.loss, context.batches, initial, seed=context.options.seed)
    rings = np.stack([ring_rise(plane, found.axis)[1] for plane in found.planes])
    values: dict[str, Any] = {
        "loss": found.centre,
        "loss_initial": initial,
        "pairs": len(found.planes),
        "terrain": found.spread(),
        "axis": found.axis.tolist(),
        "planes": found.planes.tolist(),
        "lines": found.lines.tolist(),
    }
    return ProbeResult(values, draw(found, rings), NOTE)


def draw(found: Landscape, rings: Array) -> list[Figure]:
    """Draw the lines, the first plane, and how the loss rises with the distance.

    Args:
        found: What was surveyed.
        rings: Rise of each ring of each plane, shape ``(pairs, R)``.
    """
    radii = ring_rise(found.planes[0], found.axis)[0].tolist()
    middle, low, high = np.median(rings, axis=0), rings.min(axis=0), rings.max(axis=0)
    at, axis = found.line_at.tolist(), found.axis.tolist()
    lines = [Series(f"direction {index + 1}", line.tolist(), at) for index, line in enumerate(found.lines)]
    rise = Series("median over pairs, with the range", middle.tolist(), radii, low.tolist(), high.tolist())
    step = "distance, in norms of the filters"
    return [
        Figure("lines", "Loss along filter-normalised directions", step, "loss", lines, log_y=True),
        Figure(
            "surface", "Loss in a plane of two directions", "first direction", "second direction",
            values=found.planes[0].tolist(), x=axis, y=axis, value_label="loss", log_y=True, path=[(0.0, 0.0)],
        ),
        Figure("lines", "Rise of the loss on rings around the weights", step, "rise of the loss", [rise]),
    ]  # fmt: skip
