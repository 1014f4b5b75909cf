"""Find the scans of a folder, by file ending and by the numbers of their channels."""

import re
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from segmentation import SkipSegError
from segmentation.scans import metaimage, nifti, nrrd, picture
from segmentation.scans.series import is_dicom_file, is_series_folder

ENDINGS = (*nifti.ENDINGS, *nrrd.ENDINGS, *metaimage.ENDINGS, *picture.ENDINGS)
"""File endings that are read, without the DICOM series, which is a folder."""

_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def find_scans(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Find the scans in a folder: case name to its channel files.

    Files named ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz`` are channels of one case. A folder of DICOM files is
    one case, and so is each of its folders that holds some. Hidden files are skipped.

    Args:
        folder: Folder of scans, or of one DICOM series.

    Returns:
        Case names in order, each with its channel files in order.

    Raises:
        SkipSegError: If the folder is missing, unreadable or without scans, or a case is not clear.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        files = [entry for entry in entries if entry.is_file()]
        cases, unclear = group_channels([file for file in files if known_ending(file) is not None])
        if unclear:
            raise SkipSegError(next(iter(unclear.values())))
        if any(is_dicom_file(file) for file in files if known_ending(file) is None):
            cases[folder.resolve().name] = (folder,)
        else:
            cases |= {entry.name: (entry,) for entry in entries if is_series_folder(entry)}
    except OSError as error:
        raise SkipSegError(f"{folder} cannot be read ({error.strerror}); give a folder of scans") from None
    if not cases:
        raise SkipSegError(f"{folder} holds no scans; known are {', '.join(ENDINGS)} and DICOM folders")
    return dict(sorted(cases.items()))


def group_channels(files: Sequence[Path]) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """Group the files of one folder into cases; a suffix counts as a channel only where its case has a channel 0000.

    Args:
        files: Files with known endings, sorted.

    Returns:
        Case name to its channel files in order, and the names of cases that are not clear to what is wrong with them.

    Examples:
        >>> cases, unclear = group_channels([Path(name) for name in ("a_0000.nii", "a_0001.nii", "b.nii", "b.png")])
        >>> [file.name for file in cases["a"]], list(unclear)
        (['a_0000.nii', 'a_0001.nii'], ['b'])
    """
    stems = {file: file.name[: -len(file_ending(file))] for file in files}
    firsts = {stem.removesuffix("_0000") for stem in stems.values() if stem.endswith("_0000")}
    cases: dict[str, list[Path]] = defaultdict(list)
    channels: dict[str, list[int]] = defaultdict(list)
    for file, stem in stems.items():
        match = _CHANNEL.fullmatch(stem)
        is_channel = match is not None and match["case"] in firsts
        name = match["case"] if match and is_channel else stem
        cases[name].append(file)
        channels[name].append(int(match["channel"]) if match and is_channel else 0)
    unclear = {
        name: f"case {name} has {', '.join(file.name for file in cases[name])}: expected one file, or channels "
        "0000, 0001, ... without gaps or doubles; rename or remove files"
        for name, numbers in channels.items()
        if numbers != list(range(len(numbers)))
    }
    return {name: tuple(paths) for name, paths in cases.items()}, unclear


def walk_folders(top: Path, skipped: Path | None = None) -> Iterator[tuple[Path, list[Path] | OSError]]:
    """Walk through a folder and everything below it; hidden entries are passed over.

    Args:
        top: Where to start.
        skipped: Folder that is left out with everything below it, unless it is ``top``.

    Yields:
        Each folder once, though links may lead back to it, with its files or with why it cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    if skipped is not None and skipped.is_dir() and skipped.resolve() != top.resolve():
        seen.add(_identity(skipped))
    folders, links = deque([top]), deque[Path]()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        try:
            if (identity := _identity(folder)) in seen:
                continue
            seen.add(identity)
            entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
            files = [entry for entry in entries if entry.is_file()]
            for entry in entries:
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(entry)
        except OSError as error:
            yield folder, error
        else:
            yield folder, files


def _identity(folder: Path) -> tuple[int, int]:
    """What tells a folder from every other, by whichever path it is reached."""
    about = folder.stat()
    return about.st_dev, about.st_ino


def file_ending(path: Path) -> str:
    """Ending by which the format is chosen, in lower case.

    Raises:
        SkipSegError: If no known format has it.

    Examples:
        >>> file_ending(Path("case.v2_0000.nii.gz"))
        '.nii.gz'
    """
    if (ending := known_ending(path)) is None:
        raise SkipSegError(f"{path.name}: unknown format; known are {', '.join(ENDINGS)} and DICOM folders")
    return ending


def known_ending(path: Path) -> str | None:
    """Ending of a file name, in lower case, or ``None`` if no format has it."""
    return next((ending for ending in sorted(ENDINGS, key=len)[::-1] if path.name.lower().endswith(ending)), None)
