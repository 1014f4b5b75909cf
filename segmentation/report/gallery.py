"""Overlay pictures of the same case side by side across conditions, worst cases first, inside the page.

Cases that have volumes can be opened in the viewer, as far as the page has room for them.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape
from PIL import Image, UnidentifiedImageError

from segmentation.report.html import script
from segmentation.report.read import Run, Study
from segmentation.report.tables import clean
from segmentation.report.viewer import ViewerAssets, viewer_assets
from segmentation.report.volumes import CaseVolume, read_volume

MOST_CHARACTERS = 4_100_000
"""Room for pictures, volumes and NiiVue in one page, in base64; with all the rest it stays under 5 MB."""

MOST_VOLUME_CHARACTERS = 1_600_000
"""Room for volumes, in base64."""

QUALITY = 85
"""Of pictures as lossy WebP, of 100: a third of the PNG, and no difference that the eye finds."""


@dataclass(frozen=True)
class Picture:
    """One overlay, ready for an ``img`` element.

    Attributes:
        condition: Whose prediction it shows.
        data: ``data:`` address of the picture; empty where this condition has no overlay of the case.
        width, height: Size in pixels, 0 where there is none.
        run: Name of the run it comes from.
        score: Primary score of the case in that run, ``None`` without a value.
        mask: Which mask of the case's volume shows the same, ``None`` for none.
    """

    condition: str
    data: str = ""
    width: int = 0
    height: int = 0
    run: str = ""
    score: float | None = None
    mask: int | None = None


@dataclass(frozen=True)
class CaseRow:
    """The overlays of one case, one per condition in the study's order, and its volume for the viewer."""

    case: str
    patient: str
    pictures: Sequence[Picture]
    volume: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Gallery:
    """What is shown.

    Attributes:
        rows: Cases, worst first.
        available: How many cases have overlays at all.
        with_volume: How many of them have a volume.
        assets: The viewer; ``None`` where it is not installed or nothing is there to show.
    """

    rows: Sequence[CaseRow]
    available: int
    with_volume: int = 0
    assets: ViewerAssets | None = None

    @cached_property
    def scripts(self) -> list[Markup]:
        """Scripts that the page needs, none without volumes."""
        return [Markup(self.assets.script), script("gallery.js")] if self.assets and self.openable else []

    @cached_property
    def niivue(self) -> Markup:
        """NiiVue in base64."""
        return Markup(base64.b64encode(self.assets.niivue).decode() if self.assets else "")

    @property
    def licence(self) -> Markup:
        """Licence of NiiVue with its line breaks, escaped."""
        return escape(self.assets.licence if self.assets else "")

    @property
    def openable(self) -> int:
        """How many cases open in the viewer."""
        return sum(row.volume is not None for row in self.rows) if self.assets else 0


_Overlay = tuple[Run, Path]


def collect(study: Study, results: Mapping[str, Any], most: int = MOST_CHARACTERS) -> Gallery:
    """Choose overlays and volumes, worst cases first, until the page has no more room for a whole case.

    Args:
        study: The study, for its run folders.
        results: Content of results.json, for the order of the cases.
        most: Limit of all that is embedded, in characters.
    """
    cases = [(case["case"], case["patient"]) for case in results["cases"]]
    found = {name: _overlays(study.runs_of(name), [case for case, _ in cases]) for name in study.conditions}
    drawn = {case: patient for case, patient in cases if any(case in files for files in found.values())}
    files = {case: [(name, found[name].get(case)) for name in study.conditions] for case in drawn}
    volumes, with_volume = _volumes(files)
    assets = viewer_assets() if with_volume else None
    volumes = volumes if assets else {}
    room = most - sum(volume.size for volume in volumes.values()) - (len(assets.niivue) * 4 // 3 if assets else 0)
    rows: list[CaseRow] = []
    for case, patient in drawn.items():
        row = _row(case, patient, files[case], results["primary_metric"], volumes.get(case))
        room -= sum(len(picture.data) for picture in row.pictures)
        if room < 0:
            break
        rows.append(row)
    return Gallery(rows, len(drawn), with_volume, assets)


def _overlays(runs: Sequence[Run], cases: Sequence[str]) -> dict[str, _Overlay]:
    """Case to the overlay of the first run (lowest seed) that drew it."""
    found: dict[str, _Overlay] = {}
    for run in sorted(runs, key=lambda run: (run.seed, run.fold)):
        own = {row.case for row in run.rows}.intersection(cases)
        for file in sorted((run.folder / "evaluation" / "overlays").glob("*.png")):
            case = file.stem.partition("_")[2]  # after its rank
            if case in own:
                found.setdefault(case, (run, file))
    return found


def _volumes(
    files: Mapping[str, Sequence[tuple[str, _Overlay | None]]],
) -> tuple[dict[str, CaseVolume], int]:
    """Volumes of the first cases that fit into the page, and how many cases have any."""
    chosen: dict[str, CaseVolume] = {}
    room, available = MOST_VOLUME_CHARACTERS, 0
    for case, overlays in files.items():
        sources = [(name, _volume_file(overlay[1])) for name, overlay in overlays if overlay is not None]
        if room < 0:
            available += any(path.is_file() for _, path in sources)
        elif (volume := read_volume(case, sources)) is not None:
            available += 1
            room -= volume.size
            if room >= 0:
                chosen[case] = volume
    return chosen, available


def _volume_file(overlay: Path) -> Path:
    """What evaluation writes of a volume beside its overlay."""
    return overlay.parents[1] / "volumes" / f"{overlay.stem}.json"


def _row(
    case: str,
    patient: str,
    overlays: Sequence[tuple[str, _Overlay | None]],
    measure: str,
    volume: CaseVolume | None,
) -> CaseRow:
    """Pictures of one case, each knowing which mask of the volume shows the same."""
    masks = [mask["name"] for mask in volume.content["masks"]] if volume else []
    with ThreadPoolExecutor() as pool:  # most of the time of a page is spent on encoding, which holds no lock
        pictures = list(pool.map(lambda each: _picture(each[0], case, measure, each[1], masks), overlays))
    return CaseRow(case, patient, pictures, volume.content if volume else None)


def _picture(condition: str, case: str, measure: str, overlay: _Overlay | None, masks: Sequence[str]) -> Picture:
    """Embed one picture; anything that is not a PNG is treated as absent."""
    found = _webp(overlay[1]) if overlay else None
    if overlay is None or found is None:
        return Picture(condition)
    content, (width, height) = found
    run = overlay[0]
    scores = [row.values[measure] for row in run.rows if row.case == case and measure in row.values]
    return Picture(
        condition,
        f"data:image/webp;base64,{base64.b64encode(content).decode()}",
        width,
        height,
        run.id,
        sum(scores) / len(scores) if scores else None,
        masks.index(clean(condition)) if clean(condition) in masks else None,
    )


def _webp(path: Path) -> tuple[bytes, tuple[int, int]] | None:
    """A PNG as WebP, lossless where that is smaller, and its size in pixels; None for what is no PNG."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            picture = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    contents: list[bytes] = []
    for settings in ({"lossless": True, "method": 2}, {"quality": QUALITY, "method": 4}):
        stream = io.BytesIO()
        picture.save(stream, "WEBP", **settings)
        contents.append(stream.getvalue())
    return min(contents, key=len), picture.size
