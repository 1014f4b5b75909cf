"""A scan: an array with the geometry that says where each of its voxels lies in the patient."""

from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of a scan lie, without their intensities.

    Attributes:
        shape: Size of each spatial axis in voxels: two for a picture, three for a volume.
        affine: Voxel index ``(i, j, k, 1)`` to world millimetres, RAS+, shape ``(4, 4)``; the identity for
            a picture.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between voxel centres along each spatial axis, in mm (pixels for a picture)."""
        return tuple(float(size) for size in np.linalg.norm(self.affine[:3, : len(self.shape)], axis=0))

    @property
    def orientation(self) -> str:
        """Anatomical direction of each axis, such as ``"RAS"``; empty for a picture."""
        return "".join(nib.aff2axcodes(self.affine)) if len(self.shape) == 3 else ""


@dataclass(frozen=True, eq=False)
class Scan:
    """One acquisition: intensities, and the affine that places them.

    Attributes:
        array: Intensities, shape ``(C, *S)`` with channels first and a 2-D or 3-D spatial shape S.
            Volumes keep the axis order of their file: ``(C, I, J, K)``. Pictures are ``(C, rows, columns)``.
        affine: Voxel index ``(i, j, k, 1)`` to world millimetres, RAS+, shape ``(4, 4)``. A picture has no
            world: its affine is the identity, and its distances are pixels.
        source: File or folder name, for messages. Never a patient's name.
        header: What the format needs to write a label map in the same frame (for NIfTI its header).
        notes: What a reader had to decide or repair, one sentence each, for the check report.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    source: str = ""
    header: Any = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """Where the voxels lie, without the intensities."""
        return Grid(self.spatial_shape, self.affine)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Size of each spatial axis in voxels."""
        return tuple(int(size) for size in self.array.shape[1:])

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes: 2 for a picture, 3 for a volume."""
        return self.array.ndim - 1

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between voxel centres along each spatial axis, in mm (pixels for a picture)."""
        return self.grid.spacing_mm

    @property
    def orientation(self) -> str:
        """Anatomical direction of each axis, such as ``"RAS"``; empty for a picture."""
        return self.grid.orientation
