"""How the slices of a series lie in space: what makes them one volume, and how a broken stack is mended.

Everything here is geometry on numbers that :mod:`segmentation.scans.dicom` has read: it needs no DICOM.
Positions and directions are those of DICOM (LPS) until :func:`stack_affine` turns them to RAS+.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

from segmentation import SkipSegError
from segmentation.scans.blocks import release, slowest_first, zeros
from segmentation.scans.geometry import SHEAR_TOLERANCE_DEGREES
from segmentation.scans.workspace import Workspace

Repair = Literal["gaps", "duplicates", "spacing", "tilt"]
REPAIRS: tuple[str, ...] = get_args(Repair)

EVEN_TOLERANCE = 0.05
"""A slice may lie this fraction of the slice distance off the even grid: rounding of headers, well below a slice."""

SAME_POSITION_MM = 0.01
"""Two slices nearer than this lie at one position."""


@dataclass(frozen=True)
class Stack:
    """Slices of one series in the order of their positions.

    Attributes:
        positions: Centre of each slice's first pixel, in mm, LPS, shape ``(K, 3)``.
        row: Unit vector along which the column index grows, shape ``(3,)``.
        column: Unit vector along which the row index grows, shape ``(3,)``.
        shape: Number of columns and of rows.
        pixel_mm: Distance between columns and between rows, in mm.
        thickness_mm: Slice thickness, which places a lone slice.
    """

    positions: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    shape: tuple[int, int]
    pixel_mm: tuple[float, float]
    thickness_mm: float | None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slices, shape ``(3,)``."""
        return np.cross(self.row, self.column)

    @property
    def heights_mm(self) -> NDArray[np.float64]:
        """Position of each slice along the normal, in mm, shape ``(K,)``."""
        return self.positions @ self.normal

    @property
    def step(self) -> NDArray[np.float64]:
        """Mean vector from one slice to the next, in mm, shape ``(3,)``; the thickness for a lone slice."""
        if len(self.positions) == 1:
            return self.normal * (self.thickness_mm or 0.0)
        return (self.positions[-1] - self.positions[0]) / (len(self.positions) - 1)

    @property
    def tilt_degrees(self) -> float:
        """Angle between the step and the normal, in degrees."""
        along = float(self.step @ self.normal)
        return float(np.degrees(np.arctan2(np.linalg.norm(self.step - along * self.normal), along)))


