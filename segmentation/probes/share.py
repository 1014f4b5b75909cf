"""Use of the long skips: how much of the first decoder convolution, of the gradient and of the gates they take.

For a join of the upsampled decoder map u and the encoder map z at a level, and W the weights of the first decoder
convolution that reads them stacked,

    weight energy share    rho = |W[:, z]|^2 / |W|^2,
    gradient share         |dL/dz| / (|dL/dz| + |dL/du|), at the inputs of the join,
    gate mean              mean over voxels and batches of the factor that a gate puts on z.

1/2 is an even use. The weight share exists where maps are stacked (concat, gated, se, respath).
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segmentation.figures import Figure, Series
from segmentation.model.blocks import ConvBlock
from segmentation.model.gates import AttentionGate, ScalarGate, SqueezeExcitation
from segmentation.model.order import evaluating, weight_of
from segmentation.model.skips import SkipJoin
from segmentation.model.unet import UNet
from segmentation.model.units import ConvUnit
from segmentation.probes.context import Batch, LossFunction, NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.stages import captured

NOTE = (
    "One half is an even use of both maps. Weights and gradients say what the network could pass on, lesions what it "
    "relies on: a map of large values needs small weights. With normalised maps the weight share is easier to read."
)


def joins_of(network: UNet) -> dict[int, SkipJoin]:
    """Where a long skip enters the decoder, by level; empty for none, nested and fullscale."""
    return {int(level): join for level, join in network.joins.items() if isinstance(join, SkipJoin)}


def energy_share(weight: Tensor, skip_from: int) -> float:
    """Share of the squared weights that reads the input channels from ``skip_from`` on.

    Args:
        weight: Of a convolution, shape ``(out, in, *kernel)``.
        skip_from: First input channel of the skip.

    Returns:
        In [0, 1]; nan for weights that are all zero.

    Examples:
        >>> energy_share(torch.tensor([[[[3.0]], [[4.0]]]]), skip_from=1)
        0.64
    """
    energy = weight.detach().double() ** 2
    return float(energy[:, skip_from:].sum() / energy.sum())


def weight_shares(network: UNet) -> dict[int, float]:
    """Weight energy share of each level whose decoder block reads stacked maps."""
    shares: dict[int, float] = {}
    for level, join in joins_of(network).items():
        block, width = network.decoder[level], network.channels[level]
        if join.channels == width or not isinstance(block, ConvBlock):
            continue
        first = block.units[0]
        assert isinstance(first, ConvUnit)
        shares[level] = energy_share(weight_of(first.conv), width)
    return shares


def gradient_shares(network: UNet, loss: LossFunction, batches: Sequence[Batch]) -> dict[int, float]:
    """Gradient share of each level.

    Args:
        network: Measured in evaluation mode.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``; squared norms are summed over them.

    Returns:
        Level to share in [0, 1]; nan where neither map has a gradient.
    """
    joins = joins_of(network)
    squares = {level: torch.zeros(2, dtype=torch.float64) for level in joins}
    for images, labels in batches:
        with evaluating(network), torch.enable_grad(), _inputs_of(joins) as inputs:
            value = loss(network, images, labels)
            flat = [tensor for level in joins for tensor in inputs[level]]
            gradients = torch.autograd.grad(value, flat, materialize_grads=True)
        for index, level in enumerate(joins):
            pair = gradients[2 * index : 2 * index + 2]
            squares[level] += torch.stack([gradient.double().square().sum().cpu() for gradient in pair])
    norms = {level: square.sqrt() for level, square in squares.items()}
    return {level: float(norm[1] / norm.sum()) for level, norm in norms.items()}


@contextmanager
def _inputs_of(joins: Mapping[int, SkipJoin]) -> Generator[dict[int, tuple[Tensor, Tensor]]]:
    """Keep u and z of each join as tensors that take gradients, also where the skip's gradient is cut behind z."""
    inputs: dict[int, tuple[Tensor, Tensor]] = {}

    def watch(level: int) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            upsampled, skip = (x.view_as(x) if x.requires_grad else x.detach().requires_grad_() for x in arguments)
            inputs[level] = upsampled, skip
            return inputs[level]

        return hook

    hooks = [join.register_forward_pre_hook(watch(level)) for level, join in joins.items()]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def gate_means(network: UNet, batches: Sequence[Batch]) -> dict[int, float]:
    """Mean factor that the gate of each level puts on its encoder map; levels without a gate are left out.

    Args:
        network: Measured in evaluation mode.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.

    Returns:
        In (0, 1) for attention and squeeze-excitation, above 0 for the scalar gate.
    """
    gates = {level: join.gate for level, join in joins_of(network).items() if join.gate is not None}
    means = {level: float(functional.softplus(g.weight)) for level, g in gates.items() if isinstance(g, ScalarGate)}
    last = {level: g.psi for level, g in gates.items() if isinstance(g, AttentionGate)}
    last |= {level: g.excite for level, g in gates.items() if isinstance(g, SqueezeExcitation)}
    if not last:
        return means
    found: dict[int, list[Tensor]] = {level: [] for level in last}
    with evaluating(network), captured({str(level): module for level, module in last.items()}) as logits:
        for images, _ in batches:
            network(images)
            for level in last:
                found[level].append(torch.sigmoid(logits[str(level)]).mean())
    return means | {level: float(torch.stack(each).mean()) for level, each in found.items()}


def probe(context: ProbeContext) -> ProbeResult:
    """Measure how a run's network uses its long skips.

    Raises:
        NotMeasurableError: If no long skip joins two maps.
    """
    network = context.network
    levels = list(joins_of(network))
    if not levels:
        raise NotMeasurableError("no long skip of this network joins two maps")
    measures = {
        "weight energy": weight_shares(network),
        "gradient": gradient_shares(network, context.loss, context.batches),
        "gate mean": gate_means(network, context.batches),
    }
    series = [Series(name, [found.get(level) for level in levels]) for name, found in measures.items() if found]
    figure = Figure(
        "bars", "Share of the long skip", "level", "share", series, [f"L{level}" for level in levels], reference=0.5
    )
    values = {name.replace(" ", "_"): {f"L{k}": v for k, v in found.items()} for name, found in measures.items()}
    return ProbeResult(values, [figure], NOTE)
