"""What there is to segment: every scan of a file, a folder with all below it, a DICOM folder or a zip archive.

Nothing is guessed. A case that is not clear is given back with its problem, so that the others go on.
"""

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from segmentation import SkipSegError
from segmentation.inference.endings import as_file_name
from segmentation.scans import Scan, file_ending, read_scan, read_series
from segmentation.scans.archive import extract_zip
from segmentation.scans.find import ENDINGS, group_channels, known_ending, walk_folders
from segmentation.scans.series import Series, ask_series, choose_series, gather_series, is_dicom_file
from segmentation.scans.slices import Repair
from segmentation.scans.workspace import Workspace

ARCHIVE_BYTES = 256 << 30
"""Bytes that a zip archive may unpack to, as far as the disk has room for them."""

ARCHIVE_MEMBERS = 200_000
"""Members that a zip archive may have."""

_OURS = re.compile(r".*_(mask(\.seg)?|entropy|variance|probabilities(_.+)?)")
"""Names, without their ending, of results that lie beside scans."""

"""Ending of a scan to that of its mask, where they differ."""


@dataclass(frozen=True)
class Work:
    """One scan to segment, and where its mask goes.

    Attributes:
        name: Path of the scan below the input without its ending, parted by ``/``.
        paths: Its file, its channel files, or the slices of its DICOM series.
        series: SeriesInstanceUID of a DICOM series, else ``None``.
        target_folder: Folder of its mask.
        problem: Why it cannot be segmented, in one line, else ``None``.
        root: Folder in or below which all masks of the input lie.
        suffix: What the mask's name has behind the scan's: ``_mask`` where it lies beside the scan.
    """

    name: str
    paths: tuple[Path, ...]
    series: str | None
    target_folder: Path
    problem: str | None
    root: Path
    suffix: str = ""

    def target(self, ending: str, kind: str = "") -> Path:
        """Path of the mask, or of a map beside it.

        Args:
            ending: Such as ``".nii.gz"``.
            kind: Such as ``"probabilities"``; empty for the mask.

        Examples:
            >>> work = Work("lung/a", (), None, Path("out/lung"), None, Path("out"))
            >>> work.target(".png").as_posix(), work.target(".tif", "probabilities_left/lower").as_posix()
            ('out/lung/a.png', 'out/lung/a_probabilities_left-lower.tif')
        """
        stem = self.name.rpartition("/")[2]
        added = f"_{as_file_name(kind)}" if kind else self.suffix
        return self.target_folder / f"{stem}{added}{ending}"


@contextmanager
def find_work(source: Path, output: Path | None = None, series: str | None = None) -> Generator[list[Work], None, None]:
    """Find every scan of an input.

    In each folder, files named ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz`` are channels of one case. The DICOM files
    of a folder are one case a series. Hidden files, and files that are no scans, are passed over; so are results of
    ours where they lie beside the scans.

    Args:
        source: A scan's file; a folder, searched with everything below it; or a zip archive, which is unpacked into a
            temporary folder as long as the context lasts.
        output: Folder for the masks, laid out like ``source``; ``None`` puts each mask beside its scan, and those of
            an archive into a folder that is called like it.
        series: Which series of a DICOM folder that holds several, as for
            :func:`~segmentation.scans.series.choose_series`. With ``"all"`` each is a case ``FOLDER_123456``, by the
            last digits of its UID.

    Yields:
        The work in order of its names; what is not clear, such as several series, has a problem.

    Raises:
        SkipSegError: If there is no scan, the archive is refused, or ``output`` is where the scans are.
    """
    if not source.exists():
        raise SkipSegError(f"{source} does not exist; give a scan, a folder of scans, or a zip archive")
    if source.is_file() and source.suffix.lower() == ".zip":
        root = output or source.parent / source.stem
        with _unpacked(source, output or source.parent) as folder:
            yield _Search(folder, source.stem, root, output is None, series).works(str(source))
    elif source.is_file():
        yield [_file_work(source, output)]
    else:
        _check_output(source, output)
        search = _Search(source, source.resolve().name, output or source, output is None, series)
        yield search.works(str(source))


