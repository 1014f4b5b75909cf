"""Pictures: PNG, TIFF, BMP and JPEG. Two spatial axes, no world; distances are pixels.

Pixels are taken as stored: an EXIF rotation is not applied, because masks are drawn on the stored rows.
"""

import struct
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segmentation import SkipSegError
from segmentation.runs import atomic_path
from segmentation.scans.blocks import BLOCK_BYTES, MOST_COMPRESSED, check_room, release, zeros
from segmentation.scans.scan import Grid, Scan
from segmentation.scans.workspace import Workspace

ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
LOSSY_ENDINGS = (".jpg", ".jpeg")
"""Compression that changes values: never a label map."""


def read_picture(path: Path, *, workspace: Workspace | None = None) -> Scan:
    """Read a picture as stored: gray in one channel, colour in three, transparency dropped.

    Args:
        path: PNG, TIFF, BMP or JPEG file of one page.
        workspace: Where the pixels lie; ``None`` keeps them in memory. Pillow decodes a picture as a whole, at most
            some 180 million pixels.

    Returns:
        Scan of shape ``(1 or 3, rows, columns)``: uint8, or uint16, int32 or float32 where the file has them.

    Raises:
        SkipSegError: If the file is missing, damaged, has several pages or has 16-bit colour.
    """
    with _opened(path) as image:
        if image.format == "PNG":
            check_room(
                image.height * ((image.width * len(image.getbands()) + 7) // 8), path.stat().st_size, MOST_COMPRESSED
            )
        rows = max(1, BLOCK_BYTES // (4 * image.width))
        pixels: NDArray[Any] | None = None
        for top in range(0, image.height, rows):
            part = _pixels(image, top, min(top + rows, image.height))
            if pixels is None:
                pixels = zeros((len(part), image.height, image.width), part.dtype, workspace)
            pixels[:, top : top + rows] = part
            release(workspace)
    assert pixels is not None  # Pillow knows no picture without rows
    return Scan(pixels, np.eye(4), path.name)


def picture_grid(path: Path) -> Grid:
    """Read the size of a picture without decoding its pixels.

    Raises:
        SkipSegError: As :func:`read_picture`, as far as the file's start tells.
    """
    with _opened(path) as image:
        return Grid((image.height, image.width), np.eye(4))


def write_picture(path: Path, label_map: NDArray[np.unsignedinteger]) -> None:
    """Write label values as gray levels, whole or not at all.

    Args:
        path: Target ending in .png, .tif, .tiff or .bmp (.bmp only for uint8).
        label_map: Label values, shape ``(rows, columns)``, uint8 or uint16.

    Raises:
        SkipSegError: If the format cannot hold the values.
    """
    if path.suffix.lower() in LOSSY_ENDINGS:
        raise SkipSegError(f"{path.name}: JPEG changes label values; write .png or .tif")
    if path.suffix.lower() == ".bmp" and label_map.dtype != np.uint8:
        raise SkipSegError(f"{path.name}: BMP holds labels up to 255, got {label_map.max()}; write .png or .tif")
    with atomic_path(path) as draft:
        Image.fromarray(label_map).save(draft)


def write_float_picture(path: Path, values: NDArray[Any]) -> None:
    """Write a map as a TIFF of 32-bit floating point, whole or not at all.

    Args:
        path: Target ending in .tif or .tiff.
        values: Of shape ``(rows, columns)``.
    """
    with atomic_path(path) as draft:
        Image.fromarray(np.ascontiguousarray(values, np.float32)).save(draft)


_KEPT = ("1", "L", "RGB", "I", "F", "I;16", "I;16L", "I;16B")
"""Pillow modes read as they are."""

_CONVERTED = {"LA": "L", "La": "L"}
"""Pillow modes that hold gray; everything else (palette, RGBA, CMYK, ...) becomes RGB."""


def _pixels(image: Image.Image, top: int, bottom: int) -> NDArray[Any]:
    """Some rows of a picture, shape ``(1 or 3, bottom - top, columns)``."""
    part = image.crop((0, top, image.width, bottom))
    pixels = np.asarray(part if part.mode in _KEPT else part.convert(_CONVERTED.get(part.mode, "RGB")))
    pixels = pixels.astype(np.uint8 if pixels.dtype == bool else pixels.dtype.newbyteorder("="), copy=False)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


_DAMAGE = (
    EOFError,
    LookupError,
    OSError,
    SyntaxError,  # Pillow's for a broken PNG
    TypeError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
)


@contextmanager
def _opened(path: Path) -> Generator[Image.Image, None, None]:
    """Open a picture, turning whatever is wrong with it into one line."""
    try:
        with warnings.catch_warnings():
            # Large tiles are large on purpose (Pillow still refuses twice its limit), and metadata that Pillow
            # skips with a warning are not needed: whatever damages the pixels is raised.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(path) as image:
                _check(image, path)
                yield image
    except UnidentifiedImageError:
        raise SkipSegError(f"{path.name} is not a picture that can be read; is it complete?") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise SkipSegError(f"{path.name} cannot be read as a picture ({reason}); restore it or leave it out") from None


def _check(image: Image.Image, path: Path) -> None:
    """Refuse what would be read only in part."""
    if (pages := getattr(image, "n_frames", 1)) > 1:
        raise SkipSegError(f"{path.name} holds {pages} pages; convert a stack to NIfTI, or write one file a page")
    if image.mode[0] != "I" and any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        raise SkipSegError(f"{path.name} has 16-bit colour, of which half would be lost; save gray or 8-bit colour")
