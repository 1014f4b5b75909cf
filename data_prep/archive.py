"""Open a source at hand: a folder as it is, or a zip or tar archive, unpacked so that nothing can leave its folder."""

import errno
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from data_prep.disk import writing
from segmentation import SkipSegError

_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,  # of a zip with a compression that Python does not know, as a damaged one may claim
)
"""What the readers of archives raise for damaged ones, besides an OSError."""
_DAMAGED_ERRNO = (None, errno.EINVAL)
"""Numbers of an OSError that tells of damage: gzip and bzip2 give none, a zip may send to before its start."""

_ENCRYPTED = 1
"""Bit of a zip member's flags."""
_FILL = 0.9
"""Share of the free disk that the files of an archive may take."""
_PIECE_BYTES = 1 << 20


@contextmanager
def opened(source: Path, out: Path, only: str = "") -> Generator[Path, None, None]:
    """Give a folder to read ``source`` from; a copy unpacked beside ``out`` is removed afterwards.

    Args:
        source: A folder, or a ``.zip``, ``.whl``, ``.tar`` or compressed tar archive.
        out: Dataset folder that is being made.
        only: Unpack only what lies under this folder of the archive.

    Yields:
        The folder.

    Raises:
        SkipSegError: If ``source`` does not exist, is no archive, is damaged or unsafe.
    """
    if not source.exists():
        raise SkipSegError(f"source {source} does not exist; give a folder or an archive")
    unpacked = out.parent / f".{out.name}.unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)  # left over from a killed run
    if source.is_dir():
        yield source
        return
    try:
        with writing(unpacked):
            unpack(source, unpacked, only)
        yield unpacked
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


class _Member(NamedTuple):
    """One entry of an archive."""

    name: str
    is_folder: bool
    is_file: bool
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path, only: str = "") -> None:
    """Unpack a zip or tar archive into ``folder``, refusing anything but plain files inside it.

    Args:
        archive: The archive, told by its content and not by its ending.
        folder: Where to; created.
        only: Unpack only what lies under this folder of the archive.

    Raises:
        SkipSegError: If a member would land outside ``folder``, is encrypted, a link or a device, or the archive is
            damaged or too large for the disk.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _write_members(archive, folder, only, _zip_members(zipped))
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tarred:
                _write_members(archive, folder, only, _tar_members(tarred))
        else:
            raise SkipSegError(f"{archive} is neither a folder nor a zip or tar archive; give one of these as source")
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGED_ERRNO:  # the disk's
            raise
        raise SkipSegError(f"{archive} is damaged ({error}); fetch it again") from None


def _zip_members(bundle: zipfile.ZipFile) -> Iterator[_Member]:
    for info in bundle.infolist():
        if info.flag_bits & _ENCRYPTED:
            raise SkipSegError(f"{bundle.filename} is encrypted; unpack it and give the folder")
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 when the archive was made without Unix modes
        plain = not info.is_dir() and kind in (0, stat.S_IFREG)
        yield _Member(info.filename, info.is_dir(), plain, info.file_size, partial(bundle.open, info))


def _tar_members(bundle: tarfile.TarFile) -> Iterator[_Member]:
    for info in bundle:
        yield _Member(info.name, info.isdir(), info.isreg(), info.size, partial(bundle.extractfile, info))
    # tarfile takes a cut-off archive for a shorter one: demand the closing zeros, and read a checksum behind them
    stream = cast("IO[bytes]", bundle.fileobj)
    stream.seek(bundle.offset)
    if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends too early")
    while stream.read(_PIECE_BYTES):
        pass


def _write_members(archive: Path, folder: Path, only: str, members: Iterator[_Member]) -> None:
    """Copy plain files to ``folder``, after a check of every name and of the sizes, beyond which no reader goes."""
    folder.mkdir(parents=True)
    room = _FILL * shutil.disk_usage(folder).free
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in member.name:
            raise SkipSegError(f"{archive} holds {member.name!r}, which would land outside its folder; do not use it")
        if member.is_folder or not path.is_relative_to(only):
            continue
        content = member.open() if member.is_file else None
        if content is None:
            raise SkipSegError(f"{archive} holds {member.name!r}, a link or device; unpack it and give the folder")
        room -= member.size
        if room < 0:
            raise SkipSegError(f"{archive} unpacks to more than fits on the disk of {folder}; make room there")
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as stream:
                shutil.copyfileobj(content, stream)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise SkipSegError(
                f"{archive} holds {member.name!r} and a file or folder in its way; unpack it and give the folder"
            ) from None


def locate(folder: Path, markers: Iterable[str], layout: str) -> tuple[Path, str]:
    """Find where a source begins: archives and copies nest it in one or two folders.

    Args:
        folder: Where to look, two levels deep.
        markers: Glob patterns, each of which tells a layout, in the order to look for them.
        layout: What is expected, for the message.

    Returns:
        The folder that holds a marker, and the marker.

    Raises:
        SkipSegError: If there is none.
    """
    candidates = [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]
    for marker in markers:
        for candidate in candidates:
            if any(candidate.glob(marker)):
                return candidate, marker
    raise SkipSegError(f"the source holds none of {', '.join(markers)}; expected {layout}")
