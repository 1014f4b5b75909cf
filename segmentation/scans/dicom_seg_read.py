"""Read DICOM segmentations (SEG) onto the grid of a scan: every frame goes where its header places it.

Writers leave out empty frames, crop, and order frames as they like, and segments may overlap. So nothing but the
position and the direction of a frame decides where it lies, and what does not fit a grid is an error.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import iter_pixels

from segmentation import SkipSegError
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.segments import ON_GRID, Segments, read_segments, smallest_grid
from segmentation.scans.series import SourceSlices, one_line_errors


def read_dicom_seg(
    path: Path,
    like: Scan | None = None,
    *,
    segments: Collection[int] | None = None,
    threshold: float | None = None,
) -> tuple[Scan, dict[int, str]]:
    """Read a segmentation as one label map, whose values are the segment numbers.

    Args:
        path: DICOM segmentation: BINARY, FRACTIONAL or LABELMAP.
        like: Scan on whose grid the label map shall lie, in any orientation; frames may be missing, cropped, or in
            any order. ``None`` makes the smallest grid that holds all frames.
        segments: Numbers of the segments to read; ``None`` reads all. One at a time, overlapping ones can be read.
        threshold: Fraction in ``(0, 1]`` from which on a voxel of a FRACTIONAL segmentation belongs to a segment.

    Returns:
        Label map of shape ``(1, *S)`` in the smallest unsigned dtype, and number to label of the segments read.

    Raises:
        SkipSegError: If the file is damaged or no segmentation; if it belongs to another frame of reference, or its
            frames lie off the grid or outside; if segments overlap; or if a fraction has no threshold.
    """
    found = read_segments(path)
    names = _chosen(found, segments)
    if found.kind == "FRACTIONAL" and (threshold is None or not 0 < threshold <= 1):
        raise SkipSegError(f"{path.name} holds fractions; say from which one in (0, 1] a voxel counts (threshold)")
    if like is not None:
        _check_reference(found, like)
    grid = smallest_grid(found) if like is None else like.grid
    label_map = np.zeros(grid.shape, np.min_scalar_type(max(names)))
    clashes: set[tuple[int, int]] = set()
    for number, mask, region in placed_frames(found, label_map, grid, names, threshold or 1.0):
        others = np.unique(region[mask & (region != 0) & (region != number)])
        clashes |= {(min(number, int(other)), max(number, int(other))) for other in others}
        region[mask] = number
    if clashes:
        pairs = ", ".join(f"{a} {names[a]!r} with {b} {names[b]!r}" for a, b in sorted(clashes))
        raise SkipSegError(
            f"{path.name}: segments overlap, so no label map holds them all: {pairs}; read one at a time (segments)"
        )
    return Scan(label_map[None], grid.affine, path.name), names


def placed_frames(
    found: Segments, array: NDArray[Any], grid: Grid, chosen: Collection[int], threshold: float = 1.0
) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[Any]]]:
    """Decode a segmentation frame by frame, each beside the part of an array in which it lies.

    Args:
        found: Header of the segmentation.
        array: Any values on the grid, shape ``(*S)``.
        grid: Where the voxels of the array lie.
        chosen: Segments to decode.
        threshold: As for :func:`read_dicom_seg`.

    Yields:
        Segment number, its mask in one frame, and the part of the array that the frame covers, a view of the
        mask's shape.

    Raises:
        SkipSegError: If a frame lies off the grid, marks voxels outside, or cannot be decoded.
    """
    place = _Placement.of(found, grid)
    for index, pixels in enumerate(_decoded(found)):
        if found.kind == "LABELMAP":
            masks = [(int(n), pixels == n) for n in np.unique(pixels) if n not in found.background and n in chosen]
        else:
            number = found.numbers[index]
            masks = [(number, pixels >= threshold * found.most)] if number in chosen else []
        for number, mask in masks:
            region, part = place.region(array, mask.T, found.stack.positions[index])
            yield number, part, region


@dataclass(frozen=True)
class _Placement:
    """How the frames of a segmentation lie on a grid: the axes that columns and rows run along, and where to."""

    to_voxels: NDArray[np.float64]
    axes: tuple[int, int, int]
    reverse: tuple[bool, bool]
    name: str

    @classmethod
    def of(cls, found: Segments, grid: Grid) -> "_Placement":
        """Match the directions of a segmentation with the axes of a grid."""
        if len(grid.shape) != 3:
            raise SkipSegError(f"{found.path.name} needs a volume to lie on, got a picture")
        stack = found.stack
        to_voxels = np.asarray(np.linalg.inv(grid.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0]), np.float64)
        steps = to_voxels[:3, :3] @ np.stack([stack.row * stack.pixel_mm[0], stack.column * stack.pixel_mm[1]], axis=1)
        first, second = (int(axis) for axis in np.abs(steps).argmax(axis=0))
        whole = np.zeros((3, 2))
        whole[(first, second), (0, 1)] = np.sign(steps[(first, second), (0, 1)])
        off = (np.abs(steps - whole) @ (np.array(stack.shape) - 1)).max()
        if first == second or off > ON_GRID:
            raise SkipSegError(
                f"{found.path.name}: its pixels are turned against the scan or of another size (up to {off:.3g} voxels "
                "off within a frame); give the scan that was segmented, or read it without one and resample"
            )
        reverse = bool(whole[first, 0] < 0), bool(whole[second, 1] < 0)
        return cls(to_voxels, (first, second, 3 - first - second), reverse, found.path.name)

    def region(
        self, array: NDArray[Any], mask: NDArray[np.bool_], position: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Part of an array of shape ``(*S)`` under a mask of shape ``(columns, rows)``, and that part of the mask."""
        start = (self.to_voxels @ np.append(position, 1.0))[list(self.axes)]
        nearest = np.rint(start).astype(np.int64)
        if (off := np.abs(start - nearest).max()) > ON_GRID:
            raise SkipSegError(
                f"{self.name}: a frame lies {off:.2f} voxels off the grid of the scan; give the scan that was "
                "segmented, or read it without one and resample"
            )
        size = array.transpose(self.axes).shape
        inside: list[slice] = []
        within: list[slice] = []
        for axis, backwards in enumerate(self.reverse):
            first = int(nearest[axis]) - (mask.shape[axis] - 1 if backwards else 0)
            low, high = max(0, first), min(size[axis], first + mask.shape[axis])
            inside.append(slice(low, max(low, high)))
            within.append(slice(low - first, max(low, high) - first))
        mask = mask[:: -1 if self.reverse[0] else 1, :: -1 if self.reverse[1] else 1]
        deep = int(nearest[2])
        part = mask[tuple(within)] if 0 <= deep < size[2] else mask[:0]
        if (lost := np.count_nonzero(mask) - np.count_nonzero(part)) > 0:
            raise SkipSegError(
                f"{self.name} marks {lost} voxels outside of the scan in one frame alone; give the scan that was "
                "segmented, not a part of it"
            )
        if not part.size:
            return array.transpose(self.axes)[:0, :0, 0], mask[:0, :0]
        return array.transpose(self.axes)[(*inside, deep)], part


