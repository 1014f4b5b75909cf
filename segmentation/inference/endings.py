"""How the files of a prediction are named: their endings, and words in them."""

import re
from collections.abc import Sequence
from pathlib import Path

from segmentation.scans.find import known_ending

_SAME = {".nii": ".nii.gz", ".tiff": ".tif", ".bmp": ".png", ".jpg": ".png", ".jpeg": ".png"}


def as_file_name(text: str) -> str:
    """Turn a word into one that any disk takes.

    Examples:
        >>> as_file_name("left/lower lobe")
        'left-lower-lobe'
    """
    return re.sub(r"[^\w.-]+", "-", text)


def names_of_maps(classes: Sequence[str]) -> list[str]:
    """Tell the maps of the classes of a picture apart: by name, or with numbers where two would be one file.

    Examples:
        >>> names_of_maps(["background", "lung"]), names_of_maps(["left lung", "left/lung"])
        (['background', 'lung'], ['0-left lung', '1-left/lung'])
    """
    apart = len({as_file_name(name) for name in classes}) == len(classes)
    return list(classes) if apart else [f"{index}-{name}" for index, name in enumerate(classes)]


def mask_ending(paths: Sequence[Path], wanted: str) -> str:
    """File ending of the mask of a scan that lies in ``paths``.

    Args:
        paths: Its files, or its DICOM folder.
        wanted: A format of :class:`~segmentation.config.PredictSettings`; ``"same"`` follows the scan.

    Examples:
        >>> [mask_ending([Path(name)], "same") for name in ("a.nii", "photo.jpg", "b_0000.tiff", "IM0001")]
        ['.nii.gz', '.png', '.tif', '.nii.gz']
        >>> mask_ending([Path("a.nii.gz")], "seg.nrrd")
        '.seg.nrrd'
    """
    if wanted != "same":
        return f".{wanted}"
    ending = None if paths[0].is_dir() else known_ending(paths[0])
    return ".nii.gz" if ending is None else _SAME.get(ending, ending)


def map_ending(mask: str) -> str:
    """Ending of a map of fractions beside a mask with ending ``mask``.

    Examples:
        >>> [map_ending(ending) for ending in (".png", ".seg.nrrd", ".dcm", ".mha")]
        ['.tif', '.nrrd', '.nii.gz', '.mha']
    """
    if mask.endswith((".nrrd", ".mha")):
        return "." + mask.rpartition(".")[2]
    return ".tif" if mask in (".png", ".tif") else ".nii.gz"
