"""Read the pictures and tables that 2-D sources come as."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from segmentation import SkipSegError
from segmentation.runs import read_csv
from segmentation.scans import Scan


def read_manifest(folder: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read the manifest.csv of a source at hand.

    Args:
        folder: Folder that holds it.
        columns: Columns that it must have.

    Returns:
        One dictionary a row.

    Raises:
        SkipSegError: If it is missing, empty, or lacks a column.
    """
    rows = read_csv(folder / "manifest.csv")
    found = list(rows[0]) if rows else []
    if missing := [column for column in columns if column not in found]:
        raise SkipSegError(
            f"{folder / 'manifest.csv'} lacks column {', '.join(missing)}; it has {', '.join(found) or 'none'}"
        )
    return rows


def file_in(folder: Path, relative: str) -> Path:
    """Resolve a path written in a manifest.

    Raises:
        SkipSegError: If the file is missing or lies outside ``folder``.
    """
    file = folder / relative
    if not file.resolve().is_relative_to(folder.resolve()):
        raise SkipSegError(f"manifest.csv names {relative!r}, which lies outside its folder; mend the manifest")
    if not file.is_file():
        raise SkipSegError(f"{file} is missing from the source; fetch the source again")
    return file


def read_pages(path: Path, mode: str) -> NDArray[np.uint8]:
    """Read every page of a picture file.

    Args:
        path: PNG, TIFF, GIF, BMP or JPEG.
        mode: ``"L"`` for gray, ``"RGB"`` for colour; other files are converted, alpha is dropped.

    Returns:
        Pixels, shape ``(pages, C, rows, columns)`` with C = 1 or 3.

    Raises:
        SkipSegError: If the file is no readable picture, or gray of more than 8 bits.
    """
    pages: list[NDArray[np.uint8]] = []
    try:
        with Image.open(path) as picture:
            for page in range(getattr(picture, "n_frames", 1)):
                picture.seek(page)
                if picture.mode.startswith(("I", "F")):
                    raise SkipSegError(
                        f"{path} has pixels of mode {picture.mode}, not of 8 bits; scale them to 0 to 255 first"
                    )
                pixels = np.asarray(picture.convert(mode), dtype=np.uint8)
                pages.append(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0))
    except SkipSegError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, EOFError, SyntaxError, ValueError) as error:
        raise SkipSegError(f"{path} is not a readable picture ({error}); fetch the source again") from None
    return np.stack(pages)


def read_picture(path: Path, mode: str) -> Scan:
    """Read one picture as a scan of shape ``(C, rows, columns)``; see :func:`read_pages`."""
    return picture_scan(read_pages(path, mode)[0], path.name)


def picture_scan(array: NDArray[Any], source: str) -> Scan:
    """Make a scan of a picture.

    Args:
        array: Pixels, shape ``(C, rows, columns)``.
        source: Name for messages.
    """
    return Scan(array, np.eye(4), source)


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a black-and-white mask, shape ``(rows, columns)``.

    Raises:
        SkipSegError: If it holds anything between black and white.
    """
    return as_mask(read_pages(path, "L")[0, 0], path)


def as_mask(pixels: NDArray[np.uint8], path: Path) -> NDArray[np.bool_]:
    """Turn a 0/255 or 0/1 mask into a Boolean one.

    Args:
        pixels: Gray values, shape ``(*S)``.
        path: The file, for the message.

    Raises:
        SkipSegError: If there are other values.
    """
    values = set(np.unique(pixels).tolist())
    if not (values <= {0, 255} or values <= {0, 1}):
        raise SkipSegError(f"{path} holds gray values {sorted(values)[:6]}; a mask holds 0 and 255 alone")
    return pixels > 0
