"""MetaImage volumes and pictures with their header in the same file (``.mha``), as ITK writes them.

The first axis runs fastest in the file, and a picture's columns are its first axis.
"""

import math
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from segmentation import SkipSegError
from segmentation.runs import atomic_path
from segmentation.scans.blocks import (
    BLOCK_BYTES,
    MOST_COMPRESSED,
    Layout,
    check_room,
    empty_volume,
    file_blocks,
    fill,
    slowest_first,
    taker,
    zeros,
)
from segmentation.scans.metaheader import MetaHeader, header_text, read_header
from segmentation.scans.scan import Scan
from segmentation.scans.workspace import Workspace

ENDINGS = (".mha",)


def read_metaimage(
    path: Path,
    channels: int | None = None,
    *,
    workspace: Workspace | None = None,
    into: NDArray[Any] | None = None,
) -> Scan:
    """Read a MetaImage file in the axis order it is stored in, block by block.

    Args:
        path: File ending in .mha, header and data in one.
        channels: Number of channels that a volume of several holds; ``None`` refuses them. A picture may have any.
        workspace: Where the voxels lie; ``None`` keeps them in memory.
        into: Array that the voxels are read into, shape ``(C, *S)``; ``None`` takes a new one.

    Returns:
        Scan of shape ``(C, I, J, K)``, or ``(C, rows, columns)`` for a picture: the stored dtype for integers,
        else float32.

    Raises:
        SkipSegError: If the file is missing, damaged, not MetaImage, keeps its voxels elsewhere or is not of the
            expected dimensions.
    """
    with _opened(path, channels) as (header, stream):
        layout, notes = header.layout(path.name)
        _check_size(path, header, stream)
        source = _Unpacked(stream) if header.compressed else stream
        if into is None:
            empty = empty_volume if len(header.spatial) == 3 else _empty_picture
            into = empty(layout.channels, layout.grid.shape, layout.dtype, workspace)
        fill(_in_file_order(into, len(header.spatial), header.interleaved), taker(source, header.dtype), workspace)
        if source.read(1):
            raise ValueError("it holds more voxels than its header claims")
    return Scan(into, layout.grid.affine, path.name, header.frame, notes)


def metaimage_layout(path: Path, channels: int | None = None) -> Layout:
    """Read the grid, channels and dtype of a MetaImage file without its voxels.

    Raises:
        SkipSegError: As :func:`read_metaimage`, as far as the header tells.
    """
    with _opened(path, channels) as (header, _):
        return header.layout(path.name)[0]


def write_metaimage(
    path: Path, values: NDArray[Any], like: Scan, dtype: DTypeLike, *, workspace: Workspace | None = None
) -> None:
    """Write label values or maps, compressed, block by block, whole or not at all.

    Args:
        path: Target ending in .mha.
        values: Of shape ``(*S)``, or ``(K, *S)`` for several maps, which lie side by side at each place.
        like: Scan whose frame the values share.
        dtype: Of the file, which holds every value.
        workspace: Where ``values`` lies.
    """
    several = values.ndim > like.spatial_dims
    little = np.dtype(dtype).newbyteorder("<")
    text = header_text(like.spatial_shape, len(values) if several else 1, like, little)
    size = "CompressedDataSize = "
    start = f"{text}CompressedData = True\n{size}{0:<16}\nElementDataFile = LOCAL\n".encode()
    with atomic_path(path) as draft, draft.open("wb") as stream:
        stream.write(start)
        packer = zlib.compressobj(1 if little.kind == "f" else 6)
        for block in file_blocks(_in_file_order(values, like.spatial_dims, several), little, workspace):
            stream.write(packer.compress(block))
        stream.write(packer.flush())
        packed = stream.tell() - len(start)
        stream.seek(start.index(size.encode()) + len(size))
        stream.write(f"{packed:<16}".encode())


class _Unpacked:
    """Reads a zlib or gzip stream that ends with its file; its end is reached only if its checksum is right."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._unpacker = zlib.decompressobj(wbits=47)  # zlib's own frame or gzip's

    def read(self, size: int, /) -> bytes:
        parts: list[bytes] = []
        while size > 0 and not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or self._stream.read(BLOCK_BYTES)
            parts.append(self._unpacker.decompress(packed, size))
            size -= len(parts[-1])
            if not packed and not parts[-1] and not self._unpacker.eof:
                raise EOFError("its compressed voxels end early")
        if self._unpacker.eof and (self._unpacker.unused_data or self._stream.read(1)):
            raise ValueError("something follows its compressed voxels")
        return b"".join(parts)


@contextmanager
def _opened(path: Path, channels: int | None) -> Generator[tuple[MetaHeader, BinaryIO]]:
    """Open a file behind its header, turning whatever is wrong with it into one line."""
    try:
        with path.open("rb") as stream:
            yield read_header(path, stream, channels), stream
    except SkipSegError:
        raise
    except FileNotFoundError:
        raise SkipSegError(f"{path} does not exist") from None
    except (OSError, EOFError, KeyError, ValueError, OverflowError, zlib.error) as error:
        missing = f"it has no {error.args[0]}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise SkipSegError(f"{path.name} cannot be read as MetaImage ({missing}); is it complete? restore it") from None


def _check_size(path: Path, header: MetaHeader, stream: BinaryIO) -> None:
    """Refuse a header that claims what the file cannot hold, before memory is taken for it."""
    there = path.stat().st_size - stream.tell()
    claimed = math.prod(header.spatial) * header.channels * header.dtype.itemsize
    if header.compressed:
        check_room(claimed, there, MOST_COMPRESSED)
        if int(header.fields.get("CompressedDataSize", there)) not in (0, there):
            raise ValueError(f"its header does not fit the {there} bytes behind it")
    elif claimed != there:
        raise ValueError(f"its header claims {claimed} bytes of voxels, {there} are there")


def _empty_picture(
    channels: int, shape: tuple[int, ...], dtype: np.dtype[Any], workspace: Workspace | None
) -> NDArray[Any]:
    """An array for a picture, shape ``(C, rows, columns)``."""
    return zeros((channels, *shape), dtype, workspace)


def _in_file_order(array: NDArray[Any], dims: int, interleaved: bool) -> NDArray[Any]:
    """View an array of shape ``(*S)`` or ``(C, *S)`` slowest axis first; interleaved channels then run fastest."""
    stored = slowest_first(array) if dims == 3 else array
    return np.moveaxis(stored, 0, -1) if interleaved else stored
