"""How the files of a prediction are named: their endings, words in them, and which can hold the mask."""

import re
from collections.abc import Sequence
from pathlib import Path

from segmentation import SkipSegError
from segmentation.scans import Scan, label_map_ending
from segmentation.scans.dicom_seg import check_dicom_seg
from segmentation.scans.find import known_ending
from segmentation.scans.series import SourceSlices

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


def check_writable(mask: Path, scan: Scan) -> None:
    """Refuse a format that cannot hold the mask of a scan, before anything is computed.

    Raises:
        SkipSegError: If it cannot.
    """
    if not mask.name.endswith(".dcm"):
        label_map_ending(mask, scan)
    elif not isinstance(scan.header, SourceSlices):
        raise SkipSegError(f"{scan.source} is no DICOM series, to which a DICOM SEG would refer; choose another format")
    else:
        check_dicom_seg(mask, scan.spatial_shape, scan.header.files)
