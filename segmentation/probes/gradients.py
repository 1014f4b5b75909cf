"""Gradient in every layer of a network, from input to output, as it starts and as it is now.

Let L be the mean loss over the batches, W_l the n_l weights of the l-th layer that the network computes, heads left
out, g_l = dL/dW_l, and a_l the map that the unit of the layer (convolution, normalisation, activation) gives.

    RMS gradient         G_l = ||g_l|| / sqrt(n_l)
    relative gradient    ||g_l|| / ||W_l||
    activation gradient  A_l = ||dL/da_l|| / sqrt(|a_l|), root mean square over batches
    vanishing index      V = log10(G_1 / G_L), in decades; far below 0: the first layer learns nothing
    slope                least squares of log10 G_l on the number of layers behind l: decades a layer towards the input;
                         V and slope count convolution units alone, for a projection on a short skip lies beside them
    centre starvation    C = log10 G_B - (log10 G_E0 + log10 G_D0) / 2, where a block of the U-Net has the root mean
                         square over the weights of its convolution units: E0 finest encoder block, B bottleneck, D0
                         finest decoder block; far below 0: the bottleneck learns less than both ends

C alone misleads: without long skips the gradient falls all the way from D0 to E0, and C looks harmless while E0 is
dead. V and C are always read together. A gradient that float32 rounds to zero counts as its smallest number, 1.4e-45.
Normalisations use the statistics of the batch, as in training, and dropout is off. The profile over layers is that of
Drozdzal et al. 2016 (arXiv:1608.04117), for gradients instead of updates; V after Glorot and Bengio 2010.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segmentation.figures import Figure, Series
from segmentation.model.order import WEIGHTED, hidden_layers, weight_of
from segmentation.probes.context import Batch, LossFunction, ProbeContext, ProbeResult
from segmentation.probes.modes import batch_statistics
from segmentation.training.updates import rms

SMALLEST = 2.0**-149
"""The smallest number above zero in float32."""


@dataclass(frozen=True)
class LayerGradient:
    """Gradient in one layer.

    Attributes:
        name: The layer.
        weights: Number of its weights.
        gradient: G_l.
        relative: Relative gradient; nan for weights that are all zero.
        activation: A_l.
    """

    name: str
    weights: int
    gradient: float
    relative: float
    activation: float


def layer_gradients(network: nn.Module, loss: LossFunction, batches: Sequence[Batch]) -> list[LayerGradient]:
    """Measure the gradient in every hidden layer, from input to output.

    Args:
        network: Its gradients are cleared; nothing else changes.
        loss: Mean loss of a batch.
        batches: Images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``.

    Returns:
        One entry for each weighted layer that the images reach, heads left out.
    """
    layers = hidden_layers(network, batches[0][0])
    units = {name: _unit(network, name) for name in layers}
    squares = dict.fromkeys(layers, 0.0)

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            def add(gradient: Tensor) -> None:
                squares[name] += rms(gradient).item() ** 2

            output.register_hook(add)

        return hook

    hooks = [unit.register_forward_hook(watch(name)) for name, unit in units.items()]
    try:
        mean_gradient(network, loss, batches)
    finally:
        for hook in hooks:
            hook.remove()
    found = [_measure(name, layer, math.sqrt(squares[name] / len(batches))) for name, layer in layers.items()]
    network.zero_grad(set_to_none=True)
    return found


def mean_gradient(network: nn.Module, loss: LossFunction, batches: Sequence[Batch]) -> None:
    """Leave the gradient of the mean loss over ``batches`` in the parameters of ``network``.

    Args:
        network: Uses the statistics of each batch; its own stay as they are.
        loss: Mean loss of a batch.
        batches: Images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``.
    """
    network.zero_grad(set_to_none=True)
    with batch_statistics(network):
        for images, labels in batches:
            loss(network, images, labels).backward()
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.grad /= len(batches)


def _measure(name: str, layer: nn.Module, activation: float) -> LayerGradient:
    """Read the gradient of a layer off its weights."""
    weight = weight_of(layer)
    gradient = weight.new_zeros(1) if weight.grad is None else weight.grad
    norm, size = weight.detach().double().norm().item(), weight.numel()
    length = gradient.double().norm().item()
    return LayerGradient(name, size, length / math.sqrt(size), length / norm if norm else math.nan, activation)


def _unit(network: nn.Module, name: str) -> nn.Module:
    """The sequence that holds the layer ``name`` and no other weighted layer; without one, the layer."""
    parent = network.get_submodule(name.rpartition(".")[0])
    alone = isinstance(parent, nn.Sequential) and sum(isinstance(m, WEIGHTED) for m in parent.modules()) == 1
    return parent if alone else network.get_submodule(name)


def vanishing_index(gradients: Sequence[float]) -> float:
    """V = log10(G_1 / G_L) of RMS gradients from input to output.

    Examples:
        >>> round(vanishing_index([1e-6, 1e-4, 1e-2]), 6)
        -4.0
    """
    return _log10(gradients[0]) - _log10(gradients[-1])


def slope(gradients: Sequence[float]) -> float:
    """Decades that the RMS gradient gains with each layer towards the input, by least squares; negative: it vanishes.

    Examples:
        >>> round(slope([1e-6, 1e-4, 1e-2]), 6)
        -2.0
    """
    behind = np.arange(len(gradients))[::-1]
    return float(np.polyfit(behind, [_log10(g) for g in gradients], 1)[0]) if len(gradients) > 1 else math.nan


def block_gradients(gradients: Sequence[LayerGradient], depth: int) -> dict[str, float]:
    """RMS gradient of each block of a U-Net, over the weights of its convolution units.

    Args:
        gradients: Of its layers.
        depth: Of the network.

    Returns:
        ``E0`` to ``E(depth-1)``, ``B``, ``D(depth-1)`` to ``D0``.
    """
    prefixes = {f"E{level}": f"encoder.{level}." for level in range(depth)}
    prefixes |= {"B": "bottleneck."}
    prefixes |= {f"D{level}": f"decoder.{level}." for level in reversed(range(depth))}
    return {block: _rms_of_units(gradients, prefix) for block, prefix in prefixes.items()}


def _rms_of_units(gradients: Sequence[LayerGradient], prefix: str) -> float:
    """RMS gradient of the units of a block; of all that it holds where it is built otherwise (U-Net 3+)."""
    inside = [each for each in gradients if each.name.startswith(prefix)]
    inside = [each for each in inside if each.name.startswith(f"{prefix}units.")] or inside
    return math.sqrt(sum(g.weights * g.gradient**2 for g in inside) / sum(g.weights for g in inside))


def centre_starvation(blocks: Mapping[str, float]) -> float:
    """C = log10 G_B - (log10 G_E0 + log10 G_D0) / 2 of :func:`block_gradients`.

    Examples:
        >>> round(centre_starvation({"E0": 1e-4, "B": 1e-11, "D0": 1e-2}), 6)
        -8.0
    """
    return _log10(blocks["B"]) - (_log10(blocks["E0"]) + _log10(blocks["D0"])) / 2


def _log10(gradient: float) -> float:
    """Decimal logarithm of a gradient."""
    return math.log10(max(gradient, SMALLEST))


def profile(network: nn.Module, loss: LossFunction, batches: Sequence[Batch], depth: int) -> dict[str, Any]:
    """The whole profile of a U-Net as plain data.

    Args:
        network: A U-Net.
        loss: Mean loss of a batch.
        batches: Images of shape ``(B, C, *S)`` and labels of shape ``(B, *S)``.
        depth: Of the network.

    Returns:
        ``layers`` (fields of :class:`LayerGradient`), ``blocks``, ``V``, ``C`` and ``slope``. Where no layer is in a
        convolution unit (U-Net 3+), V and slope are of all layers.
    """
    layers = layer_gradients(network, loss, batches)
    size = [layer.gradient for layer in layers if ".units." in layer.name] or [layer.gradient for layer in layers]
    blocks = block_gradients(layers, depth)
    indices = {"V": vanishing_index(size), "C": centre_starvation(blocks), "slope": slope(size)}
    return {"layers": [asdict(layer) for layer in layers], "blocks": blocks, **indices}


def probe(context: ProbeContext) -> ProbeResult:
    """Profile the run's network at its start and after training."""
    depth = len(context.network.decoder)
    networks = {"at the start": context.initial(), "after training": context.network}
    with torch.enable_grad():
        values = {when: profile(network, context.loss, context.batches, depth) for when, network in networks.items()}
    start, now = values["at the start"], values["after training"]
    note = (
        f"At the start V = {start['V']:.2f} and C = {start['C']:.2f} decades, after training V = {now['V']:.2f} and "
        f"C = {now['C']:.2f}; the two are read together. The gradient of a trained network is small everywhere: its "
        "course over the layers tells, not its height. Adam divides by the size of the gradient, which hides "
        "vanishing until the gradient nears its eps, 1e-8: see the kind frozen."
    )
    return ProbeResult(values, _figures(values), note)


def _figures(values: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """RMS gradient over layers, activation gradient over layers, and RMS gradient over blocks."""
    names = [layer["name"] for layer in values["after training"]["layers"]]
    titles = {"gradient": ("RMS gradient in each layer", "G"), "activation": ("Gradient of each layer's map", "A")}
    figures = [
        Figure(
            "lines",
            title,
            x_label="layer, from input to output",
            y_label=symbol,
            series=[Series(when, [layer[field] for layer in each["layers"]]) for when, each in values.items()],
            ticks=names,
            log_y=True,
        )
        for field, (title, symbol) in titles.items()
    ]
    blocks = Figure(
        "lines",
        "RMS gradient in each block",
        x_label="block, from input to output",
        y_label="G",
        series=[Series(when, list(each["blocks"].values())) for when, each in values.items()],
        ticks=list(values["after training"]["blocks"]),
        log_y=True,
    )
    return [blocks, *figures]
