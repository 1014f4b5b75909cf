"""NIfTI-1 and NIfTI-2, plain or gzipped.

The affine is the sform when its code is above 0, else the qform when its code is above 0, else the voxel
sizes alone: nibabel's order, and that of most tools. A conflict between the two is a note, not an error,
because the label map goes back with both of them unchanged and any reader puts it where it puts the scan.
"""

import gzip
import logging
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.runs import write_bytes
from segmentation.scans.geometry import (
    SHEAR_TOLERANCE_DEGREES,
    TOLERANCE_VOXELS,
    check_affine,
    corner_distance_mm,
    shear_degrees,
)
from segmentation.scans.scan import Grid, Scan

ENDINGS = (".nii", ".nii.gz")

# nibabel logs each oddity of a header beside raising it; the user gets the one line that is raised.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def read_nifti(path: Path, channels: int | None = None) -> Scan:
    """Read a NIfTI file in the axis order it is stored in.

    Args:
        path: File ending in .nii or .nii.gz.
        channels: Number of channels that a 4-D file holds along its last axis; ``None`` refuses 4-D.

    Returns:
        Scan of shape ``(C, I, J, K)``: the stored dtype for unscaled integers, else float32. A 2-D file
        becomes a volume of one slice.

    Raises:
        SkipSegError: If the file is missing, damaged, not NIfTI, or not of the expected dimensions, or its
            affine does not span a volume.
    """
    with _opened(path) as (image, stream):
        if image.get_data_dtype().kind not in "iuf":
            raise SkipSegError(f"{path.name} stores {image.get_data_dtype()} voxels; convert it to real numbers")
        shape = _volume_shape(path, image.shape, channels)
        scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
        voxels = np.asarray(image.dataobj, np.float32) if scaled else image.dataobj.get_unscaled()
        stream.read()  # to the end, where gzip keeps its checksum
    float_needed = scaled or voxels.dtype.kind == "f"
    voxels = voxels.astype(np.float32 if float_needed else voxels.dtype.newbyteorder("="), copy=False)
    voxels = np.moveaxis(voxels.reshape(shape, order="F"), -1, 0)
    affine, notes = _placement(path, image.header, shape[:3])
    return Scan(voxels, affine, path.name, image.header, notes)


def nifti_grid(path: Path, channels: int | None = None) -> Grid:
    """Read the spatial shape and affine of a NIfTI file without its voxels.

    Raises:
        SkipSegError: As :func:`read_nifti`, as far as the header tells.
    """
    with _opened(path) as (image, _):
        shape = _volume_shape(path, image.shape, channels)[:3]
        return Grid(shape, _placement(path, image.header, shape)[0])


def write_nifti(path: Path, label_map: NDArray[np.unsignedinteger], like: Scan) -> None:
    """Write a label map in the frame of a scan, whole or not at all.

    A NIfTI scan's sform, qform, their codes and the units go back unchanged; its free texts and extensions,
    which may name the patient, do not. For another source both forms hold the affine (only the sform when
    the axes are sheared, which a qform cannot say).

    Args:
        path: Target ending in .nii or .nii.gz.
        label_map: Label values, shape ``(I, J, K)``, uint8 or uint16.
        like: Scan whose frame the label map shares.
    """
    kept = like.header if isinstance(like.header, nib.Nifti1Header) else None  # Nifti2Header is a subclass
    if kept is None:
        image = nib.Nifti1Image(label_map, like.affine)
        image.header.set_xyzt_units("mm")
        image.set_sform(like.affine, code="scanner")
        if shear_degrees(like.affine) <= SHEAR_TOLERANCE_DEGREES:
            image.set_qform(like.affine, code="scanner")
    else:
        image_class = nib.Nifti2Image if isinstance(kept, nib.Nifti2Header) else nib.Nifti1Image
        image = image_class(label_map, like.affine, _anonymous(kept))
        image.set_data_dtype(label_map.dtype)
    content = image.to_bytes()
    write_bytes(path, gzip.compress(content, 6, mtime=0) if path.suffix.lower() == ".gz" else content)


@contextmanager
def _opened(path: Path) -> Generator[tuple[Any, Any], None, None]:
    """Open a NIfTI image beside its byte stream, turning whatever is wrong with it into one line."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            header_size = stream.read(4)
            stream.seek(0)
            second = 540 in (int.from_bytes(header_size, "little"), int.from_bytes(header_size, "big"))
            # 30: a voxel size of 0 is an error here, not something to replace by 1 mm.
            with imageglobals.ErrorLevel(30):
                image_class = nib.Nifti2Image if second else nib.Nifti1Image
                image = image_class.from_file_map(image_class.make_file_map({"image": stream}), mmap=False)
            yield image, stream
    except SkipSegError:
        raise
    except FileNotFoundError:
        raise SkipSegError(f"{path} does not exist") from None
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError) as error:
        reason = " ".join(str(error).split())
        raise SkipSegError(f"{path.name} cannot be read as NIfTI ({reason}); is it complete? restore it") from None


def _volume_shape(path: Path, shape: tuple[int, ...], channels: int | None) -> tuple[int, ...]:
    """Shape ``(I, J, K, C)`` for a stored shape of two to four axes, or of more axes of size 1."""
    volume = (*shape, 1, 1)[:4]
    if min(shape) < 1 or any(size != 1 for size in shape[4:]) or volume[3] not in (1, channels):
        raise SkipSegError(
            f"{path.name} has shape {shape}, 4-D where 3-D is expected"
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
    if (unit := header.get_xyzt_units()[0]) not in ("mm", "unknown"):
        notes.append(f"the header gives lengths in {unit}: every distance called mm is in {unit}")
    if (angle := shear_degrees(affine)) > SHEAR_TOLERANCE_DEGREES:
        notes.append(f"voxel axes are {angle:.2f} degrees off a right angle: distances in mm ignore the shear")
    return affine, tuple(notes)


def _anonymous(header: Any) -> Any:
    """Copy a NIfTI header without its free texts, extensions, intensity scaling and display range."""
    copy = header.copy()
    copy.extensions.clear()
    for name in ("descrip", "aux_file", "intent_name"):
        copy[name] = b""
    for name in ("cal_min", "cal_max", "intent_code", "intent_p1", "intent_p2", "intent_p3"):
        copy[name] = 0
    return copy
