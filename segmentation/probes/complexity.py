"""Complexity of a task: texture, contrast and boundary of its structures, measured without any network.

    texture KL      (KL(p|q) + KL(q|p)) / 2 of the histograms p and q of uniform local binary patterns inside and
                    outside the structure, each share raised by 0.001; small: the texture does not tell them apart
                    (Kamath et al. 2023, doi:10.1007/978-3-031-43901-8_29; symmetrised here)
    contrast        contrast-to-noise ratio |m_f - m_b| / sqrt(s_f^2 + s_b^2) (Patterson and Foster 1983)
    boundary        length / area in 1/mm; in 3-D surface / volume
    thickness_mm    2 area / length, the width of a long strip; in 3-D 2 volume / surface, that of a plate

Patterns are those of Ojala et al. 2002 (doi:10.1109/TPAMI.2002.1017623): 8 points on a circle of radius 1, compared
with the centre; patterns with at most two changes around the circle are counted by their number of ones, 0 to 8, all
others together as 9. A volume is read slice by slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from segmentation.figures import Figure, Series
from segmentation.metrics.surface_elements import surface_elements
from segmentation.probes.context import NotMeasurableError, ProbeContext, ProbeResult
from segmentation.probes.prepared import PreparedCase, prepared_cases

POINTS = 8
PATTERNS = POINTS + 2
"""Uniform patterns by their number of ones, 0 to 8, and one bin for all others."""
FLOOR = 1e-3
"""Raises every share of a histogram: a pattern that a small structure merely happens to lack must not decide."""
TIE = 1e-6
"""Interpolated neighbours that fall short of the centre by less count as equal: rounding makes no texture."""
NOTE = (
    "A structure with a texture or an intensity of its own can be found from coarse features; a thin one with a long "
    "boundary needs fine detail, which long skips carry. The texture of a structure of some dozen voxels is not "
    "measured well: its divergence comes out too large."
)


@dataclass(frozen=True)
class Complexity:
    """Of one structure in one case; nan where it is not defined."""

    texture_kl: float
    contrast: float
    boundary: float
    thickness_mm: float


def uniform_patterns(picture: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Uniform local binary pattern of every pixel.

    Args:
        picture: Intensities, about 0 to 1, shape ``(H, W)``; beyond its border the nearest pixel is repeated.

    Returns:
        Values 0 to 9, shape ``(H, W)``.

    Examples:
        A bright pixel: none of its neighbours reaches it, and all neighbours of the corner reach the corner.

        >>> picture = np.zeros((5, 5))
        >>> picture[2, 2] = 1.0
        >>> uniform_patterns(picture)[2, 2], uniform_patterns(picture)[0, 0]
        (np.uint8(0), np.uint8(8))
    """
    image = picture.astype(np.float64)
    rows, columns = np.indices(image.shape)
    angles = 2 * np.pi * np.arange(POINTS) / POINTS
    ones = np.stack(
        [
            map_coordinates(image, [rows - np.sin(angle), columns + np.cos(angle)], order=1, mode="nearest")
            >= image - TIE
            for angle in angles
        ]
    )
    changes = (ones != np.roll(ones, 1, axis=0)).sum(axis=0)
    return np.where(changes <= 2, ones.sum(axis=0), POINTS + 1).astype(np.uint8)


def symmetric_kl(first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]]) -> float:
    """Mean of the two Kullback-Leibler divergences of histograms, shape ``(K,)``, in nats; counts or shares.

    Examples:
        >>> round(symmetric_kl(np.array([1.0, 3.0]), np.array([3.0, 1.0])), 4)
        0.5469
    """
    p, q = ((h / h.sum() + FLOOR) / (1 + FLOOR * len(h)) for h in (first, second))
    return float(((p - q) * np.log(p / q)).sum() / 2)


def texture_kl(image: NDArray[np.floating[Any]], mask: NDArray[np.bool_], counted: NDArray[np.bool_]) -> float:
    """Symmetrised divergence of the patterns inside and outside a structure.

    Args:
        image: One channel, shape ``(H, W)``, or ``(D, H, W)`` read slice by slice.
        mask: The structure, same shape.
        counted: Voxels that are neither to be ignored, same shape.

    Returns:
        In nats; nan if either side is empty.
    """
    slices = image if image.ndim == 3 else image[None]
    patterns = np.stack([uniform_patterns(each) for each in slices]).reshape(image.shape)
    inside, outside = patterns[mask & counted], patterns[~mask & counted]
    if not (inside.size and outside.size):
        return float("nan")
    return symmetric_kl(*(np.bincount(each, minlength=PATTERNS).astype(np.float64) for each in (inside, outside)))


