"""NIfTI-1 and NIfTI-2, plain or gzipped.

The affine is the sform when its code is above 0, else the qform when its code is above 0, else the voxel
sizes alone: nibabel's order, and that of most tools. A conflict between the two is a note, not an error,
because the label map goes back with both of them unchanged and any reader puts it where it puts the scan.
"""

import gzip
import logging
import math
import zlib
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError
from numpy.typing import DTypeLike, NDArray

from segmentation import SkipSegError
from segmentation.runs import atomic_path
from segmentation.scans.blocks import (
    MOST_COMPRESSED,
    Layout,
    check_room,
    empty_volume,
    file_blocks,
    fill,
    finish,
    gzip_writer,
    slowest_first,
    taker,
)
from segmentation.scans.geometry import (
    SHEAR_TOLERANCE_DEGREES,
    TOLERANCE_VOXELS,
    check_affine,
    corner_distance_mm,
    shear_degrees,
)
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.workspace import Workspace

ENDINGS = (".nii", ".nii.gz")

_HEADER_2_BYTES = 540

_UNITS = {0: "mm", 1: "metres", 2: "mm", 3: "micron"}
"""Code of a length unit to its name; a header without one means mm."""

_LONGEST_AXIS = 32767
"""Voxels that an axis of NIfTI-1 can have."""

_DAMAGE = (OSError, EOFError, ValueError, OverflowError, zlib.error)

# nibabel logs each oddity of a header beside raising it; the user gets the one line that is raised.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def read_nifti(
    path: Path,
    channels: int | None = None,
    *,
    workspace: Workspace | None = None,
    into: NDArray[Any] | None = None,
) -> Scan:
    """Read a NIfTI file in the axis order it is stored in, block by block.

    Args:
        path: File ending in .nii or .nii.gz.
        channels: Number of channels that a 4-D file holds along its last axis; ``None`` refuses 4-D.
        workspace: Where the voxels lie; ``None`` keeps them in memory.
        into: Array that the voxels are read into, shape ``(C, I, J, K)``; ``None`` takes a new one.

    Returns:
        Scan of shape ``(C, I, J, K)``: the stored dtype for unscaled integers, else float32. A 2-D file
        becomes a volume of one slice.

    Raises:
        SkipSegError: If the file is missing, damaged, not NIfTI, or not of the expected dimensions, its affine does
            not span a volume, or its header does not fit its voxels.
    """
    with _opened(path) as (header, stream):
        layout, notes = _layout(path, header, channels)
        offset, stored = header.get_data_offset(), header.get_data_dtype()
        claimed = offset + math.prod(header.get_data_shape()) * stored.itemsize
        check_room(claimed, path.stat().st_size, MOST_COMPRESSED if _is_packed(path) else 1)
        stream.seek(offset)
        if into is None:
            into = empty_volume(layout.channels, layout.grid.shape, layout.dtype, workspace)
        fill(slowest_first(into), _scaled(taker(stream, stored), *_scaling(header)), workspace)
        finish(stream)
    return Scan(into, layout.grid.affine, path.name, header, notes)


def nifti_layout(path: Path, channels: int | None = None) -> Layout:
    """Read the grid, channels and dtype of a NIfTI file without its voxels.

    Raises:
        SkipSegError: As :func:`read_nifti`, as far as the header tells.
    """
    with _opened(path) as (header, _):
        return _layout(path, header, channels)[0]


def write_nifti(
    path: Path, values: NDArray[Any], like: Scan, dtype: DTypeLike, *, workspace: Workspace | None = None
) -> None:
    """Write label values or maps in the frame of a scan, block by block, whole or not at all.

    A NIfTI scan's sform, qform, their codes and the units go back unchanged; its free texts and extensions,
    which may name the patient, do not. For another source both forms hold the affine (only the sform when
    the axes are sheared, which a qform cannot say).

    Args:
        path: Target ending in .nii or .nii.gz.
        values: Of shape ``(I, J, K)``, or ``(M, I, J, K)`` for M maps, which become the file's last axis.
        like: Scan whose frame the values share.
        dtype: Of the file, which holds every value.
        workspace: Where ``values`` lies.
    """
    header = _header_like(like, (*values.shape[-3:], *values.shape[:-3]), np.dtype(dtype))
    with (
        atomic_path(path) as draft,
        draft.open("wb") as file,
        gzip_writer(file, header.get_data_dtype()) if _is_packed(path) else nullcontext(file) as stream,
    ):
        header.write_to(stream)
        for block in file_blocks(slowest_first(values), header.get_data_dtype(), workspace):
            stream.write(block)


