"""Score predicted label maps against references: cases.csv, summary.json, and overlays of the worst cases.

Folder stands against folder, so that masks of any tool can be scored. Nothing here needs a network.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segmentation import SkipSegError
from segmentation.data.manifest import IGNORE, name_few, parse_channel_names, parse_label_remap, parse_labels
from segmentation.evaluation.pairs import CasePair, find_masks, naming, read_pair
from segmentation.evaluation.summary import rounded, summarise
from segmentation.evaluation.worst import draw_worst
from segmentation.metrics import COLUMNS, score_case
from segmentation.progress import track
from segmentation.runs import read_json, write_csv, write_json
from segmentation.scans import find_scans, read_label_map

CASE_COLUMNS = ("case", "patient", *COLUMNS, "note")
"""Columns of cases.csv."""

NO_PREDICTION = "no prediction"
"""Note of a case that has no prediction and was scored as an empty one."""

Summary = dict[str, Any]
"""Content of summary.json: that of :func:`segmentation.evaluation.summary.summarise`, and ``warnings``."""


def evaluate(
    pairs: Sequence[CasePair],
    out: Path,
    *,
    labels: Mapping[str, int],
    ignore_label: int | None,
    tolerance_mm: float,
    overlays: int,
    warnings: Sequence[str] = (),
) -> Summary:
    """Score every pair of label maps and write the folder ``out``. The same masks give the same bytes.

    Args:
        pairs: What to compare.
        out: Folder to write into.
        labels: Name and value of every foreground class.
        ignore_label: Value in the references of voxels that are left out; None for none.
        tolerance_mm: Tolerance of the surface Dice, in mm (pixels for pictures).
        overlays: How many cases to draw, lowest mean Dice first.
        warnings: What a reader of the summary must know about the choice of pairs.

    Returns:
        The content of summary.json.

    Raises:
        SkipSegError: If there is nothing to compare, a case is named twice, volumes and pictures are mixed, a
            file cannot be read, or the maps of a case lie on different grids or hold unnamed values.
    """
    if not pairs or not labels:
        raise SkipSegError(f"nothing to score: got {len(pairs)} cases and {len(labels)} foreground classes")
    if twice := [case for case, times in Counter(pair.case for pair in pairs).items() if times > 1]:
        raise SkipSegError(f"case names must be unique, got more than one {name_few(twice)}")
    rows_of: dict[str, list[dict[str, Any]]] = {}
    dims: set[int] = set()
    with track(pairs, "score", "cases") as read:
        for pair in read:
            prediction, reference = read_pair(pair)
            dims.add(reference.spatial_dims)
            with naming(pair.case):
                scores = score_case(
                    prediction.array[0], reference.array[0], reference.spacing_mm, labels, ignore_label, tolerance_mm
                )
            own = {"case": pair.case, "patient": pair.patient}
            note = {"note": "" if pair.prediction else NO_PREDICTION}
            rows_of[pair.case] = [own | row | note for row in scores]
    if len(dims) > 1:
        raise SkipSegError("volumes and pictures cannot share a table: mm and pixels differ; score them apart")
    rows = [row for of_case in rows_of.values() for row in of_case]
    not_shown = draw_worst(pairs, rows_of, out, labels, ignore_label, overlays)
    summary = summarise(rows, tolerance_mm, unit="px" if dims == {2} else "mm")
    summary["warnings"] = [*warnings, *not_shown]
    write_csv(out / "cases.csv", rounded(rows), CASE_COLUMNS)
    write_json(out / "summary.json", summary)
    return summary


def evaluate_folders(
    predictions: Path,
    references: Path,
    out: Path,
    *,
    images: Path | None = None,
    labels: Mapping[str, int] | None = None,
    ignore_label: int | None = None,
    tolerance_mm: float = 2.0,
    overlays: int = 12,
    patients: Mapping[str, str] | None = None,
) -> Summary:
    """Score a folder of label maps against a folder of references, matched by file name without ending.

    Classes, ignore label, patients and remapping of stored values come from the ``dataset.json`` beside the
    folder of references, if there is one; what is given as argument goes first. Without either, the classes are
    the values found in the references, and every case is its own patient. A reference without prediction is
    scored as an empty prediction; a prediction without reference is named in the summary's warnings.

    Args:
        predictions: Folder of predicted label maps, of any tool and any known format.
        references: Folder of annotated label maps.
        out: Folder to write into.
        images: Folder of the scans, for the overlays.
        labels: Class name to value; background and an entry ``ignore`` may be among them.
        ignore_label: Value in the references of voxels that are left out.
        tolerance_mm: Tolerance of the surface Dice, in mm (pixels for pictures).
        overlays: How many cases to draw, lowest mean Dice first.
        patients: Case to patient.

    Returns:
        The content of summary.json.

    Raises:
        SkipSegError: As :func:`evaluate`, or if a folder holds no label maps, the two have no case in common, or
            two of the three folders are the same.
    """
    if len({folder.resolve() for folder in (predictions, references, out)}) < 3:
        raise SkipSegError(
            f"predictions, references and out must be three folders, got {predictions}, {references}, {out}"
        )
    predicted, annotated = find_masks(predictions), find_masks(references)
    if not predicted.keys() & annotated.keys():
        raise SkipSegError(
            f"no case in common: {predictions} holds {name_few(list(predicted), 3)}, {references} holds "
            f"{name_few(list(annotated), 3)}; predictions and references must have the same file names"
        )
    described = _description(references.parent / "dataset.json", labels)
    scans = find_scans(images) if images else {}
    of_patient = patients if patients is not None else described["patients"]
    pairs = [
        CasePair(
            case,
            of_patient.get(case, case),
            predicted.get(case),
            path,
            scans.get(case, ()),
            described["remap"],
            described["channels"],
        )
        for case, path in annotated.items()
    ]
    classes = dict(described["labels"] or _found_labels(pairs))
    named_ignore = classes.pop(IGNORE, None)
    ignore_label = named_ignore if ignore_label is None else ignore_label
    foreground = {name: value for name, value in classes.items() if value not in (0, ignore_label)}
    return evaluate(
        pairs,
        out,
        labels=foreground,
        ignore_label=ignore_label,
        tolerance_mm=tolerance_mm,
        overlays=overlays,
        warnings=_warnings(pairs, sorted(predicted.keys() - annotated.keys()), of_patient, bool(images)),
    )


def _description(path: Path, given: Mapping[str, int] | None) -> dict[str, Any]:
    """Labels, unless they are given, and remapping, patients and channels of a dataset.json, as far as it says them."""
    content = read_json(path) if path.is_file() else {}
    labels = dict(given or {}) or (parse_labels(content["labels"], path) if "labels" in content else {})
    names = content.get("channel_names") or content.get("modality")
    return {
        "labels": labels,
        "remap": parse_label_remap(content.get("label_remap", {}), None if given else labels, path),
        "patients": content.get("patients", {}),
        "channels": len(parse_channel_names(names, path)) if names else None,
    }


def _found_labels(pairs: Sequence[CasePair]) -> dict[str, int]:
    """Every value but 0 that a reference holds."""
    found: set[int] = set()
    with track(pairs, "find labels", "cases") as read:
        for pair in read:
            found |= set(np.unique(read_label_map(pair.reference).array).tolist())
    return {f"label {value}": value for value in sorted(found - {0})}


def _warnings(
    pairs: Sequence[CasePair], without_reference: Sequence[str], patients: Mapping[str, str], with_images: bool
) -> list[str]:
    """Sentences about cases that lack something."""
    missing = [pair.case for pair in pairs if pair.prediction is None]
    alone = [pair.case for pair in pairs if pair.case not in patients]
    unseen = [pair.case for pair in pairs if with_images and not pair.images]
    sentences = [
        (missing, "without prediction, scored as an empty one"),
        (without_reference, "without reference, not scored"),
        (alone, "without a known patient, counted as one patient each"),
        (unseen, "without scan, drawn as masks alone"),
    ]
    return [f"{sentence} ({len(cases)}): {name_few(cases)}" for cases, sentence in sentences if cases]