def contrast(image: NDArray[np.floating[Any]], mask: NDArray[np.bool_], counted: NDArray[np.bool_]) -> float:
    """Contrast-to-noise ratio of a structure.

    Args:
        image: One channel, shape ``(*S)``.
        mask: The structure, same shape.
        counted: Voxels that are not to be ignored, same shape.

    Returns:
        At least 0; nan if either side is empty or neither has any noise.

    Examples:
        >>> image, mask = np.array([0.0, 2.0, 5.0, 9.0]), np.array([False, False, True, True])
        >>> round(contrast(image, mask, np.ones(4, bool)), 4)  # 6 / sqrt(2^2 + 1^2)
        2.6833
    """
    inside, outside = (image[side & counted].astype(np.float64) for side in (mask, ~mask))
    if not (inside.size and outside.size):
        return float("nan")
    noise = np.hypot(inside.std(), outside.std())
    return float(abs(inside.mean() - outside.mean()) / noise) if noise > 0 else float("nan")


def boundary(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> tuple[float, float]:
    """Boundary per area, and mean thickness.

    Args:
        mask: The structure, shape ``(*S)``, 2-D or 3-D.
        spacing_mm: Voxel spacing along each axis.

    Returns:
        Length / area (surface / volume in 3-D) in 1/mm and 2 area / length in mm; nan for an empty mask. The
        boundary is that of :func:`segmentation.metrics.surface_elements`.

    Examples:
        A long strip, 4 pixels wide at 0.5 mm, is 2 mm thick but for its ends:

        >>> strip = np.ones((4, 2000), bool)
        >>> per_area, thickness = boundary(strip, (0.5, 0.5))
        >>> round(per_area, 2), round(thickness, 2)
        (1.0, 2.0)
    """
    if not mask.any():
        return float("nan"), float("nan")
    length = float(surface_elements(mask, spacing_mm)[1].sum())
    area = float(np.count_nonzero(mask) * np.prod(spacing_mm))
    return length / area, 2 * area / length


def measure(
    image: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    value: int,
    spacing_mm: Sequence[float],
    ignore: int | None = None,
) -> Complexity:
    """Measure one structure of one case.

    Args:
        image: One channel, shape ``(*S)``; a 3-D image is read in slices across its first axis.
        labels: Label of every voxel, same shape.
        value: Label of the structure.
        spacing_mm: Voxel spacing along each axis.
        ignore: Label of voxels that count for neither side.
    """
    mask, counted = labels == value, labels != (-1 if ignore is None else ignore)
    return Complexity(texture_kl(image, mask, counted), contrast(image, mask, counted), *boundary(mask, spacing_mm))


def summarise(found: Sequence[Complexity]) -> dict[str, float | None]:
    """Mean of each measure over cases, those without it left out; None if no case has it."""
    means: dict[str, float | None] = {}
    for name in Complexity.__dataclass_fields__:
        known = [value for each in found if np.isfinite(value := getattr(each, name))]
        means[name] = float(np.mean(known)) if known else None
    return means


def probe(context: ProbeContext) -> ProbeResult:
    """Measure every structure of a run's held-out cases, in the first channel, as the network is shown them."""
    cases = prepared_cases(context)
    if not cases:
        raise NotMeasurableError("this run has no held-out case")
    spacing = context.preprocessing.array_spacing_mm

    def each(case: PreparedCase, value: int) -> Complexity:
        return measure(case.image[0], case.labels, value, spacing, len(context.dataset.classes))

    found = {name: [each(case, value) for case in cases] for name, value in context.classes.items()}
    names = [case.name for case in cases]
    values = {
        name: {"mean": summarise(all_cases), "cases": dict(zip(names, map(vars, all_cases), strict=True))}
        for name, all_cases in found.items()
    }
    figures = [
        Figure(
            "bars", title, "structure", unit, [Series("mean over cases", [summarise(f)[key] for f in found.values()])],
            list(found),
        )
        for key, title, unit in (
            ("texture_kl", "Texture inside against outside", "symmetrised KL, nats"),
            ("contrast", "Contrast-to-noise ratio", "ratio"),
            ("thickness_mm", "Mean thickness", "mm (pixels for pictures)"),
        )
    ]  # fmt: skip
    return ProbeResult(values, figures, NOTE)
