"""Pictures of where a prediction is right and wrong, for people to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from segmentation.metrics.masks import check_label_maps, check_spacing, common_box
from segmentation.runs import atomic_path

COLOURS = {
    "agreement (TP)": (0.34, 0.71, 0.91),
    "false alarm (FP)": (0.84, 0.37, 0.0),
    "missed (FN)": (0.94, 0.89, 0.26),
    "wrong class": (0.80, 0.47, 0.65),
}
"""Sky blue, vermillion, yellow and purple of Okabe and Ito: apart in brightness too, and for the colour-blind."""

OPACITY = 0.55
WINDOW = (1, 99)
"""Percentiles of the shown intensities that become black and white."""

CONTEXT = 0.5
"""Space around the masks in the close-up, in parts of their size on each side."""

FEWEST_PIXELS = 48
"""Smallest side of a close-up."""

BACKDROP = 0.15
"""Gray of the background where no scan is given."""

PANEL_INCHES = 3.6
DPI = 110


def write_overlay(
    path: Path,
    image: NDArray[Any] | None,
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    spacing_mm: Sequence[float],
    title: str,
) -> None:
    """Draw a prediction over its scan: agreement, false alarms, missed voxels, and voxels of the wrong class.

    A picture is shown whole. Of a volume two slices are shown, across the axis with the largest spacing: the one
    with the largest reference area and the one with the most errors. The left panel is the slice with a
    frame, the right one a close-up of the frame. The same input gives the same bytes.

    Args:
        path: PNG file to write.
        image: Intensities, shape ``(*S)`` or ``(C, *S)``; three channels of a picture are averaged, of other
            channels the first is shown. None draws the masks alone.
        prediction: Predicted labels, shape ``(*S)``; a volume with axes towards right, anterior and superior.
        reference: Annotated labels, same shape. Set voxels to be ignored to 0 in both.
        spacing_mm: Distance between voxel centres along each axis, in mm.
        title: Line above the picture. Do not put a patient's name or a path into it.

    Raises:
        SkipSegError: If the label maps differ in shape or are not integer, or the spacing does not fit.
    """
    check_label_maps(prediction, reference)
    check_spacing(reference.shape, spacing_mm)
    gray = np.full(reference.shape, np.nan) if image is None else gray_of(image, reference.ndim)
    planes = _planes(gray, prediction, reference, spacing_mm)
    figure = Figure(figsize=(2 * PANEL_INCHES, PANEL_INCHES * len(planes) + 0.7), dpi=DPI, layout="constrained")
    panels = figure.subplots(len(planes), 2, squeeze=False)
    for (left, right), plane in zip(panels, planes, strict=True):
        _draw(left, right, plane)
    figure.suptitle(title, fontsize=10)
    shown = list(COLOURS.items())[: 4 if agreement(prediction, reference)[3].any() else 3]
    patches = [Patch(color=colour, label=name) for name, colour in shown]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=9)
    with atomic_path(path) as draft:
        FigureCanvasAgg(figure).print_png(draft, metadata={"Software": None})


@dataclass(frozen=True)
class _Plane:
    """What one row of the picture shows: three arrays of shape ``(rows, columns)``.

    Attributes:
        gray: Intensities, nan where there is none.
        prediction, reference: Labels.
        aspect: Height of a pixel over its width.
        name: Line above the row; empty for a picture.
    """

    gray: NDArray[np.floating]
    prediction: NDArray[np.integer]
    reference: NDArray[np.integer]
    aspect: float
    name: str


def gray_of(image: NDArray[Any], dims: int) -> NDArray[np.floating]:
    """One intensity for each voxel, shape ``(*S)``, of an image of shape ``(*S)`` or ``(C, *S)`` with ``dims`` axes."""
    if image.ndim == dims:
        return image.astype(np.float32)
    colour_picture = dims == 2 and image.shape[0] == 3
    return image.mean(axis=0, dtype=np.float32) if colour_picture else image[0].astype(np.float32)


def _planes(
    gray: NDArray[np.floating],
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    spacing_mm: Sequence[float],
) -> list[_Plane]:
    """Cut the planes to show from arrays of shape ``(*S)``: a picture whole, of a volume one or two slices."""
    if reference.ndim == 2:
        return [_Plane(gray, prediction, reference, spacing_mm[0] / spacing_mm[1], "")]
    axis = max(range(3), key=lambda axis: (spacing_mm[axis], axis))
    across = tuple(other for other in range(3) if other != axis)
    area = np.count_nonzero(reference, axis=across)
    errors = np.count_nonzero(prediction != reference, axis=across)
    largest, worst = int(area.argmax()), int(errors.argmax())
    planes: list[_Plane] = []
    for index, reason in {worst: "most errors", largest: "largest reference area"}.items():
        # Radiological view of right-anterior-superior axes: the patient's right is on the left, anterior is up.
        slices = (np.take(array, index, axis).T[::-1, ::-1] for array in (gray, prediction, reference))
        name = f"slice {index + 1} of {reference.shape[axis]}, {reason}"
        planes.append(_Plane(*slices, aspect=spacing_mm[across[1]] / spacing_mm[across[0]], name=name))
    return planes[::-1]


def _draw(left: Axes, right: Axes, plane: _Plane) -> None:
    """Draw the whole plane with a frame on the left, and the overlay inside the frame on the right."""
    rows, columns = _frame(plane)
    gray = _windowed(plane.gray, plane.gray[rows, columns])
    whole = np.repeat(gray[..., np.newaxis], 3, axis=2)
    coloured = whole.copy()
    for (_, colour), mask in zip(COLOURS.items(), agreement(plane.prediction, plane.reference), strict=True):
        coloured[mask] = (1 - OPACITY) * coloured[mask] + OPACITY * np.asarray(colour)
    left.imshow(whole, aspect=plane.aspect, interpolation="nearest")
    right.imshow(coloured[rows, columns], aspect=plane.aspect, interpolation="nearest")
    if coloured[rows, columns].shape != coloured.shape:
        corner, size = (columns.start - 0.5, rows.start - 0.5), (columns.stop - columns.start, rows.stop - rows.start)
        left.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=0.8))
    left.set_title(plane.name, fontsize=8, loc="left")
    for panel in (left, right):
        panel.set_axis_off()


def agreement(prediction: NDArray[np.integer], reference: NDArray[np.integer]) -> list[NDArray[np.bool_]]:
    """Masks of agreement, false alarm, missed and wrong class, in the order of :data:`COLOURS`, shape as given."""
    predicted, annotated = prediction != 0, reference != 0
    same = prediction == reference
    return [predicted & same, predicted & ~annotated, annotated & ~predicted, predicted & annotated & ~same]


def _frame(plane: _Plane) -> tuple[slice, slice]:
    """Rows and columns of the close-up: the box of both masks with some space around it."""
    box = common_box(plane.prediction != 0, plane.reference != 0)
    rows, columns = map(_widened, box, plane.reference.shape)
    return rows, columns


def _widened(side: slice, size: int) -> slice:
    """One side of the frame, within 0 to ``size``; everything when there is nothing to frame."""
    if side.stop == side.start:
        return slice(0, size)
    length = max(FEWEST_PIXELS, round((side.stop - side.start) * (1 + 2 * CONTEXT)))
    start = max(0, min((side.start + side.stop - length) // 2, size - length))
    return slice(start, min(size, start + length))


def _windowed(gray: NDArray[np.floating], shown: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale intensities, shape ``(rows, columns)``, to [0, 1] by the percentiles of those in the close-up."""
    finite = shown[np.isfinite(shown)]
    if finite.size == 0:
        return np.full(gray.shape, BACKDROP)
    low, high = np.percentile(finite, WINDOW)
    return np.nan_to_num((gray - low) / max(high - low, np.finfo(np.float32).tiny)).clip(0, 1)
