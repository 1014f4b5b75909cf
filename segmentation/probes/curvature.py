"""Curvature of the loss at the trained weights: largest and smallest eigenvalue and trace of the Hessian.

The Hessian H is that of the loss over the parameters with more than one axis; it is never formed, only multiplied
by vectors (Pearlmutter 1994), by differentiating twice. Its extreme eigenvalues come from Lanczos' method (ARPACK),
its trace from Hutchinson's estimator, tr H = E v'Hv with v of random signs (Hutchinson 1990). A large
lambda_max is a sharp, badly conditioned place; |lambda_min / lambda_max| is how far from convex it is (Li et al.
2018, arXiv:1712.09913). The gradient's Lipschitz constant along the gradient step follows Santurkar et al. 2018
(arXiv:1805.11604): the largest |g(w + t d) - g(w)| / |t d|. All is computed with channels first, since the
normalisation that is fast with channels last has no second derivatives.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.figures import Figure, Series
from segmentation.model.order import evaluating
from segmentation.probes.context import Batch, LossFunction, NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.modes import settle
from segmentation.probes.weights import as_direction, kept_weights, move_to

NOTE = (
    "Measured in evaluation mode on training batches, over weights without biases and normalisations. lambda_max tells "
    "networks apart; |lambda_min / lambda_max| often does not. Scaling a layer before a normalisation changes these "
    "numbers and not the network, so compare networks of one kind."
)


@dataclass(frozen=True)
class Curvature:
    """Extremes and trace of a Hessian.

    Attributes:
        largest, smallest: Extreme eigenvalues.
        trace: Estimated trace.
        trace_error: Its standard error.
        products: Hessian-vector products that were computed.
    """

    largest: float
    smallest: float
    trace: float
    trace_error: float
    products: int

    @property
    def ratio(self) -> float:
        """How far from convex: |lambda_min / lambda_max|."""
        return abs(self.smallest / self.largest)


class HessianProduct:
    """The Hessian of a mean loss, as something that multiplies vectors.

    Args:
        network: In evaluation mode. Its weights are laid out with channels first; their values stay.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
    """

    def __init__(self, network: nn.Module, loss: LossFunction, batches: Sequence[Batch]) -> None:
        network.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue] - torch's stubs lack it
        self.network, self.loss, self.batches = network, loss, batches
        self.parameters = [parameter for parameter in network.parameters() if parameter.ndim > 1]
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.products = 0
        # The graph of one batch is kept; those of several would not fit into memory together.
        self.kept = self.gradient(batches[0]) if len(batches) == 1 else None

    def gradient(self, batch: Batch) -> Tensor:
        """Gradient, shape ``(P,)``, of a batch (as of the class), ready to be differentiated again."""
        value = self.loss(self.network, *batch)
        return _flatten(torch.autograd.grad(value, self.parameters, create_graph=True, materialize_grads=True))

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply a vector, shape ``(P,)``."""
        self.products += 1
        total = torch.zeros_like(vector)
        for batch in self.batches:
            gradient = self.gradient(batch) if self.kept is None else self.kept
            if gradient.requires_grad:  # the loss may be linear in every weight
                total += _flatten(
                    torch.autograd.grad(gradient @ vector, self.parameters, retain_graph=True, materialize_grads=True)
                )
        return total / len(self.batches)


def _flatten(parts: Sequence[Tensor]) -> Tensor:
    """Join tensors end to end, shape ``(P,)``."""
    return torch.cat([part.flatten() for part in parts])


def measure_curvature(
    network: nn.Module,
    loss: LossFunction,
    batches: Sequence[Batch],
    seed: int = 0,
    tolerance: float = 1e-2,
    samples: int = 30,
    restarts: int = 100,
) -> Curvature:
    """Measure the Hessian's extreme eigenvalues and its trace.

    Args:
        network: In any mode; measured in evaluation mode. Its parameters must take gradients.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``; the Hessian is that of their mean loss.
        seed: Source of Lanczos' first vector and of Hutchinson's.
        tolerance: Relative accuracy of the eigenvalues.
        samples: Vectors of Hutchinson's estimator.
        restarts: Most restarts of Lanczos' method.

    Raises:
        NotMeasurableError: If the loss is not finite, or flat.
        SkipSegError: If Lanczos' method does not settle.

    Examples:
        The loss (3 x^2 - y^2) / 2 of the two weights x and y:

        >>> def saddle(network, images, labels):
        ...     return (torch.tensor([3.0, -1.0]) * network.weight[0] ** 2).sum() / 2
        >>> found = measure_curvature(nn.Linear(2, 1, bias=False), saddle, [(torch.zeros(1), torch.zeros(1))])
        >>> round(found.largest, 4), round(found.smallest, 4), round(found.trace, 4)
        (3.0, -1.0, 2.0)
    """
    with evaluating(network):
        product = HessianProduct(network, loss, batches)
        generator = torch.Generator().manual_seed(seed)
        start = torch.randn(product.size, generator=generator)
        first = product(start.to(product.parameters[0]))
        if not bool(torch.isfinite(first).all()):
            raise NotMeasurableError("the loss has no finite curvature at these weights: training diverged")
        if not bool(first.any()):  # of a random vector: Lanczos' method could not start
            raise NotMeasurableError("the loss is flat at these weights: the network is dead")
        largest, smallest = (
            _extreme(product, which, start.double().numpy(), tolerance, restarts) for which in ("LA", "SA")
        )
        trace, error = hutchinson(product, samples, generator)
    return Curvature(largest, smallest, trace, error, product.products)


