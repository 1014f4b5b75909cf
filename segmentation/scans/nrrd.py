"""NRRD volumes with their header in the same file, as 3D Slicer writes them (``.nrrd``, ``.seg.nrrd``)."""

import bz2
import gzip
import math
import warnings
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import nrrd
import numpy as np
from numpy.typing import DTypeLike, NDArray

from segmentation import SkipSegError
from segmentation.runs import atomic_path
from segmentation.scans.blocks import (
    MOST_COMPRESSED,
    Layout,
    Readable,
    check_room,
    empty_volume,
    file_blocks,
    fill,
    finish,
    gzip_writer,
    slowest_first,
    taker,
)
from segmentation.scans.geometry import SHEAR_TOLERANCE_DEGREES, check_affine, shear_degrees
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.workspace import Workspace

ENDINGS = (".nrrd",)

_Given = TypeVar("_Given")

_HEADER_BYTES = 1 << 20

_TYPES = {
    name: code
    for code, names in {
        "i1": "signed char, int8, int8_t",
        "u1": "uchar, unsigned char, uint8, uint8_t",
        "i2": "short, short int, signed short, signed short int, int16, int16_t",
        "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
        "i4": "int, signed int, int32, int32_t",
        "u4": "uint, unsigned int, uint32, uint32_t",
        "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
        "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
        "f4": "float",
        "f8": "double",
    }.items()
    for name in names.split(", ")
}
"""Name of a type in the format to numpy's."""

_TO_RAS: Mapping[str, tuple[int, int, int]] = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
"""Space of the format to the sign that each of its axes has in RAS+."""


def read_nrrd(
    path: Path,
    channels: int | None = None,
    *,
    workspace: Workspace | None = None,
    into: NDArray[Any] | None = None,
) -> Scan:
    """Read a NRRD file in the axis order it is stored in, block by block.

    Args:
        path: File ending in .nrrd, header and data in one.
        channels: Number of channels that a 4-D file holds along its non-spatial axis; ``None`` refuses 4-D.
        workspace: Where the voxels lie; ``None`` keeps them in memory.
        into: Array that the voxels are read into, shape ``(C, I, J, K)``; ``None`` takes a new one.

    Returns:
        Scan of shape ``(C, I, J, K)``: the stored dtype for integers, else float32.

    Raises:
        SkipSegError: If the file is missing, damaged, not NRRD or not of the expected dimensions, its space is not
            anatomical, or its header does not fit its voxels.
    """
    with _opened(path) as (header, stream):
        layout, channel_axis, notes = _layout(path, header, channels)
        take, unpacked = _decoder(path, header, layout, stream)
        if into is None:
            into = empty_volume(layout.channels, layout.grid.shape, layout.dtype, workspace)
        fill((into[0] if channel_axis is None else np.moveaxis(into, 0, channel_axis)).T, take, workspace)
        finish(unpacked)
    return Scan(into, layout.grid.affine, path.name, notes=notes)


def nrrd_layout(path: Path, channels: int | None = None) -> Layout:
    """Read the grid, channels and dtype of a NRRD file without its voxels.

    Raises:
        SkipSegError: As :func:`read_nrrd`, as far as the header tells.
    """
    with _opened(path) as (header, _):
        return _layout(path, header, channels)[0]