def stack_affine(stack: Stack) -> NDArray[np.float64]:
    """Voxel ``(column, row, slice)`` to world, RAS+, in mm, shape ``(4, 4)``."""
    lps = np.eye(4)
    lps[:3, 0] = stack.row * stack.pixel_mm[0]
    lps[:3, 1] = stack.column * stack.pixel_mm[1]
    lps[:3, 2] = stack.step
    lps[:3, 3] = stack.positions[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def same_position(stack: Stack) -> list[int]:
    """Indices of the slices in the sorted stack that lie where their successor lies."""
    return np.flatnonzero(np.diff(stack.heights_mm) < SAME_POSITION_MM).tolist()


def find_faults(stack: Stack) -> dict[str, str]:
    """Say what keeps distinct, sorted slices from being an even, upright volume.

    Args:
        stack: Slices sorted along the normal, none at the position of another.

    Returns:
        Name of the repair (``"gaps"``, ``"spacing"`` or ``"tilt"``) to what was found; empty for a sound stack.

    Raises:
        SkipSegError: If the slices are shifted against each other in their plane, which no repair mends, or a
            lone slice has no thickness.
    """
    if len(stack.positions) == 1:
        if not stack.thickness_mm or stack.thickness_mm <= 0:
            raise SkipSegError("one slice without SliceThickness has no volume; give the whole series")
        return {}
    heights = stack.heights_mm - stack.heights_mm[0]
    line = stack.positions[0] + np.outer(heights / heights[-1], stack.positions[-1] - stack.positions[0])
    if (off_mm := float(np.linalg.norm(stack.positions - line, axis=1).max())) > 0.1 * min(stack.pixel_mm):
        raise SkipSegError(f"slices are shifted up to {off_mm:.3g} mm in their plane, so they are not one volume")
    faults: dict[str, str] = {}
    if stack.tilt_degrees > SHEAR_TOLERANCE_DEGREES:
        faults["tilt"] = f"the gantry was tilted: slices are stacked {stack.tilt_degrees:.2f} degrees off their normal"
    even = np.linspace(0, heights[-1], len(heights))
    if np.abs(heights - even).max() > EVEN_TOLERANCE * even[1]:
        faults |= _uneven(np.diff(heights))
    return faults


def mend(
    stack: Stack, volume: NDArray[Any], faults: Sequence[str], workspace: Workspace | None = None
) -> tuple[Stack, NDArray[Any]]:
    """Resample an uneven or tilted stack to an even, upright grid, slice by slice; integers are rounded back.

    Missing slices are interpolated linearly between their neighbours. Variable spacing is resampled linearly
    to the median spacing. A tilted slice is shifted in its own plane by linear interpolation, on a grid that
    is widened so that no pixel is lost; new corners get the smallest value of the volume.

    Args:
        stack: Slices sorted along the normal.
        volume: Intensities, shape ``(I, J, K)``.
        faults: Keys of :func:`find_faults`.
        workspace: Where the volumes lie; ``None`` keeps them in memory.

    Returns:
        The mended stack and its volume, shape ``(I', J', K')``.
    """
    mended = volume
    if "gaps" in faults or "spacing" in faults:
        stack, mended = _evened(stack, mended, "gaps" in faults, workspace)
    if "tilt" in faults:
        stack, mended = _upright(stack, mended, workspace)
    if mended.dtype == volume.dtype:
        return stack, mended
    rounded = _slices(mended.shape[:2], mended.shape[2], volume.dtype, workspace)
    for index in range(mended.shape[2]):
        plane = mended[..., index]
        rounded[..., index] = np.rint(plane) if volume.dtype.kind in "iu" else plane
        release(workspace)
    return stack, rounded


def _slices(size: tuple[int, ...], count: int, dtype: DTypeLike, workspace: Workspace | None) -> NDArray[Any]:
    """An array of zeros, shape ``(*size, count)``, whose slices lie one after the other."""
    return slowest_first(zeros((count, *size[::-1]), dtype, workspace))


def _uneven(steps: NDArray[np.float64]) -> dict[str, str]:
    """Tell missing slices (whole multiples of the median step) from variable spacing; steps in mm, shape ``(K-1,)``."""
    multiples = steps / _usual(steps)
    whole = np.rint(multiples)
    if whole.min() >= 1 and np.abs(multiples - whole).max() <= EVEN_TOLERANCE:
        return {"gaps": f"{int(whole.sum()) - len(steps)} of {int(whole.sum()) + 1} slices are missing"}
    return {"spacing": f"slices lie {steps.min():.4g} to {steps.max():.4g} mm apart"}


def _usual(steps: NDArray[np.float64]) -> float:
    """Median of the slice distances in mm, shape ``(K-1,)``; the lower of two, so that a gap never counts as usual."""
    return float(np.quantile(steps, 0.5, method="lower"))


def _evened(stack: Stack, volume: NDArray[Any], whole: bool, workspace: Workspace | None) -> tuple[Stack, NDArray[Any]]:
    """Interpolate a volume of shape ``(I, J, K)`` along its slices at even heights.

    The new step is the median one; with ``whole`` it is fitted so that the last slice keeps its place.
    """
    heights = stack.heights_mm - stack.heights_mm[0]
    usual = _usual(np.diff(heights))
    count = round(heights[-1] / usual) if whole else int(heights[-1] / usual + EVEN_TOLERANCE)
    even = np.linspace(0, heights[-1], count + 1) if whole else np.arange(count + 1) * usual
    below = (np.searchsorted(heights, even, side="right") - 1).clip(0, len(heights) - 2)
    weight = ((even - heights[below]) / np.diff(heights)[below]).clip(0, 1).astype(np.float32)
    mended = _slices(volume.shape[:2], len(even), np.result_type(volume, np.float32), workspace)
    for index, (first, share) in enumerate(zip(below, weight, strict=True)):
        mended[..., index] = volume[..., first] * (1 - share) + volume[..., first + 1] * share
        release(workspace)
    direction = (stack.positions[-1] - stack.positions[0]) / heights[-1]
    return replace(stack, positions=stack.positions[0] + np.outer(even, direction)), mended


def _upright(stack: Stack, volume: NDArray[Any], workspace: Workspace | None) -> tuple[Stack, NDArray[Any]]:
    """Shift each slice of a volume of shape ``(I, J, K)`` in its plane until the stack stands on its normal."""
    along = np.stack([stack.row / stack.pixel_mm[0], stack.column / stack.pixel_mm[1]], axis=1)
    shifts = (stack.positions - stack.positions[0]) @ along  # pixels of (column, row) that a slice lies aside
    lowest = np.floor(shifts.min(axis=0))
    grown = np.ceil(shifts.max(axis=0) - lowest).astype(int)
    size = (volume.shape[0] + int(grown[0]), volume.shape[1] + int(grown[1]))
    upright = _slices(size, volume.shape[2], np.float32, workspace)
    smallest = min(float(volume[..., index].min()) for index in range(volume.shape[2]))
    for index, shift in enumerate(shifts):
        ndimage.affine_transform(
            volume[..., index].astype(np.float32), np.ones(2), offset=lowest - shift, output_shape=size,
            output=upright[..., index], order=1, mode="constant", cval=smallest,
        )  # fmt: skip
        release(workspace)
    origin = stack.positions[0] + lowest * stack.pixel_mm @ np.stack([stack.row, stack.column])
    heights = stack.heights_mm - stack.heights_mm[0]
    return replace(stack, shape=size, positions=origin + np.outer(heights, stack.normal)), upright