def read_work(
    work: Work,
    channels: int | None = None,
    *,
    repair: Collection[Repair] = (),
    workspace: Workspace | None = None,
) -> Scan:
    """Read a scan that was found.

    Args:
        work: Without a problem.
        channels: As for :func:`~segmentation.scans.read_scan`.
        repair: As for :func:`~segmentation.scans.read_series`.
        workspace: Where the voxels lie; ``None`` keeps them in memory.

    Raises:
        SkipSegError: If it cannot be read.
    """
    if work.series is None:
        return read_scan(work.paths, channels, workspace=workspace)
    return read_series(work.paths, series_uid=work.series, repair=repair, workspace=workspace)


@contextmanager
def _unpacked(archive: Path, parent: Path) -> Generator[Path, None, None]:
    """Unpack an archive into a hidden folder, which is removed in the end."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=parent) as name:
        extract_zip(archive, Path(name), min(ARCHIVE_BYTES, shutil.disk_usage(parent).free), ARCHIVE_MEMBERS)
        yield Path(name)


def _check_output(source: Path, output: Path | None) -> None:
    """Refuse a folder for the masks in which scans lie, which they might replace."""
    if output is None or not output.resolve().is_relative_to(source.resolve()):
        return
    holds_masks = (output / "manifest.json").is_file() or not any(_may_be_scan(file) for file in output.rglob("*"))
    if output.resolve() == source.resolve() or not holds_masks:
        raise SkipSegError(f"{output} holds the scans themselves; choose another folder for the masks")


def _may_be_scan(file: Path) -> bool:
    """Whether a file is named like a scan, or is of a DICOM series, which has no name of its own."""
    return known_ending(file) is not None or (file.is_file() and is_dicom_file(file))


def _file_work(source: Path, output: Path | None) -> Work:
    """The work of a single file."""
    if output is not None and output.resolve() == source.resolve().parent:
        raise SkipSegError(f"{output} holds the scan itself; choose another folder for the mask")
    if known_ending(source) is None and is_dicom_file(source):
        raise SkipSegError(f"{source} is one DICOM file; give the folder of its series")
    # CASE_0000 is the first channel of CASE, also when it is the only file named.
    name = source.name[: -len(file_ending(source))].removesuffix("_0000")
    folder = output or source.parent
    return Work(name, (source,), None, folder, None, folder, "" if output else "_mask")


@dataclass
class _Search:
    """A folder that is searched with everything below it.

    ``title`` names what lies in the folder itself; ``beside`` puts each mask into the folder of its scan.
    """

    top: Path
    title: str
    root: Path
    beside: bool
    series: str | None
    missed: list[Series] = field(default_factory=list)
    positions: dict[Work, frozenset[str]] = field(default_factory=dict)

    def works(self, source: str) -> list[Work]:
        """All work, in order of its names; ``source`` is the input's name for messages."""
        found = [work for folder, files in walk_folders(self.top, self.root) for work in self._in_folder(folder, files)]
        if not found and self.missed:
            raise SkipSegError(f"{source} holds no series {self.series}; found are {'; '.join(map(str, self.missed))}")
        if not found:
            raise SkipSegError(f"{source} holds no scans; known are {', '.join(ENDINGS)} and DICOM folders")
        return sorted(self._without_clashes(found), key=lambda work: work.name)

    def _in_folder(self, folder: Path, files: Sequence[Path] | OSError) -> Iterator[Work]:
        """Work of the files of one folder."""
        try:
            if isinstance(files, OSError):
                raise files
            dicom = [file for file in files if known_ending(file) is None and is_dicom_file(file)]
        except OSError as error:
            yield self._work(folder, "", (folder,), problem=f"{folder.name} cannot be read ({error.strerror})")
            return
        scans = [file for file in files if (ending := known_ending(file)) and not self._is_ours(file, ending)]
        cases, unclear = group_channels(scans)
        for name, paths in cases.items():
            yield self._work(folder, name, paths, problem=unclear.get(name))
        if dicom:
            yield from self._in_dicom(folder, tuple(dicom))

    def _is_ours(self, file: Path, ending: str) -> bool:
        """Tell results beside the scans by their names."""
        return self.beside and _OURS.fullmatch(file.name[: -len(ending)]) is not None

    def _in_dicom(self, folder: Path, files: tuple[Path, ...]) -> Iterator[Work]:
        """Work of the DICOM files of one folder; segmentations and the like are none."""
        try:
            gathered = dict(gather_series(files))
            by_uid = self.series not in (None, "all", "largest")
            if by_uid and self.series not in [series.uid for series in gathered]:
                self.missed += gathered
                return
            chosen = self._chosen(list(gathered)) if gathered else []
        except SkipSegError as error:
            yield self._work(folder, "", files, problem=str(error))
            return
        for series in chosen:
            added = "_" + re.sub(r"\D", "", series.uid)[-6:] if self.series == "all" else ""
            work = self._work(folder, "", series.files, series.uid, added=added)
            self.positions[work] = frozenset(str(header.get("ImagePositionPatient")) for header in gathered[series])
            yield work

    def _chosen(self, listing: list[Series]) -> list[Series]:
        """Series by the user's rule; without one the user is asked, if somebody sits at the terminal."""
        return ask_series(listing) if self.series is None else choose_series(listing, self.series)

    def _work(
        self,
        folder: Path,
        name: str,
        paths: tuple[Path, ...],
        series: str | None = None,
        problem: str | None = None,
        added: str = "",
    ) -> Work:
        """Work of a case in ``folder``, or of the DICOM series that the folder itself is."""
        place = folder.relative_to(self.top)
        inner = place / name if name else place if place.parts else Path(self.title)
        target = self.root / (place if self.beside or name else place.parent)
        suffix = "_mask" if self.beside else ""
        return Work(inner.as_posix() + added, paths, series, target, problem, self.root, suffix)

    def _without_clashes(self, found: list[Work]) -> Iterator[Work]:
        """The same work, with a problem where masks would meet, replace a scan, or be of a part of a series."""
        same: dict[Path, list[Work]] = defaultdict(list)
        parts: dict[str | None, list[Work]] = defaultdict(list)
        for work in found:
            same[work.target("")].append(work)
            parts[work.series].append(work)
        scans = {
            file.parent.resolve() / file.name.removesuffix(file.name[-len(ending) :])
            for work in found
            for file in work.paths
            if (ending := known_ending(file))
        }
        for work in found:
            alike, series = same[work.target("")], parts[work.series]
            problem = work.problem
            if len(alike) > 1:
                problem = problem or f"{' and '.join(map(_shown, alike))} would have one mask; rename one of them"
            if work.target("").resolve() in scans:
                problem = problem or "its mask would replace a scan of the input; choose another output"
            if self._is_part(work, series):
                folders = ", ".join(sorted(other.paths[0].parent.relative_to(self.top).as_posix() for other in series))
                problem = problem or f"its series lies in several folders ({folders}); put its slices into one"
            yield replace(work, problem=problem)

    def _is_part(self, work: Work, same_series: Sequence[Work]) -> bool:
        """Tell whether slices of the same series lie in another folder; copies of the same slices are none."""
        others = [other for other in same_series if other is not work and work.series is not None]
        return any(self.positions[work].isdisjoint(self.positions[other]) for other in others)


def _shown(work: Work) -> str:
    """A scan's file or folder for a message."""
    return (work.paths[0] if work.series is None else work.paths[0].parent).name