def write_nrrd(
    path: Path,
    values: NDArray[Any],
    like: Scan,
    dtype: DTypeLike,
    fields: Mapping[str, str],
    *,
    workspace: Workspace | None = None,
) -> None:
    """Write label values or maps in LPS like 3D Slicer, block by block, whole or not at all.

    Args:
        path: Target ending in .nrrd; 3D Slicer opens .seg.nrrd as a segmentation.
        values: Of shape ``(I, J, K)``, or ``(M, I, J, K)`` for M maps, which become the file's last axis.
        like: Scan whose frame the values share.
        dtype: Of the file, which holds every value.
        fields: What else the header says, such as :func:`segment_fields`.
        workspace: Where ``values`` lies.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ like.affine
    several = values.ndim - 3
    lines = [
        "NRRD0005",
        f"type: {'float' if np.dtype(dtype).kind == 'f' else np.dtype(dtype).name}",
        f"dimension: {values.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, slowest_first(values).shape[::-1]))}",
        f"space directions: {' '.join([*(_vector(axis) for axis in lps[:3, :3].T), *['none'] * several])}",
        f"kinds: {' '.join(['domain'] * 3 + ['list'] * several)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
        *(f"{name}:={' '.join(text.split())}" for name, text in fields.items()),
    ]
    little = np.dtype(dtype).newbyteorder("<")
    with atomic_path(path) as draft, draft.open("wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode())
        with gzip_writer(file, little) as stream:
            for block in file_blocks(slowest_first(values), little, workspace):
                stream.write(block)


def segment_fields(labels: Mapping[str, int], shape: tuple[int, ...]) -> dict[str, str]:
    """Header fields by which 3D Slicer shows the classes of a label map by name and in their colours.

    https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html

    Args:
        labels: Class name to value; the background (0) is no segment.
        shape: Size of each axis in voxels. Segments of one layer share its whole extent, as when Slicer writes them.

    Examples:
        >>> fields = segment_fields({"background": 0, "left lung": 2}, (4, 3, 2))
        >>> [fields[f"Segment0_{key}"] for key in ("ID", "Name", "LabelValue", "Extent")]
        ['Segment_2', 'left lung', '2', '0 3 0 2 0 1']
    """
    # The dictionary of codes beside the colours takes 0.1 s to load, which reading a scan need not pay.
    from segmentation.scans.terms import colour

    fields: dict[str, str] = {}
    segments = [(name, value) for name, value in labels.items() if value != 0]
    for index, (name, value) in enumerate(segments):
        about = {
            "ID": f"Segment_{value}",
            "Name": name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{part / 255:.6g}" for part in colour(name, value)),
            "ColorAutoGenerated": "0",
            "LabelValue": str(value),
            "Layer": "0",
            "Extent": " ".join(f"0 {size - 1}" for size in shape),
        }
        fields |= {f"Segment{index}_{key}": text for key, text in about.items()}
    if segments:
        fields |= {
            "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
            "Segmentation_MasterRepresentation": "Binary labelmap",  # its name up to Slicer 5.2
            "Segmentation_SourceRepresentation": "Binary labelmap",
            "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        }
    return fields


@contextmanager
def _opened(path: Path) -> Generator[tuple[dict[str, Any], BinaryIO], None, None]:
    """Open a NRRD file behind its header, turning whatever is wrong with it into one line."""
    try:
        with path.open("rb") as stream:
            lines = _header_lines(stream)
            # pynrrd warns about repeated fields and takes the last one, as the format's own library does.
            header = _quietly(lambda: nrrd.read_header(lines))
            if "data file" in header or "datafile" in header:
                raise SkipSegError(f"{path.name} keeps its voxels in another file; save header and data in one .nrrd")
            yield header, stream
    except SkipSegError:
        raise
    except FileNotFoundError:
        raise SkipSegError(f"{path} does not exist") from None
    except (nrrd.NRRDError, EOFError, LookupError, OSError, OverflowError, TypeError, ValueError, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SkipSegError(f"{path.name} cannot be read as NRRD ({reason}); is it complete? restore it") from None


def _quietly(act: Callable[[], _Given]) -> _Given:
    """Do something without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return act()


def _header_lines(stream: BinaryIO) -> list[bytes]:
    """Read up to the empty line behind the header, and no more than a header can have."""
    if (start := stream.read(4)) != b"NRRD":
        raise ValueError(f"it starts with {start!r} instead of NRRD")
    lines = [start + stream.readline(_HEADER_BYTES)]
    room = _HEADER_BYTES
    while lines[-1].strip():
        lines.append(stream.readline(room))
        room -= len(lines[-1])
        if not lines[-1] or room <= 0:
            raise EOFError("its header does not end")
    return lines


def _layout(path: Path, header: Mapping[str, Any], channels: int | None) -> tuple[Layout, int | None, tuple[str, ...]]:
    """What a header says of the voxels, index of the channel axis (``None`` without one), and remarks."""
    grid, channel_axis, notes = _placement(path, header, channels)
    sizes = [int(size) for size in header["sizes"]]
    if int(header["dimension"]) != len(sizes) or min(sizes) < 1:
        raise ValueError(f"dimension {header['dimension']} and sizes {sizes} do not fit")
    dtype = np.dtype(_TYPES[header["type"]])
    if dtype.kind == "f":
        dtype = np.dtype(np.float32)
    return Layout(grid, 1 if channel_axis is None else sizes[channel_axis], dtype), channel_axis, notes


