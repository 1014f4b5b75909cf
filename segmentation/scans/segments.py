"""What the header of a DICOM segmentation (SEG) says: its segments, and where each of its frames lies."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom
from pydicom.uid import SegmentationStorage

from segmentation import SkipSegError
from segmentation.scans.geometry import check_affine
from segmentation.scans.scan import Grid
from segmentation.scans.series import one_line_errors
from segmentation.scans.slices import Stack, find_faults, same_position, stack_affine

LABELMAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""SOP class of Label Map Segmentation Storage, which pydicom 3.0 does not name."""

ON_GRID = 0.1
"""A frame may lie this fraction of a voxel off a grid: rounding of headers, below any real shift."""

MOST_SLICES = 10_000
"""Frames that lie further apart than this many slices have a damaged position."""

_BACKGROUND = ("125040", "DCM")
_TAGS = [
    "SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "SegmentationType",
    "MaximumFractionalValue", "PixelPaddingValue", "FrameOfReferenceUID", "SegmentSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip


@dataclass(frozen=True)
class Segments:
    """What the header of a segmentation says.

    Attributes:
        path: The file.
        kind: BINARY, FRACTIONAL or LABELMAP.
        names: Number of each segment to its label; the background of a LABELMAP is none of them.
        numbers: Segment of each frame; 0 in a LABELMAP, whose pixels are the numbers.
        background: Pixel values of a LABELMAP that belong to no segment.
        most: Pixel value that stands for the fraction 1 in a FRACTIONAL segmentation, else 1.
        stack: Position of each frame, and what all share.
        spacing_mm: Distance between slices as the header gives it, ``None`` where it does not.
        frame_of_reference: UID of the space in which the positions are meant.
    """

    path: Path
    kind: str
    names: dict[int, str]
    numbers: tuple[int, ...]
    background: frozenset[int]
    most: int
    stack: Stack
    spacing_mm: float | None
    frame_of_reference: str


def is_dicom_seg(path: Path) -> bool:
    """Tell a DICOM segmentation by the SOP class in its header; any other file is none.

    Raises:
        SkipSegError: If the file is DICOM and damaged.
    """
    if not (path.is_file() and is_dicom(path)):
        return False
    with one_line_errors(path):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID"])
        return str(header.get("SOPClassUID", "")) in (SegmentationStorage, LABELMAP_STORAGE)


def read_segments(path: Path) -> Segments:
    """Read the header of a segmentation, and check that its parts agree.

    Raises:
        SkipSegError: If the file is damaged, is no segmentation, or lies on a slide instead of in a patient.
    """
    with one_line_errors(path):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        if str(header.get("SOPClassUID", "")) not in (SegmentationStorage, LABELMAP_STORAGE):
            raise SkipSegError(f"{path.name} is no DICOM segmentation but {header.get('Modality', 'something else')}")
        return _parsed(path, header)


def smallest_grid(found: Segments) -> Grid:
    """Smallest grid that holds all frames, the slices that were left out between them included.

    Raises:
        SkipSegError: If the frames lie on no even, upright grid.
    """
    order = np.argsort(found.stack.heights_mm, kind="stable")
    stack = replace(found.stack, positions=found.stack.positions[order])
    stack = replace(stack, positions=np.delete(stack.positions, same_position(stack), axis=0))
    heights = stack.heights_mm - stack.heights_mm[0]
    if len(heights) == 1:
        step = found.spacing_mm or stack.thickness_mm or 0.0
        if not 0 < step < np.inf:
            raise SkipSegError(f"{found.path.name}: one slice without a thickness has no volume; give its scan (like)")
        stack = replace(stack, thickness_mm=step)
        return Grid((*stack.shape, 1), stack_affine(stack))
    if "tilt" in find_faults(stack):
        raise SkipSegError(f"{found.path.name}: its frames are stacked off their normal; give its scan (like)")
    for step in (found.spacing_mm or 0.0, float(np.diff(heights).min())):
        if step > 0 and np.abs(heights / step - np.rint(heights / step)).max() <= ON_GRID:
            count = round(heights[-1] / step) + 1
            if count > MOST_SLICES:
                break
            line = stack.positions[0] + np.outer(np.linspace(0, 1, count), stack.positions[-1] - stack.positions[0])
            return Grid((*stack.shape, count), stack_affine(replace(stack, positions=line)))
    raise SkipSegError(f"{found.path.name}: its frames lie on no even grid; give the scan that was segmented (like)")


def _parsed(path: Path, header: Dataset) -> Segments:
    """Check and translate the header of a segmentation."""
    kind = str(header.SegmentationType)
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise SkipSegError(f"{path.name}: its segmentation type {kind!r} is not known")
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    frames = list(header.PerFrameFunctionalGroupsSequence)
    if not frames or len(frames) != int(header.NumberOfFrames):
        raise SkipSegError(f"{path.name} describes {len(frames)} frames and tells of {header.NumberOfFrames}")
    if not any("PlanePositionSequence" in group for group in (shared, frames[0])):
        raise SkipSegError(f"{path.name}: its frames have no place in a patient; is it of a slide or a lone picture?")

    def table(sequence: str, keyword: str, count: int) -> NDArray[np.float64]:
        """A field of each frame, shape ``(frames, count)``."""
        rows = [(frame.get(sequence) or shared[sequence].value)[0][keyword].value for frame in frames]
        return np.array(rows, np.float64).reshape(len(frames), count)

    directions = table("PlaneOrientationSequence", "ImageOrientationPatient", 6)
    pixels = table("PixelMeasuresSequence", "PixelSpacing", 2)
    if np.ptp(directions, axis=0).max() > 1e-3 or np.ptp(pixels, axis=0).max() > 1e-3 * pixels.min():
        raise SkipSegError(f"{path.name}: its frames differ in direction or pixel size, so they are no volume")
    row, column = directions[0, :3], directions[0, 3:]
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-3):
        raise SkipSegError(f"{path.name}: ImageOrientationPatient holds no right angle; restore the file")
    measures = (frames[0].get("PixelMeasuresSequence") or shared["PixelMeasuresSequence"].value)[0]
    thickness, spacing = (measures.get(key) for key in ("SliceThickness", "SpacingBetweenSlices"))
    stack = Stack(
        positions=table("PlanePositionSequence", "ImagePositionPatient", 3),
        row=row / np.linalg.norm(row),
        column=column / np.linalg.norm(column),
        shape=(int(header.Columns), int(header.Rows)),
        pixel_mm=(float(pixels[0, 1]), float(pixels[0, 0])),
        thickness_mm=None if thickness is None else float(thickness),
    )
    if not np.isfinite(stack.positions).all():
        raise SkipSegError(f"{path.name}: a frame has no finite position; restore the file")
    check_affine(stack_affine(replace(stack, positions=stack.positions[:1], thickness_mm=1.0)), path.name)
    names, background = _segments(path, header, kind)
    numbers = [0] * len(frames)
    if kind != "LABELMAP":
        field = table("SegmentIdentificationSequence", "ReferencedSegmentNumber", 1)
        numbers = [int(number) for number in field[:, 0]]
        if unknown := set(numbers) - set(names):
            raise SkipSegError(f"{path.name}: a frame shows segment {min(unknown)}, which is not described")
    return Segments(
        path, kind, names, tuple(numbers), background, int(header.get("MaximumFractionalValue") or 1), stack,
        None if spacing is None else float(spacing), str(header.get("FrameOfReferenceUID") or ""),
    )  # fmt: skip


def _segments(path: Path, header: Dataset, kind: str) -> tuple[dict[int, str], frozenset[int]]:
    """Numbers and labels of the segments, and the pixel values of a LABELMAP that are none."""
    names: dict[int, str] = {}
    background: set[int] = set()
    for entry in header.SegmentSequence:
        number = int(entry.SegmentNumber)
        if number in names or number in background:
            raise SkipSegError(f"{path.name} describes segment {number} twice")
        code = (entry.get("SegmentedPropertyTypeCodeSequence") or [Dataset()])[0]
        if kind == "LABELMAP" and (code.get("CodeValue"), code.get("CodingSchemeDesignator")) == _BACKGROUND:
            background.add(number)
        else:
            names[number] = str(entry.SegmentLabel)
    if 0 in names:
        raise SkipSegError(f"{path.name}: segment 0 {names[0]!r} could not be told from the background")
    padding = header.get("PixelPaddingValue")
    background |= {0} if padding is None else {0, int(padding)}
    return names, frozenset(background - set(names))
