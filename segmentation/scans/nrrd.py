"""NRRD volumes with their header in the same file, as 3D Slicer writes them (``.nrrd``, ``.seg.nrrd``)."""

import gzip
import warnings
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import nrrd
import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.runs import write_bytes
from segmentation.scans.geometry import SHEAR_TOLERANCE_DEGREES, check_affine, shear_degrees
from segmentation.scans.scan import Grid, Scan

ENDINGS = (".nrrd",)

_TO_RAS: Mapping[str, tuple[int, int, int]] = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
"""Space of the format to the sign that each of its axes has in RAS+."""


def read_nrrd(path: Path, channels: int | None = None) -> Scan:
    """Read a NRRD file in the axis order it is stored in.

    Args:
        path: File ending in .nrrd, header and data in one.
        channels: Number of channels that a 4-D file holds along its non-spatial axis; ``None`` refuses 4-D.

    Returns:
        Scan of shape ``(C, I, J, K)``: the stored dtype for integers, else float32.

    Raises:
        SkipSegError: If the file is missing, damaged, not NRRD or not of the expected dimensions, or its
            space is not anatomical.
    """
    with _opened(path) as (header, stream):
        grid, channel_axis, notes = _placement(path, header, channels)
        voxels = nrrd.read_data(header, stream, index_order="F")
    voxels = voxels[None] if channel_axis is None else np.moveaxis(voxels, channel_axis, 0)
    dtype = np.float32 if voxels.dtype.kind == "f" else voxels.dtype.newbyteorder("=")
    return Scan(voxels.astype(dtype, copy=False), grid.affine, path.name, notes=notes)


def nrrd_grid(path: Path, channels: int | None = None) -> Grid:
    """Read the spatial shape and affine of a NRRD file without its voxels.

    Raises:
        SkipSegError: As :func:`read_nrrd`, as far as the header tells.
    """
    with _opened(path) as (header, _):
        return _placement(path, header, channels)[0]


def write_nrrd(path: Path, label_map: NDArray[np.unsignedinteger], like: Scan, labels: Mapping[str, int]) -> None:
    """Write a label map with its class names as segments, in LPS like 3D Slicer, whole or not at all.

    Args:
        path: Target ending in .nrrd; 3D Slicer opens .seg.nrrd as a segmentation.
        label_map: Label values, shape ``(I, J, K)``, uint8 or uint16.
        like: Scan whose frame the label map shares.
        labels: Class name to value; the background (0) is no segment.
    """
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ like.affine
    lines = [
        "NRRD0005",
        f"type: {label_map.dtype.name}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, label_map.shape))}",
        f"space directions: {' '.join(_vector(axis) for axis in lps[:3, :3].T)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector(lps[:3, 3])}",
    ]
    segments = [(name, value) for name, value in labels.items() if value != 0]
    for index, (name, value) in enumerate(segments):
        fields = {"ID": f"Segment_{value}", "Name": " ".join(name.split()), "LabelValue": value, "Layer": 0}
        lines += [f"Segment{index}_{field}:={content}" for field, content in fields.items()]
    voxels = label_map.astype(label_map.dtype.newbyteorder("<"), copy=False).tobytes(order="F")
    write_bytes(path, ("\n".join(lines) + "\n\n").encode() + gzip.compress(voxels, 6, mtime=0))


@contextmanager
def _opened(path: Path) -> Generator[tuple[dict[str, Any], BinaryIO], None, None]:
    """Open a NRRD file behind its header, turning whatever is wrong with it into one line."""
    try:
        with path.open("rb") as stream, warnings.catch_warnings():
            # pynrrd warns about repeated fields and takes the last one, as the format's own library does.
            warnings.simplefilter("ignore", UserWarning)
            header = nrrd.read_header(stream)
            if "data file" in header or "datafile" in header:
                raise SkipSegError(f"{path.name} keeps its voxels in another file; save header and data in one .nrrd")
            yield header, stream
    except SkipSegError:
        raise
    except FileNotFoundError:
        raise SkipSegError(f"{path} does not exist") from None
    except (nrrd.NRRDError, OSError, EOFError, ValueError, LookupError, StopIteration, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SkipSegError(f"{path.name} cannot be read as NRRD ({reason}); is it complete? restore it") from None


def _placement(path: Path, header: Mapping[str, Any], channels: int | None) -> tuple[Grid, int | None, tuple[str, ...]]:
    """Grid of the spatial axes, index of the channel axis (``None`` without one), and remarks."""
    sizes = [int(size) for size in header["sizes"]]
    axes = np.asarray(header.get("space directions", np.diag(header.get("spacings", np.ones(len(sizes))))))
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
