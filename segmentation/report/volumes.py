"""Volumes of a case for the viewer of the page: its scan once, and the errors of every condition over it."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmentation import SkipSegError
from segmentation.evaluation.overlays import COLOURS
from segmentation.report.tables import clean
from segmentation.runs import read_json

_GZIP = b"\x1f\x8b"

_HIGHEST_CODE = 65535


@dataclass(frozen=True)
class CaseVolume:
    """What viewer.js shows of one case.

    Attributes:
        content: Plain data for JSON: ``case``, ``note``, ``image`` and ``masks``, with files in base64.
        size: Characters of the files in ``content``.
    """

    content: Mapping[str, Any]
    size: int


@dataclass(frozen=True)
class _Errors:
    """The three files that evaluation wrote of one case under one condition."""

    condition: str
    image: bytes
    codes: bytes
    shrunk: tuple[int, ...]
    window: tuple[float, float]
    at_mm: tuple[float, ...]
    labels: Sequence[Mapping[str, Any]]


def read_volume(case: str, sources: Sequence[tuple[str, Path]]) -> CaseVolume | None:
    """Collect the volumes of a case, ``None`` where no condition has any that can be read.

    Args:
        case: Name of the case.
        sources: Conditions, each with the JSON file that :mod:`segmentation.evaluation.volumes` writes.
    """
    found = [each for condition, path in sources if (each := _read(condition, path)) is not None]
    if not found:
        return None
    shown = [each for each in found if each.image == found[0].image]  # one scan below all of them
    image = {"name": clean(case), "data": _text(found[0].image), "window": list(found[0].window)}
    masks = [
        {"name": clean(each.condition), "data": _text(each.codes), "at": list(each.at_mm), "labels": each.labels}
        for each in shown
    ]
    note = "Shrunk by {}, {} and {} along its axes.".format(*found[0].shrunk) if max(found[0].shrunk) > 1 else ""
    content = {"case": clean(case), "note": note, "image": image, "masks": masks}
    return CaseVolume(content, len(image["data"]) + sum(len(mask["data"]) for mask in masks))


def _read(condition: str, path: Path) -> _Errors | None:
    """Read what one run wrote; anything missing or not of this form counts as absent."""
    if not path.is_file():
        return None
    try:
        facts = read_json(path)
        low, high = (float(bound) for bound in facts["window"])
        at_mm = tuple(float(value) for value in facts["at_mm"])
        shrunk = tuple(int(factor) for factor in facts["shrunk"])
        classes = {str(entry["class"]) for entry in facts["labels"]}
        labels = [_label(entry, len(classes) > 1) for entry in facts["labels"]]
        image, codes = (path.with_name(f"{path.stem}_{part}.nii.gz").read_bytes() for part in ("image", "errors"))
    except (SkipSegError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None
    whole = len(at_mm) == len(shrunk) == 3 and all(math.isfinite(value) for value in (low, high, *at_mm))
    if not whole or not (image.startswith(_GZIP) and codes.startswith(_GZIP)):
        return None
    return _Errors(condition, image, codes, shrunk, (low, high), at_mm, labels)


def _label(entry: Mapping[str, Any], named: bool) -> dict[str, Any]:
    """One code with its colour; the class is named where there are several."""
    kind, value = str(entry["kind"]), int(entry["value"])
    if not 0 < value <= _HIGHEST_CODE:
        raise ValueError(value)
    colour = "#" + "".join(f"{round(255 * part):02x}" for part in COLOURS[kind])
    name = f"{clean(str(entry['class']))}: {kind}" if named else kind
    return {"value": value, "name": name, "colour": colour}


def _text(content: bytes) -> str:
    """Base64."""
    return base64.b64encode(content).decode()
