"""A predicted label map and the reference it is scored against: reading them, and finding them in folders."""

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from segmentation import SkipSegError
from segmentation.data.manifest import name_few
from segmentation.scans import Scan, grid_difference, read_label_map, read_scan
from segmentation.scans.find import ENDINGS, known_ending
from segmentation.scans.segments import is_dicom_seg

_SEG_ENDING = re.compile(r"(\.labelmap)?\.dcm$", re.IGNORECASE)


@dataclass(frozen=True)
class CasePair:
    """What is compared for one case.

    Attributes:
        case: Name of the case, safe as a file name.
        patient: The patient it comes from.
        prediction: Predicted label map; None if there is none, which scores as an empty one.
        reference: Annotated label map.
        images: The scan, for the overlay; empty for none.
        label_remap: Stored value to meant value of the reference.
        channels: That one file of the scan holds, as in :func:`segmentation.scans.read_scan`.
    """

    case: str
    patient: str
    prediction: Path | None
    reference: Path
    images: Sequence[Path] = ()
    label_remap: Mapping[int, int] = field(default_factory=dict)
    channels: int | None = None


@contextmanager
def naming(case: str) -> Generator[None, None, None]:
    """Begin the message of any :class:`SkipSegError` inside the block with the name of the case.

    Examples:
        >>> with naming("case_07"):
        ...     raise SkipSegError("no such file")
        Traceback (most recent call last):
        segmentation.SkipSegError: case_07: no such file
    """
    try:
        yield
    except SkipSegError as error:
        raise SkipSegError(f"{case}: {error}") from None


def read_pair(pair: CasePair) -> tuple[Scan, Scan]:
    """Read prediction and reference, on one grid.

    Returns:
        The two label maps, each with an array of shape ``(1, *S)``.

    Raises:
        SkipSegError: If a file cannot be read or the grids differ; the message begins with the case.
    """
    with naming(pair.case):
        # A DICOM segmentation may leave out empty frames: only the other map, or the scan, tells where it ends.
        if pair.prediction is not None and is_dicom_seg(pair.reference):
            both = is_dicom_seg(pair.prediction) and pair.images
            scan = read_scan(pair.images, pair.channels) if both else None
            prediction = read_label_map(pair.prediction, scan)
            return prediction, read_label_map(pair.reference, prediction, pair.label_remap)
        reference = read_label_map(pair.reference, remap=pair.label_remap)
        if pair.prediction is None:
            return Scan(np.zeros_like(reference.array), reference.affine), reference
        prediction = read_label_map(pair.prediction, reference if is_dicom_seg(pair.prediction) else None)
        if difference := grid_difference(prediction, reference):
            raise SkipSegError(
                f"prediction and reference differ in {difference}; write the prediction in the frame of its scan, "
                "or resample it with nearest neighbour"
            )
        return prediction, reference


def find_masks(folder: Path) -> dict[str, Path]:
    """Find the label maps in a folder: file name without its ending to path, sorted by name.

    A DICOM segmentation is known by its content. Hidden files, folders and files of other formats are passed over.

    Raises:
        SkipSegError: If the folder is missing, holds no label maps, or two of one name.
    """
    if not folder.is_dir():
        raise SkipSegError(f"{folder} is no folder; give a folder of label maps")
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")]
    masks: dict[str, Path] = {}
    for file in files:
        if (name := _case_of(file)) is None:
            continue
        if name in masks:
            raise SkipSegError(f"{folder} holds {masks[name].name} and {file.name} for one case; remove one")
        masks[name] = file
    if not masks:
        known = name_few(ENDINGS, most=len(ENDINGS))
        raise SkipSegError(f"{folder} holds no label maps; known are {known} and DICOM segmentations")
    return masks


def _case_of(file: Path) -> str | None:
    """File name of a label map without its ending; ``None`` for any other file."""
    if ending := known_ending(file):
        return file.name[: -len(ending)]
    return _SEG_ENDING.sub("", file.name) if is_dicom_seg(file) else None
