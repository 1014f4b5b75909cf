"""Similarity of representations: linear CKA (Kornblith et al. 2019, arXiv:1905.00414) with the unbiased HSIC.

With n samples and features X and Y, K = XX', L = YY', and K~, L~ the same with zero diagonals (Song et al. 2012),

    HSIC1(K, L) = [tr(K~L~) + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~L~1] / (n (n-3)),
    CKA = sum HSIC1(K, L) / sqrt(sum HSIC1(K, K) sum HSIC1(L, L)),

the sums running over mini-batches (Nguyen et al. 2021, arXiv:2010.15327). A sample is a voxel: the same random places
are read from each map. CKA is 1 for features that differ by a rotation and a scale, and about 0 for independent ones,
where the estimate may fall slightly below 0.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segmentation import SkipSegError
from segmentation.figures import Figure, Series
from segmentation.model.order import evaluating
from segmentation.probes.context import ProbeContext, ProbeResult
from segmentation.probes.stages import sample_stages, stages

SAMPLES = 512
"""Voxels drawn from each batch; below some hundred the estimate is too noisy to be read."""
NOTE = (
    "1: the two maps hold the same information up to rotation and scale; about 0: unrelated. Samples are voxels of "
    "training patches, the same places in every map. A large similarity of encoder and decoder at one level says that "
    "the skip brings little that the decoder has not; it does not say that the network does not use it."
)


def hsic(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased HSIC1 of two Gram matrices, shape ``(n, n)``, of at least 4 samples; their diagonals do not count.

    Raises:
        SkipSegError: If there are fewer than 4 samples.

    Examples:
        >>> features = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
        >>> round(hsic(features @ features.T, features @ features.T).item(), 6)
        2.166667
    """
    n = len(first)
    if n < 4:
        raise SkipSegError(f"HSIC1 needs at least 4 samples, got {n}; draw more voxels")
    off = ~torch.eye(n, dtype=torch.bool, device=first.device)
    k, other = (matrix.double() * off for matrix in (first, second))
    rows, columns = k.sum(dim=0), other.sum(dim=0)
    correction = rows.sum() * columns.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows @ columns)
    return ((k * other).sum() + correction) / (n * (n - 3))


def cka(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Linear CKA of two representations of the same samples.

    Args:
        first: Features of each mini-batch, shapes ``(n, C)``.
        second: The other features of the same samples, shapes ``(n, C')``.

    Returns:
        At most about 1; nan if either does not vary.

    Raises:
        SkipSegError: If a mini-batch has fewer than 4 samples.

    Examples:
        >>> x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
        >>> round(cka([x], [3 * x.flip(1)]), 4)
        1.0
    """
    return float(cka_matrix([{"a": a, "b": b} for a, b in zip(first, second, strict=True)], ["a"], ["b"])[0, 0])


def cka_matrix(
    batches: Sequence[Mapping[str, Tensor]], rows: Sequence[str], columns: Sequence[str]
) -> NDArray[np.float64]:
    """CKA of each of ``rows`` with each of ``columns``.

    Args:
        batches: Features by name of each mini-batch, shapes ``(n, C)``.
        rows: Names.
        columns: Names.

    Returns:
        Shape ``(len(rows), len(columns))``.

    Raises:
        SkipSegError: If a mini-batch has fewer than 4 samples.
    """
    cross = torch.zeros(len(rows), len(columns), dtype=torch.float64)
    own = dict.fromkeys([*rows, *columns], 0.0)
    for batch in batches:
        grams = {name: _gram(batch[name]) for name in own}
        for name, gram in grams.items():
            own[name] += float(hsic(gram, gram))
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                cross[i, j] += float(hsic(grams[row], grams[column]))
    scale = np.array([[own[row] * own[column] for column in columns] for row in rows])
    varies = np.array([[min(own[row], own[column]) > 0 for column in columns] for row in rows])
    return np.where(varies, cross.numpy() / np.sqrt(np.where(varies, scale, 1)), np.nan)


def _gram(features: Tensor) -> Tensor:
    """Inner products of features, shape ``(n, C)``: centred first, which changes nothing but rounding."""
    centred = features.double() - features.double().mean(dim=0)
    return centred @ centred.T


def compare(
    first: tuple[nn.Module, Mapping[str, nn.Module]],
    second: tuple[nn.Module, Mapping[str, nn.Module]],
    images: Sequence[Tensor],
    samples: int = SAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """CKA between the parts of two networks, or of one network and itself, on the same images.

    Args:
        first: A network and the parts of it that make the rows, by name.
        second: Another and the parts that make the columns.
        images: Mini-batches, shapes ``(B, C, *S)``.
        samples: Voxels drawn from each.
        seed: Source of their places.

    Returns:
        Shape ``(rows, columns)``.
    """
    batches: list[dict[str, Tensor]] = []
    for index, batch in enumerate(images):
        found: dict[str, Tensor] = {}
        for side, (network, modules) in zip("ab", (first, second), strict=True):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)  # both sides see the same places
            with evaluating(network):
                drawn = sample_stages(network, modules, batch, samples, generator)
            found |= {f"{side}/{name}": features for name, features in drawn.items()}
        batches.append(found)
    return cka_matrix(batches, [f"a/{name}" for name in first[1]], [f"b/{name}" for name in second[1]])


def probe(context: ProbeContext) -> ProbeResult:
    """Compare all blocks of a run's network with each other, and encoder with decoder at each level."""
    network = context.network
    blocks, names = stages(network), list(stages(network))
    matrix = compare(
        (network, blocks), (network, blocks), [images for images, _ in context.batches], seed=context.options.seed
    )
    levels = range(len(network.decoder))
    same = [float(matrix[names.index(f"E{level}"), names.index(f"D{level}")]) for level in levels]
    figures = [
        Figure(
            "heatmap", "Similarity of the blocks (linear CKA)", ticks=names, rows=names, values=matrix.tolist(),
            value_label="CKA",
        ),
        Figure(
            "bars", "Encoder and decoder at the same level", "level", "CKA",
            [Series("CKA", same)], [f"L{level}" for level in levels],
        ),
    ]  # fmt: skip
    return ProbeResult({"blocks": names, "cka": matrix.tolist(), "encoder_decoder": same}, figures, NOTE)