def _decoder(
    path: Path, header: Mapping[str, Any], layout: Layout, stream: BinaryIO
) -> tuple[Callable[[int], NDArray[Any]], Readable]:
    """What gives the next voxels, and the stream that they come from, once they are known to have room in the file."""
    if any(header.get(skip) for skip in ("lineskip", "line skip", "byteskip", "byte skip")):
        raise SkipSegError(f"{path.name} skips bytes or lines before its voxels; save it again without")
    encoding, stored = header["encoding"], np.dtype(_TYPES[header["type"]])
    count, there = math.prod(layout.grid.shape) * layout.channels, path.stat().st_size - stream.tell()
    if encoding in ("ascii", "ASCII", "text", "txt"):
        check_room(2 * count - 1, there)  # a digit each, and what parts them
        # numpy warns about text that is no number; too little is there then.
        return lambda size: _quietly(lambda: np.fromfile(stream, stored, size, sep=" ")), stream
    if stored.itemsize > 1:
        if (endian := header["endian"]) not in ("big", "little"):
            raise ValueError(f"its endian {endian} is unknown")
        stored = stored.newbyteorder(">" if endian == "big" else "<")
    if encoding == "raw":
        check_room(count * stored.itemsize, there)
        return taker(stream, stored), stream
    if encoding in ("gzip", "gz"):
        check_room(count * stored.itemsize, there, MOST_COMPRESSED)
        unpacked: Readable = gzip.GzipFile(fileobj=stream)
    elif encoding in ("bzip2", "bz2"):
        unpacked = bz2.BZ2File(stream)
    else:
        raise ValueError(f"its encoding {encoding} is unknown")
    return taker(unpacked, stored), unpacked


def _placement(path: Path, header: Mapping[str, Any], channels: int | None) -> tuple[Grid, int | None, tuple[str, ...]]:
    """Grid of the spatial axes, index of the channel axis (``None`` without one), and remarks."""
    sizes = [int(size) for size in header["sizes"]]
    axes = np.asarray(header["space directions"] if "space directions" in header else _straight(header, sizes))
    spatial = [axis for axis, vector in enumerate(axes) if np.isfinite(vector).all()]
    others = [axis for axis in range(len(sizes)) if axis not in spatial]
    if len(spatial) != 3 or len(others) > 1 or any(sizes[axis] not in (1, channels) for axis in others):
        raise SkipSegError(
            f"{path.name} has shape {tuple(sizes)} with {len(spatial)} spatial axes where 3-D is expected; "
            "write one 3-D file a channel, or say how many channels it holds"
        )
    notes: list[str] = []
    affine = np.eye(4)
    affine[:3, :3] = axes[spatial].T
    affine[:3, 3] = header.get("space origin", np.zeros(3))
    affine[:3] *= np.reshape(_signs(path, header, notes), (3, 1))
    check_affine(affine, path.name)
    if (angle := shear_degrees(affine)) > SHEAR_TOLERANCE_DEGREES:
        notes.append(f"voxel axes are {angle:.2f} degrees off a right angle: distances in mm ignore the shear")
    return Grid(tuple(sizes[axis] for axis in spatial), affine), others[0] if others else None, tuple(notes)


def _straight(header: Mapping[str, Any], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Directions of the axes of a file that gives spacings alone: the spatial ones, in order, at right angles."""
    spacings = np.asarray(header.get("spacings", np.ones(len(sizes))), np.float64)
    axes = np.diag(spacings)[:, np.isfinite(spacings)]
    return np.where(np.isfinite(spacings)[:, None], axes, np.nan)


def _signs(path: Path, header: Mapping[str, Any], notes: list[str]) -> tuple[int, int, int]:
    """Sign of each space axis in RAS+; notes when the file names no space."""
    space = str(header.get("space", "")).lower()
    if space in _TO_RAS:
        return _TO_RAS[space]
    if space:
        raise SkipSegError(f"{path.name}: space {space!r} is not anatomical; known are {', '.join(_TO_RAS)}")
    notes.append("the header names no space: left and right are a convention, not a measurement")
    return (1, 1, 1)


def _vector(values: NDArray[np.float64]) -> str:
    """Three numbers as the format writes a vector, without loss; shape ``(3,)``."""
    return f"({','.join(repr(float(value)) for value in values)})"
