"""The text at the start of a MetaImage file: what it says of the voxels behind it.

Format: https://docs.itk.org/en/latest/learn/metaio.html. As in ITK the world is LPS, and a row of ``TransformMatrix``
is the direction of one voxel axis.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.scans.blocks import Layout
from segmentation.scans.geometry import SHEAR_TOLERANCE_DEGREES, check_affine, shear_degrees
from segmentation.scans.scan import Grid, Scan

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # four bytes on every machine
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}

_ALIASES = {
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
    "Orientation": "TransformMatrix",
    "Rotation": "TransformMatrix",
    "Origin": "Offset",
    "Position": "Offset",
}
"""Older name of a field to its present one."""

_ONLY = {
    "ObjectType": ("Image",),
    "BinaryData": ("True",),
    "HeaderSize": ("0",),
    "DistanceUnits": ("mm", "?"),
    "ElementToIntensityFunctionSlope": ("1",),
    "ElementToIntensityFunctionOffset": ("0",),
}
"""Field to the values that are read, if it is there; with any other the voxels or their place mean something else."""

_LINES, _LINE_BYTES = 1000, 10_000


@dataclass(frozen=True)
class MetaHeader:
    """What a header says.

    Attributes:
        fields: Its fields, by their present names.
        spatial: Size of each spatial axis, fastest first: two for a picture, three for a volume.
        channels: Values at each place.
        interleaved: Whether the values of a place lie side by side; otherwise channels follow each other.
        dtype: Of the stored values.
    """

    fields: Mapping[str, str]
    spatial: tuple[int, ...]
    channels: int
    interleaved: bool
    dtype: np.dtype[Any]

    @property
    def compressed(self) -> bool:
        """Whether the voxels are packed."""
        return _truth(self.fields, "CompressedData")

    @property
    def frame(self) -> tuple[str, ...] | None:
        """Lines that place a picture, kept as they are for its label map: our pictures have no world to hold them."""
        if len(self.spatial) == 3:
            return None
        names = ("TransformMatrix", "Offset", "ElementSpacing", "ElementSize")
        return tuple(f"{name} = {self.fields[name]}" for name in names if name in self.fields)

    def layout(self, source: str) -> tuple[Layout, tuple[str, ...]]:
        """What the header says of the voxels, and remarks; ``source`` names the file in messages.

        Raises:
            ValueError: If the voxels have no place.
        """
        grid, notes = _placement(self, source)
        dtype = np.dtype(np.float32) if self.dtype.kind == "f" else self.dtype.newbyteorder("=")
        return Layout(grid, self.channels, dtype), notes


def read_header(path: Path, stream: BinaryIO, channels: int | None) -> MetaHeader:
    """Read the header's lines and check all that decides how the voxels are understood.

    Args:
        path: The file, for messages.
        stream: The file, open at its start; it is left where the voxels start.
        channels: Number of channels that a volume of several holds; ``None`` refuses them.

    Raises:
        SkipSegError: If the file keeps its voxels elsewhere, or in a way that is not read.
        KeyError: If a field is missing.
        ValueError: If the header is damaged.
    """
    fields = dict(_fields(stream))
    if (place := fields["ElementDataFile"]) not in ("LOCAL", "Local", "local"):
        raise SkipSegError(f"{path.name} keeps its voxels in another file ({place}); save header and data in one .mha")
    for name, read in _ONLY.items():
        if (found := fields.get(name, read[0])) not in read:
            raise SkipSegError(f"{path.name} has {name} = {found} where {read[0]} is expected; save it again with ITK")
    if fields["ElementType"] not in _TYPES:
        raise SkipSegError(f"{path.name} has ElementType = {fields['ElementType']}; known are {', '.join(_TYPES)}")
    sizes, inner = [int(word) for word in fields["DimSize"].split()], int(fields.get("ElementNumberOfChannels", "1"))
    if len(sizes) != int(fields["NDims"]) or min(sizes, default=0) < 1 or inner < 1:
        raise ValueError(f"NDims = {fields['NDims']} and DimSize = {fields['DimSize']} do not fit")
    outer = sizes[3] if len(sizes) == 4 else 1
    several = inner * outer
    if len(sizes) not in (2, 3, 4) or min(inner, outer) > 1 or (several not in (1, channels) and len(sizes) > 2):
        raise SkipSegError(
            f"{path.name} has DimSize = {fields['DimSize']} with {inner} value(s) a voxel where one 2-D or 3-D image "
            "is expected; write one file a channel, or say how many channels it holds"
        )
    order = ">" if _truth(fields, "ElementByteOrderMSB") else "<"
    dtype = np.dtype(_TYPES[fields["ElementType"]]).newbyteorder(order)
    return MetaHeader(fields, tuple(sizes[:3]), several, inner > 1 or len(sizes) < 4, dtype)


def header_text(shape: tuple[int, ...], channels: int, like: Scan, dtype: np.dtype[Any]) -> str:
    """Lines up to the one before ``ElementDataFile``, without those of the compression.

    Args:
        shape: Size of each spatial axis, as in ``like``.
        channels: Values at each place.
        like: Scan whose frame the values share.
        dtype: Of the values.
    """
    kind = next(name for name, code in _TYPES.items() if np.dtype(code) == dtype.newbyteorder("="))
    sizes = shape if len(shape) == 3 else shape[::-1]
    lines = ["ObjectType = Image", f"NDims = {len(shape)}", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += [*_frame(like), f"DimSize = {_words(sizes)}"]
    lines += [f"ElementNumberOfChannels = {channels}"] if channels > 1 else []
    return "\n".join([*lines, f"ElementType = {kind}", ""])


def _fields(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    """Fields of the header up to the last one, ``ElementDataFile``, under their present names."""
    seen: set[str] = set()
    for _ in range(_LINES):
        line = stream.readline(_LINE_BYTES)
        name, equals, value = line.decode("ascii", "replace").partition("=")
        name = _ALIASES.get(name.strip(), name.strip())
        if not line.endswith(b"\n") or not equals:
            raise ValueError("its header ends early or is not made of lines such as NDims = 3")
        if name in seen:
            raise ValueError(f"its header gives {name} twice")
        seen.add(name)
        yield name, value.strip()
        if name == "ElementDataFile":
            return
    raise ValueError(f"its header has more than {_LINES} lines")


def _truth(fields: Mapping[str, str], name: str) -> bool:
    """Value of a yes-or-no field, no if it is not there."""
    if (word := fields.get(name, "False").lower()) not in ("true", "false"):
        raise ValueError(f"{name} = {word} is neither True nor False")
    return word == "true"


def _placement(header: MetaHeader, source: str) -> tuple[Grid, tuple[str, ...]]:
    """Grid of the spatial axes in RAS+, and remarks; a picture has no world."""
    if len(header.spatial) == 2:
        return Grid(header.spatial[::-1], np.eye(4)), ()
    fields, dims = header.fields, int(header.fields["NDims"])
    directions = _numbers(fields, "TransformMatrix", np.eye(dims).ravel()).reshape(dims, dims)[:3, :3]
    spacing = _numbers(fields, "ElementSpacing", _numbers(fields, "ElementSize", np.ones(dims)))[:3]
    if (spacing <= 0).any() or np.abs(np.linalg.norm(directions, axis=1) - 1).max() > 1e-3:
        raise ValueError(f"its spacing is {_words(spacing)}, its directions are {directions.tolist()}")
    affine = np.eye(4)
    affine[:3, :3] = directions.T * spacing
    affine[:3, 3] = _numbers(fields, "Offset", np.zeros(dims))[:3]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine + 0.0  # + 0.0: no negative zeros
    check_affine(affine, source)
    notes: list[str] = []
    if "TransformMatrix" not in fields:
        notes.append("the header gives no orientation: left and right are a convention, not a measurement")
    if (angle := shear_degrees(affine)) > SHEAR_TOLERANCE_DEGREES:
        notes.append(f"voxel axes are {angle:.2f} degrees off a right angle: distances in mm ignore the shear")
    return Grid(header.spatial, affine), tuple(notes)


def _numbers(fields: Mapping[str, str], name: str, otherwise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers of a field, as many as ``otherwise`` has; shape ``(N,)``."""
    values = np.array([float(word) for word in fields[name].split()]) if name in fields else otherwise
    if values.shape != otherwise.shape or not np.isfinite(values).all():
        raise ValueError(f"{name} = {fields[name]} where {otherwise.size} numbers are expected")
    return values


def _frame(like: Scan) -> tuple[str, ...]:
    """Lines that place a label map where its scan lies."""
    if like.spatial_dims == 2:
        return like.header if isinstance(like.header, tuple) else ()
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ like.affine + 0.0
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return (
        f"TransformMatrix = {_words((lps[:3, :3] / spacing).T.ravel())}",
        f"Offset = {_words(lps[:3, 3])}",
        f"ElementSpacing = {_words(spacing)}",
    )


def _words(values: Any) -> str:
    """Numbers as the format writes them, without loss; shape ``(N,)``."""
    return " ".join(str(np.asarray(value).item()) for value in values)