def _decoded(found: Segments) -> Iterator[NDArray[Any]]:
    """Pixels of one frame after another, each of shape ``(rows, columns)``."""
    path, count = found.path, len(found.numbers)
    columns, rows = found.stack.shape
    with one_line_errors(path):
        dataset = pydicom.dcmread(path, defer_size=2**16)
        is_packed = int(dataset.BitsAllocated) == 1 and not dataset.file_meta.TransferSyntaxUID.is_encapsulated
        packed = np.frombuffer(dataset.PixelData if is_packed else b"", np.uint8)
        if is_packed and packed.size < -(-count * rows * columns // 8):
            raise SkipSegError(f"{path.name} is cut off within its pixels; restore it")
        frames = None if is_packed else iter_pixels(path, raw=True)
    for index in range(count):
        if frames is None:
            # Not pydicom's: version 3.0.2 loses the last bits of frames that do not begin at a whole byte.
            first = index * rows * columns
            octets = packed[first // 8 : -(-(first + rows * columns) // 8)]
            bits = np.unpackbits(octets, bitorder="little")[first % 8 : first % 8 + rows * columns]
            yield bits.reshape(rows, columns)
            continue
        with one_line_errors(path):
            pixels = next(frames, None)
            if pixels is None or pixels.shape != (rows, columns):
                raise SkipSegError(f"{path.name} holds {index} whole frames, its header tells of {count}; restore it")
        if found.kind == "LABELMAP" and (unknown := set(np.unique(pixels)) - set(found.names) - found.background):
            raise SkipSegError(f"{path.name}: pixels have the value {min(unknown)}, which no segment describes")
        yield pixels


def _chosen(found: Segments, segments: Collection[int] | None) -> dict[int, str]:
    """Number to label of the segments to read."""
    unknown = set(segments or ()) - set(found.names)
    chosen = {number: name for number, name in found.names.items() if segments is None or number in segments}
    if unknown or not chosen:
        listing = ", ".join(f"{number} {name!r}" for number, name in sorted(found.names.items()))
        raise SkipSegError(f"{found.path.name} has no segment {min(unknown, default='')}; it has {listing or 'none'}")
    return chosen


def _check_reference(found: Segments, like: Scan) -> None:
    """Refuse a scan whose positions are meant in another space, however well they fit."""
    theirs = like.header.frame_of_reference if isinstance(like.header, SourceSlices) else ""
    if found.frame_of_reference and theirs and found.frame_of_reference != theirs:
        raise SkipSegError(
            f"{found.path.name} belongs to the frame of reference {found.frame_of_reference}, {like.source} to "
            f"{theirs}: another patient, or another position of the patient; give the scan that was segmented"
        )