def _extreme(product: HessianProduct, which: str, start: NDArray[np.float64], tolerance: float, restarts: int) -> float:
    """Largest (``LA``) or smallest (``SA``) eigenvalue, from a first vector of shape ``(P,)``."""
    like = product.parameters[0]

    def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multiply a vector of shape ``(P,)`` or ``(P, 1)``."""
        return product(torch.from_numpy(vector.reshape(-1)).to(like)).cpu().double().numpy()

    # scipy's stubs describe neither the arguments of an operator nor a tolerance that is a fraction.
    make: Any = LinearOperator
    solve: Any = eigsh
    operator = make((product.size, product.size), matvec=multiply, dtype=np.float64)
    try:
        found = solve(operator, k=1, which=which, v0=start, tol=tolerance, maxiter=restarts, return_eigenvectors=False)
    except ArpackNoConvergence:
        raise SkipSegError(
            f"Lanczos' method found no eigenvalue within {restarts} restarts; ask for a tolerance above {tolerance}"
        ) from None
    return float(found[0])


def hutchinson(product: HessianProduct, samples: int, generator: torch.Generator) -> tuple[float, float]:
    """Estimate the trace with its standard error, from ``samples`` vectors of random signs.

    Args:
        product: Multiplies vectors of shape ``(P,)``.
        samples: At least 2.
        generator: Source of the signs.
    """
    found: list[float] = []
    for _ in range(samples):
        signs = (torch.randint(0, 2, (product.size,), generator=generator) * 2 - 1).to(product.parameters[0])
        found.append(float(signs.double() @ product(signs).double()))
    return float(np.mean(found)), float(np.std(found, ddof=1) / math.sqrt(samples))


def gradient_lipschitz(
    network: nn.Module, loss: LossFunction, batches: Sequence[Batch], step: float, points: int = 4
) -> float:
    """Largest change of the gradient per distance on the way down the gradient, up to a step of ``step`` times it.

    Args:
        network: Left as it was.
        loss: Loss of the network on a batch.
        batches: Images, shape ``(B, C, *S)``, and labels, shape ``(B, *S)``.
        step: Longest step, as a learning rate.
        points: Where it is measured, evenly up to ``step``.

    Returns:
        max over t of |g(w + t d) - g(w)| / |t d| with d = -g(w); nan where the gradient is zero.
    """
    with kept_weights(network) as home:
        start = _mean_gradient(network, loss, batches)
        direction = as_direction(network, -start)
        found: list[float] = []
        for t in np.linspace(0, step, points + 1)[1:]:
            move_to(network, home, [(float(t), direction)])
            change = _mean_gradient(network, loss, batches) - start
            found.append(float(change.norm() / (t * start.norm())))
    return max(found)


def _mean_gradient(network: nn.Module, loss: LossFunction, batches: Sequence[Batch]) -> Tensor:
    """Gradient of the mean loss over the parameters with more than one axis, shape ``(P,)``."""
    parameters = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    each = [
        _flatten(torch.autograd.grad(loss(network, *batch), parameters, materialize_grads=True)) for batch in batches
    ]
    return torch.stack(each).mean(dim=0)


def probe(context: ProbeContext) -> ProbeResult:
    """Measure a run's curvature on its training batches, at the start and now."""
    rate, seed = context.settings.optim.learning_rate, context.options.seed
    start, now = (
        measure_curvature(network.requires_grad_(True), context.loss, context.batches, seed)
        for network in (settle(context.initial(), context.batches), copy.deepcopy(context.network))
    )
    values = {name: vars(found) | {"ratio": found.ratio} for name, found in (("start", start), ("now", now))}
    lipschitz = gradient_lipschitz(context.network, context.loss, context.batches, rate)
    bars = [Series(name, [found.largest, -found.smallest]) for name, found in (("start", start), ("now", now))]
    figure = Figure(
        "bars",
        "Curvature of the loss",
        "",
        "eigenvalue of the Hessian",
        bars,
        ["lambda_max", "-lambda_min"],
        log_y=True,
    )
    return ProbeResult(values | {"gradient_lipschitz": lipschitz}, [figure], NOTE)
