"""The path of a training in the plane of its own two largest principal components, after Li et al. 2018, section 7.

Rows are w_i - w_n, the weights of each snapshot minus the last; their two first principal components (centred)
span the plane, and the path is the projection of the rows onto it. The share of variance that the plane explains
says little by itself: a random walk in many dimensions has 61 % of it along its first component and 15 % along
the second (Antognini and Sohl-Dickstein 2018, arXiv:1806.08805: 6 / pi^2 and a quarter of it).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.figures import Figure
from segmentation.probes.context import Batch, LossFunction, NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.landscape import loss_plane
from segmentation.probes.weights import as_direction, flat_weights
from segmentation.training.snapshots import snapshot_files

NOTE = (
    "The plane is that of the path itself, so the path looks straighter and shorter than it was; biases, "
    "normalisations and running statistics are those of the last weights. A random walk would show 61 % and "
    "15 % of its variance."
)
RANDOM_WALK = (6 / math.pi**2, 6 / math.pi**2 / 4)
"""Share of variance along the two first components of a long random walk in many dimensions."""


@dataclass(frozen=True)
class Path:
    """A training seen in a plane.

    Attributes:
        components: The two directions, orthonormal, shape ``(2, P)``.
        points: Where each snapshot lies, the last at the origin, shape ``(n, 2)``.
        explained: Share of variance along each component, in [0, 1].
    """

    components: Tensor
    points: NDArray[np.float64]
    explained: tuple[float, float]


def principal_path(snapshots: Sequence[Tensor]) -> Path:
    """Project a training onto its two first principal components.

    Args:
        snapshots: Weights in the order of training, each of shape ``(P,)``, as of
            :func:`segmentation.probes.weights.flat_weights`; at least 3.

    Raises:
        SkipSegError: If there are fewer than 3, or all are the same.

    Examples:
        >>> corner = [torch.tensor(point) for point in ((0.0, 0.0, 1.0), (2.0, 0.0, 1.0), (2.0, 1.0, 1.0))]
        >>> path = principal_path(corner)
        >>> round(sum(path.explained), 4), path.points[-1].tolist()
        (1.0, [0.0, 0.0])
    """
    if len(snapshots) < 3:
        raise SkipSegError(f"a path needs at least 3 snapshots of the weights, got {len(snapshots)}; keep more")
    rows = torch.stack([snapshot.double() - snapshots[-1].double() for snapshot in snapshots])
    _, singular, components = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False)
    variance = singular**2
    if not variance.sum() > 0:
        raise SkipSegError("all snapshots hold the same weights, which are no path; train before")
    share = (variance / variance.sum()).tolist()
    return Path(components[:2], (rows @ components[:2].T).cpu().numpy(), (share[0], share[1]))


def path_plane(
    network: nn.Module, loss: LossFunction, batches: Sequence[Batch], path: Path, points: int = 13
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Loss in the plane of a path, a fifth of its extent beyond it on each side.

    Args:
        network: With the weights of the last snapshot; left as it was. Its biases and normalisations stay.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
        path: The path.
        points: Points along each axis.

    Returns:
        Positions along the first and the second component, shapes ``(points,)``, and the loss, shape
        ``(points, points)`` with rows along the second.
    """
    low, high = path.points.min(axis=0), path.points.max(axis=0)
    margin = 0.2 * (high - low) + 1e-6
    x, y = (np.linspace(low[i] - margin[i], high[i] + margin[i], points) for i in (0, 1))
    home = flat_weights(network)
    first, second = (as_direction(network, component.to(home)) for component in path.components)
    return x, y, loss_plane(network, loss, batches, (first, second), x, y)


def draw_path(path: Path, x: NDArray[np.float64], y: NDArray[np.float64], plane: NDArray[np.float64]) -> Figure:
    """Draw a path over the loss.

    Args:
        path: The path.
        x: Positions along the first component, shape ``(M,)``.
        y: Positions along the second, shape ``(N,)``.
        plane: Loss, shape ``(N, M)``.
    """
    first, second = (
        f"component {i + 1}: {100 * share:.0f} % of the variance" for i, share in enumerate(path.explained)
    )
    return Figure(
        "surface", "Path of the training (a random walk would show 61 % and 15 %)", first, second,
        values=plane.tolist(), x=x.tolist(), y=y.tolist(), value_label="loss", log_y=True,
        path=[(float(a), float(b)) for a, b in path.points],
    )  # fmt: skip


def probe(context: ProbeContext) -> ProbeResult:
    """Show the path of a run that kept snapshots of its weights; it ends at the weights of the model.

    Raises:
        NotMeasurableError: If the run kept fewer than two.
    """
    network = context.network
    files = snapshot_files(context.folder)
    if len(files) < 2:
        raise NotMeasurableError(f"{context.folder} holds {len(files)} snapshots of weights; train with track_updates")
    names = [name for name, parameter in network.named_parameters() if parameter.ndim > 1]
    stored = [load_file(file) for file in files]
    snapshots = [torch.cat([weights[name].float().flatten() for name in names]) for weights in stored]
    path = principal_path([*snapshots, flat_weights(network).cpu()])
    x, y, plane = path_plane(network, context.loss, context.batches, path)
    values = {
        "explained": list(path.explained),
        "explained_by_a_random_walk": list(RANDOM_WALK),
        "points": path.points.tolist(),
        "snapshots": [file.stem for file in files],
        "x": x.tolist(),
        "y": y.tolist(),
        "loss": plane.tolist(),
    }
    return ProbeResult(values, [draw_path(path, x, y, plane)], NOTE)
