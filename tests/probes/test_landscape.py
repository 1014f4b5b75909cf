from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segmentation.model.chain import Chain
from segmentation.probes.context import ProbeContext, on_batches
from segmentation.probes.landscape import filter_direction, loss_line, loss_plane, probe, survey
from segmentation.probes.weights import flat_weights, kept_weights


def squared(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return (network(images) - labels).square().mean()


def energy(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Half the squared norm of the weights, whatever the batch."""
    return sum((p.square().sum() / 2 for p in network.parameters()), torch.zeros(()))


EMPTY = [(torch.zeros(1), torch.zeros(1))]


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(2, 1, 6, 6, generator=generator), torch.randn(2, 1, 6, 6, generator=generator))] * 2


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def unchanged(network: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_direction_has_the_norm_of_every_filter_and_leaves_norms_and_biases():
    chain = Chain(2, 3, 1, 1, norm="batch")
    direction = filter_direction(chain, torch.Generator().manual_seed(0))
    for (name, parameter), d in zip(chain.named_parameters(), direction, strict=True):
        if parameter.ndim == 1:
            assert not d.any(), name
            continue
        for own, drawn in zip(parameter, d, strict=True):
            assert drawn.norm().item() == pytest.approx(own.norm().item(), rel=1e-5)


def test_direction_of_a_filter_of_zeros_is_zero():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight[0])
    weight, _ = filter_direction(layer, torch.Generator().manual_seed(0))
    assert not weight[0].any()
    assert weight[1].any()


def test_line_through_a_quadratic_is_its_parabola():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0]]))
    at = np.array([-1.0, 0.0, 2.0])
    found = loss_line(layer, energy, EMPTY, [torch.tensor([[1.0, 0.0]])], at)
    np.testing.assert_allclose(found, [(2**2 + 16) / 2, 25 / 2, (5**2 + 16) / 2])


def test_plane_has_the_second_direction_in_its_rows():
    layer = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(layer.weight)
    pair = ([torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.0, 2.0]])])
    found = loss_plane(layer, energy, EMPTY, pair, np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(found, [[0.0, 0.5, 2.0], [2.0, 2.5, 4.0]])


def test_weights_buffers_and_modes_are_restored_bit_for_bit(batches: Any):
    chain = Chain(3, 4, 1, 1, short="add", norm="batch").train()
    chain.stem.eval()
    before = state(chain)
    survey(chain, squared, batches, initial_loss=1.0, pairs=1, points=3, line_points=3)
    assert unchanged(chain, before)
    assert chain.training
    assert not chain.stem.training


def test_weights_are_restored_when_the_loss_fails(batches: Any):
    chain = Chain(1, 2, 1, 1)
    before = state(chain)

    def broken(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        loss_line(chain, broken, batches, filter_direction(chain, torch.Generator()), np.array([1.0]))
    assert unchanged(chain, before)


def test_batch_normalisation_uses_its_running_statistics(batches: Any):
    chain = Chain(2, 3, 1, 1, norm="batch").train()
    found = survey(chain, squared, batches, initial_loss=1.0, pairs=1, points=3, line_points=3)
    assert found.centre == pytest.approx(on_batches(chain.eval(), squared, batches))


def test_survey_takes_as_many_pairs_as_asked_and_gives_their_spread(batches: Any):
    chain = Chain(2, 3, 1, 1)
    found = survey(chain, squared, batches, initial_loss=5.0, pairs=3, points=5, line_points=7)
    assert found.planes.shape == (3, 5, 5)
    assert found.lines.shape == (3, 7)
    assert np.ptp(found.planes[:, 0, 0]) > 0
    np.testing.assert_allclose(found.planes[:, 2, 2], found.centre)
    np.testing.assert_allclose(found.lines[:, 3], found.centre)
    np.testing.assert_allclose(found.lines[:, [0, -1]], found.planes[:, 2, [0, -1]])  # the line is a row of its plane
    rises = [terrain.rise_one for terrain in found.terrain]
    assert found.spread()["rise_one"] == {"median": np.median(rises), "low": min(rises), "high": max(rises)}


def test_the_same_seed_gives_the_same_landscape(batches: Any):
    chain = Chain(2, 3, 1, 1)
    one, same, other = (survey(chain, squared, batches, 5.0, 1, 3, 3, seed).planes for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_loss_that_is_not_a_number_counts_as_infinite():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(layer.weight)

    def root(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return network.get_parameter("weight").sum().sqrt()

    np.testing.assert_array_equal(
        loss_line(layer, root, EMPTY, [torch.ones(1, 1)], np.array([-1.0, 4.0])), [np.inf, 2.0]
    )


def test_kept_weights_yields_the_parameters_in_order():
    layer = nn.Linear(2, 1)
    with kept_weights(layer) as home:
        assert [torch.equal(a, b) for a, b in zip(home, layer.parameters(), strict=True)] == [True, True]


def test_flat_weights_leave_out_biases():
    assert flat_weights(nn.Linear(3, 2)).shape == (6,)


@pytest.mark.slow
def test_probe_surveys_a_run(context: ProbeContext):
    before = state(context.network)
    result = probe(context)
    assert result.values["loss"] == pytest.approx(on_batches(context.network, context.loss, context.batches), rel=1e-5)
    assert [figure.kind for figure in result.figures] == ["lines", "surface", "lines"]
    assert unchanged(context.network, before)
