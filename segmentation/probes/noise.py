"""Signal and noise of the gradient: do mini-batches agree on where to go?

Let g_b be the gradient of mini-batch b of B, m = mean_b g_b, and s^2 = var_b g_b for each weight (divided by B - 1).

    signal to noise      SNR = max(||m||^2 - sum(s^2) / B, 0) / sum(s^2), for each layer and for all weights;
                         ||m||^2 alone would be too large by sum(s^2) / B in expectation
    simple noise scale   sum(s^2) / ||m||^2, in mini-batches: about the number to average over before signal and noise
                         are equal (McCandlish et al. 2018, arXiv:1812.06162); times the batch size, in patches
    confusion            smallest cosine between the gradients of two mini-batches; far below 0: a step for one harms
                         the other (Sankararaman et al. 2020, arXiv:1904.06963)

Normalisations use the statistics of the batch, as in training, and dropout is off.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from segmentation.figures import Figure, Series
from segmentation.model.order import hidden_layers, weight_of
from segmentation.probes.context import Batch, LossFunction, NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.gradients import mean_gradient


@dataclass(frozen=True)
class GradientNoise:
    """Agreement of mini-batch gradients.

    Attributes:
        name: The layer, or ``"all layers"``.
        snr: Signal to noise, at least 0; nan if all gradients are equal.
        noise_scale: Simple noise scale in mini-batches; nan without any gradient.
        confusion: Smallest cosine between two mini-batches, in [-1, 1]; nan if a gradient is zero.
    """

    name: str
    snr: float
    noise_scale: float
    confusion: float


def gradient_noise(gradients: Tensor, name: str = "") -> GradientNoise:
    """Measure how far mini-batch gradients agree.

    Args:
        gradients: One row a mini-batch, shape ``(B, n)``.
        name: Whose gradients.

    Raises:
        ValueError: If there are fewer than two rows.

    Examples:
        >>> found = gradient_noise(torch.tensor([[3.0, 1.0], [1.0, 1.0]]))
        >>> found.snr, found.noise_scale, round(found.confusion, 4)
        (2.0, 0.4, 0.8944)
    """
    rows = gradients.double()
    if len(rows) < 2:
        raise ValueError(f"the variance of gradients needs at least two mini-batches, got {len(rows)}")
    signal = rows.mean(dim=0).square().sum().item()
    noise = rows.var(dim=0, correction=1).sum().item()
    snr = max(signal - noise / len(rows), 0.0) / noise if noise else math.nan
    return GradientNoise(name, snr, noise / signal if signal else math.nan, _smallest_cosine(rows))


def _smallest_cosine(rows: Tensor) -> float:
    """Smallest cosine between two rows, shape ``(B, n)``."""
    norms = rows.norm(dim=1)
    if not norms.all():
        return math.nan
    unit = rows / norms[:, None]
    first, second = torch.triu_indices(len(rows), len(rows), offset=1)
    return (unit @ unit.T)[first, second].min().item()


def layer_noise(network: nn.Module, loss: LossFunction, batches: Sequence[Batch]) -> list[GradientNoise]:
    """Measure every hidden layer, and all of them together.

    Args:
        network: Its gradients are cleared; nothing else changes.
        loss: Mean loss of a batch.
        batches: Images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``, at least two of them.

    Returns:
        One entry for each hidden layer, from input to output, and last ``"all layers"``.
    """
    weights = {name: weight_of(layer) for name, layer in hidden_layers(network, batches[0][0]).items()}
    rows: dict[str, list[Tensor]] = {name: [] for name in weights}
    for batch in batches:
        mean_gradient(network, loss, [batch])
        for name, weight in weights.items():
            rows[name].append(torch.zeros_like(weight).flatten() if weight.grad is None else weight.grad.flatten())
    network.zero_grad(set_to_none=True)
    stacked = {name: torch.stack(each) for name, each in rows.items()}
    found = [gradient_noise(each, name) for name, each in stacked.items()]
    return [*found, gradient_noise(torch.cat(list(stacked.values()), dim=1), "all layers")]


def probe(context: ProbeContext) -> ProbeResult:
    """Measure the run's network at its start and after training."""
    count = len(context.batches)
    if count < 2:
        raise NotMeasurableError("signal to noise needs at least two batches; ask for --batches 2 or more")
    with torch.enable_grad():
        found = {
            "at the start": layer_noise(context.initial(), context.loss, context.batches),
            "after training": layer_noise(context.network, context.loss, context.batches),
        }
    figure = Figure(
        "lines",
        "Signal to noise of mini-batch gradients",
        x_label="layer, from input to output",
        y_label="SNR",
        series=[Series(when, [each.snr for each in layers[:-1]]) for when, layers in found.items()],
        ticks=[each.name for each in found["at the start"][:-1]],
        reference=0.0,
    )
    note = (
        f"From {count} mini-batches of {context.settings.data.batch_size}. With so few, single layers scatter: compare "
        "networks on the same batches, and ask for more with --batches. SNR is cut off at 0, and 0 means that the mean "
        "gradient cannot be told from noise."
    )
    return ProbeResult({when: [asdict(each) for each in layers] for when, layers in found.items()}, [figure], note)
