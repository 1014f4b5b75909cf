import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segmentation.config import NetworkSettings
from segmentation.model.gates import AttentionGate, SqueezeExcitation
from segmentation.model.unet import UNet
from segmentation.probes.context import NotMeasurableError, ProbeContext
from segmentation.probes.share import gate_means, gradient_shares, joins_of, probe, weight_shares

IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
BATCHES = [(IMAGES, IMAGES), (IMAGES + 1, IMAGES)]


def loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return network(images).square().sum()


def build(**settings: Any) -> UNet:
    return UNet(NetworkSettings(depth=2, width=4, **settings), 2, 1, 2).train()


def first_conv(network: UNet, level: int) -> Tensor:
    return network.get_parameter(f"decoder.{level}.units.0.0.weight")


def test_weight_share_counts_the_channels_of_the_skip():
    network = build()
    weight = first_conv(network, 0)
    assert weight.shape[1] == 8  # 4 upsampled, then 4 of the skip
    with torch.no_grad():
        weight[:, :4], weight[:, 4:] = 1.0, 2.0
    shares = weight_shares(network)
    assert shares[0] == pytest.approx(4 / (1 + 4))
    assert shares[1] == pytest.approx(0.5, abs=0.1)  # as drawn


@pytest.mark.parametrize(("kind", "levels"), [("gated", [0, 1]), ("se", [0, 1]), ("add", []), ("none", [])])
def test_weight_share_exists_where_maps_are_stacked(kind: Any, levels: list[int]):
    assert list(weight_shares(build(long_skip=kind))) == levels


def test_gradient_share_of_a_sum_is_one_half():
    assert gradient_shares(build(long_skip="add"), loss, BATCHES) == pytest.approx({0: 0.5, 1: 0.5})


def test_gradient_share_equals_that_of_finite_differences():
    network = build(activation="tanh", long_skip_levels={1: "none"}).double()
    join = joins_of(network)[0]
    images = IMAGES[:1, :, :4, :4].double()

    def value(side: int, direction: Tensor | None, step: float) -> float:
        def hook(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...] | None:
            if direction is None:
                return None
            return tuple(x + step * direction if index == side else x for index, x in enumerate(inputs))

        handle = join.register_forward_pre_hook(hook)
        found = float(loss(network.eval(), images, images).detach())
        handle.remove()
        return found

    norms: list[float] = []
    for side in (0, 1):
        squares = 0.0
        for index in range(4 * 4 * 4):
            direction = torch.zeros(4 * 4 * 4, dtype=torch.float64)
            direction[index] = 1
            direction = direction.view(1, 4, 4, 4)
            squares += ((value(side, direction, 1e-4) - value(side, direction, -1e-4)) / 2e-4) ** 2
        norms.append(math.sqrt(squares))
    assert gradient_shares(network, loss, [(images, images)])[0] == pytest.approx(norms[1] / sum(norms), rel=1e-5)


def test_gradient_share_is_seen_also_where_the_skip_is_cut_off_from_the_encoder():
    whole, cut = (gradient_shares(build(long_skip_gradient=g), loss, BATCHES) for g in ("both", "forward_only"))
    assert cut == pytest.approx(whole)


def test_gradient_share_leaves_mode_and_hooks_as_they_were():
    network = build()
    before = network(IMAGES)
    gradient_shares(network, loss, BATCHES)
    assert network.training
    assert torch.equal(network(IMAGES), before)


def test_scalar_gate_starts_at_one():
    assert gate_means(build(long_skip="gated_scalar"), BATCHES) == pytest.approx({0: 1.0, 1: 1.0})


def test_attention_gate_is_averaged_over_voxels_and_batches():
    network = build(long_skip="gated", norm="none").eval()
    inputs: list[tuple[Tensor, Tensor]] = []
    join = joins_of(network)[1]
    gate = join.gate
    assert isinstance(gate, AttentionGate)
    handle = join.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments))
    for images, _ in BATCHES:
        network(images)
    handle.remove()
    expected = torch.stack([gate.attention(*each).mean() for each in inputs]).mean()
    assert gate_means(network, BATCHES)[1] == pytest.approx(expected.item())


def test_squeeze_gate_without_weights_passes_one_half():
    network = build(long_skip="se")
    for join in joins_of(network).values():
        assert isinstance(join.gate, SqueezeExcitation)
        for parameter in join.gate.excite.parameters():
            nn.init.zeros_(parameter)
    assert gate_means(network, BATCHES) == pytest.approx({0: 0.5, 1: 0.5})


def test_probe_reports_all_three(context: ProbeContext):
    result = probe(context)
    assert set(result.values) == {"weight_energy", "gradient", "gate_mean"}
    assert 0 < result.values["gradient"]["L0"] < 1
    assert result.values["gate_mean"] == {}
    assert [series.name for series in result.figures[0].series] == ["weight energy", "gradient"]


@pytest.mark.parametrize("kind", ["none", "nested"])
def test_probe_needs_a_join(context: ProbeContext, kind: Any):
    with pytest.raises(NotMeasurableError, match="no long skip of this network joins"):
        probe(replace(context, trained=build(long_skip=kind)))
