"""Overlays of the cases that went worst, and volumes of them for the viewer of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmentation import SkipSegError
from segmentation.evaluation.overlays import gray_of, write_overlay
from segmentation.evaluation.pairs import CasePair, read_pair
from segmentation.evaluation.summary import case_dice
from segmentation.evaluation.volumes import write_volume
from segmentation.progress import track
from segmentation.scans import Scan, grid_difference, read_scan, to_canonical


def draw_worst(
    pairs: Sequence[CasePair],
    rows_of: Mapping[str, Sequence[Mapping[str, Any]]],
    out: Path,
    labels: Mapping[str, int],
    ignore_label: int | None,
    most: int,
) -> list[str]:
    """Draw the cases with the lowest mean Dice as ``overlays/RANK_CASE.png``; earlier files are removed.

    Of each volume ``volumes/RANK_CASE.json`` and the two files beside it let a viewer show the same in three planes.

    Args:
        pairs: What was compared.
        rows_of: Case to its rows of scores; cases without any Dice are not drawn.
        out: Folder of the evaluation.
        labels: Name and value of every foreground class.
        ignore_label: Value in the references of voxels that are left out; None for none.
        most: How many cases to draw.

    Returns:
        Warnings: one sentence for each scan that could not be shown below the masks.
    """
    for pattern in ("overlays/[0-9][0-9]*_*.png", "volumes/[0-9][0-9]*_*.nii.gz", "volumes/[0-9][0-9]*_*.json"):
        for earlier in out.glob(pattern):
            earlier.unlink()
    dice = {pair.case: score for pair in pairs if (score := case_dice(rows_of[pair.case])) is not None}
    scored = sorted((pair for pair in pairs if pair.case in dice), key=lambda pair: (dice[pair.case], pair.case))
    warnings: list[str] = []
    with track(scored[:most], "draw", "cases") as drawn:
        for rank, pair in enumerate(drawn, start=1):
            prediction, reference = (to_canonical(label_map) for label_map in read_pair(pair))
            try:
                image = _image(pair, reference)
            except SkipSegError as error:
                warnings.append(f"the overlay of {pair.case} shows no scan: {error}")
                image = None
            annotated = reference.array[0] != ignore_label if ignore_label is not None else np.bool_(True)
            predicted, wanted = prediction.array[0] * annotated, reference.array[0] * annotated
            name, title = f"{rank:02}_{pair.case}", _title(pair.case, rows_of[pair.case])
            write_overlay(out / "overlays" / f"{name}.png", image, predicted, wanted, reference.spacing_mm, title=title)
            if reference.spatial_dims == 3:
                shown = None if image is None else gray_of(image, 3)
                write_volume(out / "volumes", name, shown, predicted, wanted, reference.affine, labels)
    return warnings


def _image(pair: CasePair, reference: Scan) -> NDArray[Any] | None:
    """The scan of a case in canonical orientation, shape ``(C, *S)``; None if the case names none."""
    if not pair.images:
        return None
    scan = to_canonical(read_scan(pair.images, pair.channels))
    if difference := grid_difference(scan, reference):
        raise SkipSegError(f"scan and reference differ in {difference}")
    return scan.array


def _title(case: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Case and Dice of each class, nothing else: no path and no patient."""
    scores = [f"{row['class']} {row['dice']:.3f}" for row in rows if row["dice"] == row["dice"]]
    return f"{case}   Dice: {', '.join(scores)}"
