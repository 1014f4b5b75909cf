"""Loss on the straight line between two networks: from the start of a training to its end, and to another run.

L(t) = L((1 - t) v + t w) for t in [0, 1], in evaluation mode, on the run's training patches without augmentation. From
the start v (with batch statistics of the same patches) to the trained weights w it mostly falls (Goodfellow et al.
2015, arXiv:1412.6544). Between two runs the barrier is max over t of L(t) - (1 - t) L(0) - t L(1) (Entezari et al.
2022, arXiv:2110.06296; Frankle et al. 2020, arXiv:1912.05671, take errors, and off them the mean of both ends): zero if
the loss never rises above the straight line between its ends.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from segmentation.figures import Figure, Series
from segmentation.model.storage import load_model
from segmentation.probes.context import (
    Batch,
    LossFunction,
    NotMeasurableError,
    ProbeContext,
    ProbeResult,
    finished_record,
    on_batches,
)
from segmentation.probes.landscape import Array
from segmentation.probes.modes import settle
from segmentation.probes.weights import kept_weights

NOTE = (
    "A barrier between two runs need not be a wall between two basins: channels of the one may stand in another order "
    "in the other, and running statistics of batch normalisation do not fit mixed weights. That there is none says "
    "more. The patches are those that this run learnt from."
)


def loss_between(
    network: nn.Module,
    loss: LossFunction,
    batches: Sequence[Batch],
    first: Mapping[str, Tensor],
    second: Mapping[str, Tensor],
    points: int = 21,
) -> Array:
    """Loss on the straight line between two trained networks of one architecture.

    Everything in the state that is a real number is interpolated, also the running statistics of batch
    normalisation, as in Li's code.

    Args:
        network: Of that architecture; left as it was.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
        first: State of the network at t = 0; may be its own.
        second: State at t = 1; may be its own.
        points: Points on [0, 1].

    Returns:
        Shape ``(points,)``.
    """
    values = np.empty(points)
    first, second = ({name: value.clone() for name, value in state.items()} for state in (first, second))
    with kept_weights(network):
        for index, t in enumerate(np.linspace(0, 1, points)):
            mixed = {k: v.lerp(second[k], float(t)) if v.is_floating_point() else v for k, v in first.items()}
            network.load_state_dict(mixed)
            values[index] = on_batches(network, loss, batches)
    return np.where(np.isnan(values), np.inf, values)


def barrier(values: Array) -> float:
    """Height of the barrier between two runs: the largest L(t) - (1 - t) L(0) - t L(1) (Entezari et al. 2022).

    Source: arXiv:2110.06296. Zero if the loss never rises above the straight line between its ends.

    Args:
        values: Loss at even steps from one run to the other, shape ``(N,)``.

    Examples:
        >>> barrier(np.array([1.0, 5.0, 2.0]))
        3.5
    """
    t = np.linspace(0, 1, len(values))
    return float((values - (1 - t) * values[0] - t * values[-1]).max())


def probe(context: ProbeContext) -> ProbeResult:
    """Walk from the weights that a run started from to those it ended with, and on to ``options.other``.

    Raises:
        NotMeasurableError: If the other run has another network.
        SkipSegError: If it is not finished, or its model cannot be read.
    """
    trained = context.network.state_dict()
    start = settle(context.initial(), context.batches).state_dict()
    lines = {"from the start": loss_between(context.network, context.loss, context.batches, start, trained)}
    if context.options.other:
        other = _state_of_other(context)
        lines["to the other run"] = loss_between(context.network, context.loss, context.batches, trained, other)
    if not all(np.isfinite(line[[0, -1]]).all() for line in lines.values()):
        raise NotMeasurableError("the loss at an end of the line is not finite")
    values = {name: {"loss": line.tolist(), "barrier": barrier(line)} for name, line in lines.items()}
    at = np.linspace(0, 1, len(lines["from the start"])).tolist()
    series = [Series(f"{name}: barrier {barrier(line):.2g}", line.tolist(), at) for name, line in lines.items()]
    figure = Figure("lines", "Loss on the line between two networks", "share of the way", "loss", series, log_y=True)
    return ProbeResult(values, [figure], NOTE)


def _state_of_other(context: ProbeContext) -> Mapping[str, Tensor]:
    """Weights and buffers of the other run, where this network is."""
    folder = context.options.other
    assert folder
    finished_record(folder)
    mine, other = load_model(context.folder).description, load_model(folder)
    if differing := [name for name in ("architecture", "preprocessing") if mine[name] != other.description[name]]:
        said = f"{folder} has another {' and '.join(differing)}"
        raise NotMeasurableError(f"{said}; give a run that differs in seed or fold")
    return other.network.to(context.device).state_dict()