def _header_like(like: Scan, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Header of a file in the frame of a scan."""
    values = np.broadcast_to(np.zeros((), dtype), shape)
    kept = like.header if isinstance(like.header, nib.Nifti1Header) else None  # Nifti2Header is a subclass
    if kept is None:
        image_class = nib.Nifti1Image if max(shape) <= _LONGEST_AXIS else nib.Nifti2Image
        image = image_class(values, like.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(like.affine, code="scanner")
        if shear_degrees(like.affine) <= SHEAR_TOLERANCE_DEGREES:
            image.set_qform(like.affine, code="scanner")
    else:
        image_class = nib.Nifti2Image if isinstance(kept, nib.Nifti2Header) else nib.Nifti1Image
        image = image_class(values, like.affine, _anonymous(kept))
        image.set_data_dtype(dtype)
    image.header.set_slope_inter(1, 0)
    image.header.set_data_offset(0)  # the smallest that there is
    return image.header


@contextmanager
def _opened(path: Path) -> Generator[tuple[Any, Any], None, None]:
    """Read a NIfTI header beside its byte stream, turning whatever is wrong with it into one line."""
    try:
        with gzip.open(path) if _is_packed(path) else path.open("rb") as stream:
            start = stream.read(_HEADER_2_BYTES)
            size = start[:4]
            second = _HEADER_2_BYTES in (int.from_bytes(size, "little"), int.from_bytes(size, "big"))
            header_class = nib.Nifti2Header if second else nib.Nifti1Header
            # 30: a voxel size of 0 is an error here, not something to replace by 1 mm.
            with imageglobals.ErrorLevel(30):
                header = header_class(start[: header_class.sizeof_hdr])
            yield header, stream
    except SkipSegError:
        raise
    except FileNotFoundError:
        raise SkipSegError(f"{path} does not exist") from None
    except (*_DAMAGE, ImageFileError, HeaderDataError, WrapStructError) as error:
        reason = " ".join(str(error).split())
        raise SkipSegError(f"{path.name} cannot be read as NIfTI ({reason}); is it complete? restore it") from None


def _is_packed(path: Path) -> bool:
    """Tell a gzipped file by its ending."""
    return path.suffix.lower() == ".gz"


def _layout(path: Path, header: Any, channels: int | None) -> tuple[Layout, tuple[str, ...]]:
    """What a header says of the voxels, and what is remarkable about their place."""
    stored = header.get_data_dtype()
    if stored.kind not in "iuf":
        raise SkipSegError(f"{path.name} stores {stored} voxels; convert it to real numbers")
    if (offset := header.get_data_offset()) < header.sizeof_hdr:
        raise ValueError(f"its voxels start at byte {offset}, within its header")
    *shape, several = _volume_shape(path, header.get_data_shape(), channels)
    affine, notes = _placement(path, header, tuple(shape))
    whole = stored.kind in "iu" and _scaling(header) == (1, 0)
    dtype = stored.newbyteorder("=") if whole else np.dtype(np.float32)
    return Layout(Grid(tuple(shape), affine), several, dtype), notes


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept that turn stored values into intensities."""
    slope, inter = header.get_slope_inter()
    return 1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)


def _scaled(take: Callable[[int], NDArray[Any]], slope: float, inter: float) -> Callable[[int], NDArray[Any]]:
    """Apply slope and intercept to what is read, as nibabel does."""
    return take if (slope, inter) == (1, 0) else lambda count: apply_read_scaling(take(count), slope, inter)


def _volume_shape(path: Path, shape: tuple[int, ...], channels: int | None) -> tuple[int, ...]:
    """Shape ``(I, J, K, C)`` for a stored shape of two to four axes, or of more axes of size 1."""
    volume = (*shape, 1, 1, 1)[:4]
    if len(shape) < 2 or min(shape) < 1 or any(size != 1 for size in shape[4:]) or volume[3] not in (1, channels):
        raise SkipSegError(
            f"{path.name} has shape {shape}, {len(shape)}-D where 3-D is expected"
            + (f" (or {channels} channels last)" if channels else "")
            + "; write one 3-D file a channel, or say how many channels it holds"
        )
    return volume


def _placement(path: Path, header: Any, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Affine of shape ``(4, 4)`` by the module's rule, and what is remarkable about it."""
    affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    check_affine(affine, path.name)
    notes = []
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if not sform and not qform:
        notes.append("neither sform nor qform is set: left and right are a convention, not a measurement")
    if sform and qform:
        apart_mm = corner_distance_mm(shape, affine, header.get_qform())
        if apart_mm > 10 * TOLERANCE_VOXELS * np.linalg.norm(affine[:3, :3], axis=0).min():
            notes.append(f"sform and qform place a corner {apart_mm:.3g} mm apart: the sform is used")
    if (unit := _UNITS.get(int(header["xyzt_units"]) % 8, "an unknown unit")) != "mm":
        notes.append(f"the header gives lengths in {unit}: every distance called mm is in {unit}")
    if (angle := shear_degrees(affine)) > SHEAR_TOLERANCE_DEGREES:
        notes.append(f"voxel axes are {angle:.2f} degrees off a right angle: distances in mm ignore the shear")
    return affine, tuple(notes)


def _anonymous(header: Any) -> Any:
    """Copy a NIfTI header without its free texts, extensions, intensity scaling and display range."""
    copy = header.copy()
    copy.extensions.clear()
    for name in {"descrip", "aux_file", "intent_name", "data_type", "db_name"} & set(copy.keys()):
        copy[name] = b""  # the last two are of NIfTI-1 alone, which took them over from Analyze
    for name in ("cal_min", "cal_max", "intent_code", "intent_p1", "intent_p2", "intent_p3"):
        copy[name] = 0
    return copy
