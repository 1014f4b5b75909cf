import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.config import NetworkSettings
from segmentation.model.architecture import Architecture
from segmentation.model.unet import UNet
from segmentation.probes.context import Batch, NotMeasurableError, ProbeContext
from segmentation.probes.curvature import HessianProduct, gradient_lipschitz, hutchinson, measure_curvature, probe
from segmentation.training.losses import build_loss

NOWHERE = [(torch.zeros(1), torch.zeros(1))]
DICE_CE = build_loss("dice_ce")


class Quadratic(nn.Module):
    """Loss w'Aw / 2 + b'w of one matrix of weights."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix
        self.weight = nn.Parameter(torch.linspace(-1, 1, len(matrix))[None])
        self.bias = nn.Parameter(torch.ones(len(matrix)))

    def forward(self) -> Tensor:
        return (self.weight @ self.matrix @ self.weight.T).sum() / 2 + (self.bias * self.weight).sum()


def itself(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return network()


def segmentation_loss(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    return DICE_CE(network(images), labels)


def symmetric(size: int) -> Tensor:
    drawn = torch.randn(size, size, generator=torch.Generator().manual_seed(3))
    return (drawn + drawn.T) / 2


@pytest.fixture
def small() -> tuple[UNet, list[Batch]]:
    settings = NetworkSettings(depth=1, width=2, activation="tanh", convs=1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 1, 6, 6, generator=generator)
    labels = (images[:, 0] > 0).long()
    return UNet(settings, 2, 1, 2), [(images[:2], labels[:2]), (images[2:], labels[2:])]


def test_volumes_have_the_hessian_of_their_weights_whatever_their_layout_in_memory():
    plan = NetworkSettings(depth=2, width=4)
    built = Architecture(plan, 3, 1, 2, [[2, 2, 2]] * 2, [[3, 3, 3]] * 3).build()
    plain = UNet(plan, 3, 1, 2)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 16, 16, 16, generator=generator)
    batches = [(images, (images[:, 0] > 0).long())]
    one, other = (HessianProduct(network.eval(), segmentation_loss, batches) for network in (built, plain))
    v, w = torch.randn(2, one.size, generator=generator)
    torch.testing.assert_close(one(v), other(v), atol=1e-4, rtol=1e-3)
    assert float(v @ one(w)) == pytest.approx(float(w @ one(v)), rel=1e-3)


def dense_hessian(network: nn.Module, batches: list[Batch]) -> np.ndarray:
    """The whole Hessian of the mean loss over the weights with more than one axis, by torch's own functional tools."""
    names = [name for name, p in network.named_parameters() if p.ndim > 1]
    fixed = {name: p.detach() for name, p in network.named_parameters() if p.ndim <= 1}

    def loss(*weights: Tensor) -> Tensor:
        state = fixed | dict(zip(names, weights, strict=True))
        outputs = [DICE_CE(torch.func.functional_call(network, state, (x,)), y) for x, y in batches]
        return torch.stack(outputs).mean()

    weights = tuple(network.get_parameter(name).detach() for name in names)
    blocks = torch.autograd.functional.hessian(loss, weights)
    rows = [
        torch.cat([part.reshape(weight.numel(), -1) for part in row], dim=1)
        for row, weight in zip(blocks, weights, strict=True)
    ]
    return torch.cat(rows).double().numpy()


def test_quadratic_has_the_eigenvalues_and_the_trace_of_its_matrix():
    matrix = symmetric(30)
    eigenvalues = np.linalg.eigvalsh(matrix.double().numpy())
    found = measure_curvature(Quadratic(matrix), itself, NOWHERE, samples=300, tolerance=1e-4)
    assert found.largest == pytest.approx(eigenvalues[-1], rel=1e-3)
    assert found.smallest == pytest.approx(eigenvalues[0], rel=1e-3)
    assert found.ratio == pytest.approx(abs(eigenvalues[0] / eigenvalues[-1]), rel=2e-3)
    assert abs(found.trace - eigenvalues.sum()) < 4 * found.trace_error


def test_small_network_agrees_with_its_dense_hessian(small: tuple[UNet, list[Batch]]):
    network, batches = small
    hessian = dense_hessian(network, batches)
    eigenvalues = np.linalg.eigvalsh(hessian)
    found = measure_curvature(network, segmentation_loss, batches, tolerance=1e-3, samples=40)
    assert found.largest == pytest.approx(eigenvalues[-1], rel=1e-2)
    assert found.smallest == pytest.approx(eigenvalues[0], rel=1e-2)
    assert abs(found.trace - hessian.trace()) < 4 * found.trace_error


def test_product_is_that_of_the_dense_hessian_with_one_batch_or_two(small: tuple[UNet, list[Batch]]):
    network, batches = small
    for chosen in (batches[:1], batches):
        product = HessianProduct(network, segmentation_loss, chosen)
        vector = torch.randn(product.size, generator=torch.Generator().manual_seed(0))
        expected = dense_hessian(network, chosen) @ vector.double().numpy()
        np.testing.assert_allclose(product(vector).numpy(), expected, atol=2e-4)


def test_biases_are_left_out():
    assert HessianProduct(Quadratic(symmetric(5)), itself, NOWHERE).size == 5


def test_hutchinson_is_exact_for_a_diagonal_matrix():
    product = HessianProduct(Quadratic(torch.diag(torch.tensor([4.0, -1.0, 2.0]))), itself, NOWHERE)
    trace, error = hutchinson(product, 5, torch.Generator().manual_seed(0))
    assert trace == pytest.approx(5)
    assert error == pytest.approx(0, abs=1e-6)


def test_standard_error_of_the_trace_is_that_of_repeated_estimates():
    product = HessianProduct(Quadratic(symmetric(10)), itself, NOWHERE)
    generator = torch.Generator().manual_seed(0)
    found = [hutchinson(product, 10, generator) for _ in range(200)]
    assert np.mean([error for _, error in found]) == pytest.approx(np.std([trace for trace, _ in found]), rel=0.15)


def test_a_linear_loss_has_no_curvature():
    product = HessianProduct(Quadratic(torch.zeros(4, 4)), itself, NOWHERE)
    assert not product(torch.ones(4)).any()


def test_mode_is_restored(small: tuple[UNet, list[Batch]]):
    network, batches = small
    measure_curvature(network.train(), segmentation_loss, batches[:1], samples=2, tolerance=0.5)
    assert network.training


def test_lipschitz_along_an_eigenvector_is_its_eigenvalue():
    network = Quadratic(torch.diag(torch.tensor([4.0, 1.0])))
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 0.0]]))
        network.bias.zero_()
    before = network.weight.clone()
    assert gradient_lipschitz(network, itself, NOWHERE, step=0.1) == pytest.approx(4, rel=1e-4)
    assert torch.equal(network.weight, before)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(SkipSegError, match="no eigenvalue within 1 restarts"):
        measure_curvature(Quadratic(symmetric(200)), itself, NOWHERE, tolerance=1e-12, restarts=1)
    with pytest.raises(SkipSegError, match="no finite curvature"):
        measure_curvature(Quadratic(torch.full((3, 3), float("nan"))), itself, NOWHERE)
    with pytest.raises(NotMeasurableError, match="the loss is flat"):
        measure_curvature(Quadratic(torch.zeros(3, 3)), itself, NOWHERE)


@pytest.mark.slow
def test_probe_measures_start_and_end_of_a_run(context: ProbeContext):
    values = probe(context).values
    assert values["now"]["largest"] > values["now"]["smallest"]
    assert values["start"]["products"] > 0
    assert values["gradient_lipschitz"] > 0
