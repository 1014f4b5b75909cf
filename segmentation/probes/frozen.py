"""Frozen fraction: the share of a layer's weights that a real optimiser step leaves bit for bit as they are.

    Fz_l = mean over the weights of layer l of [ fl32(w + dw) == w ]

dw is the first step of the optimiser from the gradient of the mean loss over the batches, without weight decay, which
moves weights that learn nothing. A float32 weight near 0.1 has neighbours 7.5e-9 apart, so a step of 1e-19 is none.

    SGD      dw = -rate * g, without momentum
    AdamW    dw = -rate * g / (|g| + eps), eps = 1e-8 (Loshchilov and Hutter 2019, arXiv:1711.05101)

AdamW divides the size of the gradient away, and so hides vanishing until |g| falls below eps; there its step shrinks
with g as that of SGD. ``below_eps`` is the share of a layer's weights with |g| < eps, and ``log10_mean_step`` the
decimal logarithm of rate * mean |g|, the step that SGD would make if weights had no spacing.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from segmentation.figures import Figure, Series
from segmentation.model.order import hidden_layers, weight_of
from segmentation.probes.context import Batch, LossFunction, ProbeContext, ProbeResult
from segmentation.probes.gradients import SMALLEST, mean_gradient

ADAM_EPS = 1e-8
"""PyTorch's default, which training uses."""


@dataclass(frozen=True)
class FrozenLayer:
    """One layer after one step.

    Attributes:
        name: The layer.
        frozen: Fz_l in [0, 1].
        below_eps: Share of weights whose gradient is smaller than Adam's eps.
        log10_mean_step: log10(rate * mean |g|).
    """

    name: str
    frozen: float
    below_eps: float
    log10_mean_step: float


def frozen_layers(
    network: nn.Module,
    loss: LossFunction,
    batches: Sequence[Batch],
    optimizer: Literal["sgd", "adamw"],
    learning_rate: float,
) -> list[FrozenLayer]:
    """Make one optimiser step on a copy of a network and compare weights bit by bit.

    Args:
        network: Left as it is.
        loss: Mean loss of a batch.
        batches: Images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``.
        optimizer: Whose step.
        learning_rate: Of the step.

    Returns:
        One entry for each hidden layer, from input to output.
    """
    moved = copy.deepcopy(network)
    layers = {name: weight_of(layer) for name, layer in hidden_layers(moved, batches[0][0]).items()}
    before = {name: weight.detach().clone() for name, weight in layers.items()}
    mean_gradient(moved, loss, batches)
    step = (
        torch.optim.SGD(moved.parameters(), learning_rate)
        if optimizer == "sgd"
        else torch.optim.AdamW(moved.parameters(), learning_rate, eps=ADAM_EPS, weight_decay=0.0)
    )
    step.step()
    return [_compare(name, weight, before[name], learning_rate) for name, weight in layers.items()]


def _compare(name: str, after: nn.Parameter, before: torch.Tensor, learning_rate: float) -> FrozenLayer:
    """Compare the weights of a layer, shape ``(*N)``, before and after a step."""
    size = torch.zeros_like(before) if after.grad is None else after.grad.abs()
    mean_step = learning_rate * size.double().mean().item()
    return FrozenLayer(
        name,
        (after.detach() == before).double().mean().item(),
        (size < ADAM_EPS).double().mean().item(),
        math.log10(max(mean_step, SMALLEST)),
    )


def probe(context: ProbeContext) -> ProbeResult:
    """Step once with SGD and with AdamW, at the run's learning rate, from its start and from its end."""
    rate = context.settings.optim.learning_rate
    values: dict[str, Any] = {"learning_rate": rate, "adam_eps": ADAM_EPS}
    found: dict[str, list[FrozenLayer]] = {}
    with torch.enable_grad():
        for when, network in (("at the start", context.initial()), ("after training", context.network)):
            for optimizer in ("sgd", "adamw"):
                layers = frozen_layers(network, context.loss, context.batches, optimizer, rate)
                found[f"{optimizer}, {when}"] = layers
    values |= {name: [asdict(layer) for layer in layers] for name, layers in found.items()}
    figure = Figure(
        "lines",
        "Weights that one step leaves as they are",
        x_label="layer, from input to output",
        y_label="frozen fraction",
        series=[Series(name, [layer.frozen for layer in layers]) for name, layers in found.items()],
        ticks=[layer.name for layer in found["sgd, at the start"]],
    )
    note = (
        f"One step at the learning rate {rate:g}, without momentum, clipping and weight decay. 1 means that no weight "
        "of the layer changes a single bit. A weight whose gradient is exactly 0, behind dead activations, is frozen "
        f"too. AdamW's eps is {ADAM_EPS:g}: it turns all gradients well above into steps of about the learning rate."
    )
    return ProbeResult(values, [figure], note)
