from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.probes.context import NotMeasurableError, ProbeContext, on_batches
from segmentation.probes.path import RANDOM_WALK, path_plane, principal_path, probe
from segmentation.probes.weights import flat_weights
from segmentation.training.snapshots import snapshot_files


def distance(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Squared distance of the weights from ones; biases count too, but do not move."""
    return sum(((p - 1).square().sum() for p in network.parameters()), torch.zeros(()))


def test_components_equal_the_eigenvectors_of_the_covariance():
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = principal_path(list(rows))
    values, vectors = np.linalg.eigh(np.cov((rows - rows[-1]).numpy().T))
    for component, vector in zip(path.components, vectors.T[::-1], strict=False):
        assert abs(float(component @ torch.from_numpy(vector.copy()))) == pytest.approx(1)
    assert path.explained == pytest.approx(tuple(values[::-1][:2] / values.sum()))


def test_a_path_in_a_plane_keeps_its_distances():
    corners = torch.tensor([[0.0, 0, 0], [3, 0, 0], [3, 4, 0], [3, 4, 0]])
    points = principal_path(list(corners)).points
    np.testing.assert_allclose(points[-1], 0, atol=1e-12)
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(5)
    assert np.linalg.norm(points[1] - points[2]) == pytest.approx(4)


def test_a_random_walk_in_many_dimensions_seems_to_have_a_path():
    steps = torch.randn(120, 6_000, generator=torch.Generator().manual_seed(0))
    assert principal_path(list(steps.cumsum(dim=0))).explained == pytest.approx(RANDOM_WALK, abs=0.02)


def test_plane_holds_the_loss_of_the_points_on_the_path():
    layer = nn.Linear(2, 1)
    nn.init.zeros_(layer.bias)
    snapshots = [torch.tensor(w) for w in ((0.0, 0.0), (2.0, 0.0), (2.0, 1.0))]
    with torch.no_grad():
        layer.weight.copy_(snapshots[-1])
    path = principal_path(snapshots)
    x, y, plane = path_plane(layer, distance, [(torch.zeros(1), torch.zeros(1))], path, points=41)
    for point, snapshot in zip(path.points, snapshots, strict=True):
        expected = (snapshot - 1).square().sum() + 1  # the bias is 1 away from 1
        column, row = np.abs(x - point[0]).argmin(), np.abs(y - point[1]).argmin()
        assert plane[row, column] == pytest.approx(float(expected), abs=0.25)


@pytest.mark.parametrize(
    ("snapshots", "message"),
    [([torch.zeros(3)] * 2, "at least 3 snapshots"), ([torch.ones(3)] * 4, "the same weights")],
)
def test_what_is_no_path_is_refused(snapshots: list[Tensor], message: str):
    with pytest.raises(SkipSegError, match=message):
        principal_path(snapshots)


def test_snapshots_are_the_weights_of_their_epoch(context: ProbeContext):
    first, last = (load_file(file) for file in snapshot_files(context.folder))
    # Without a moving average the model is the last snapshot, in float16.
    for name, parameter in context.network.named_parameters():
        assert torch.equal(last[name], parameter.detach().half()), name
    assert any(not torch.equal(first[name], last[name]) for name in last)


@pytest.mark.slow
def test_probe_ends_at_the_weights_of_the_model(context: ProbeContext):
    before = flat_weights(context.network)
    values = probe(context).values
    assert values["snapshots"] == ["0000", "0001"]
    assert values["points"][-1] == pytest.approx([0, 0], abs=1e-6)
    # Without a moving average the model is the last snapshot, but for the float16 of the snapshot.
    start, last = (np.linalg.norm(values["points"][index]) for index in (0, 1))
    assert last < 0.05 * start
    here = on_batches(context.network, context.loss, context.batches)
    assert min(map(min, values["loss"])) <= here + 0.1
    assert torch.equal(flat_weights(context.network), before)


def test_probe_needs_snapshots(context: ProbeContext, tmp_path):
    with pytest.raises(NotMeasurableError, match="track_updates"):
        probe(replace(context, folder=tmp_path))
