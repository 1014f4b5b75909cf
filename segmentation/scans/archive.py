"""Unpack a zip archive that somebody else made: nothing of it leaves the folder, grows without bound, or is guessed.

An archive is refused as a whole when one member is not what a folder of scans needs. Archives within it stay packed.
"""

import lzma
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from segmentation import SkipSegError

_BLOCK_BYTES = 1 << 20
_DEEPEST = 32
_LONGEST_NAME_BYTES = 255
_ENCRYPTED = 1
"""Bit of a member's flags."""

_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    NotImplementedError,  # zipfile's for a compression that it does not know
    OverflowError,
    RuntimeError,
    UnicodeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zlib.error,
)


def extract_zip(archive: Path, folder: Path, limit_bytes: int, limit_files: int) -> None:
    """Unpack the regular files of a zip archive.

    Sizes are counted while they are unpacked, whatever the archive declares, and every checksum is compared.

    Args:
        archive: The archive.
        folder: Empty or absent folder to unpack into. After an error it may hold some files.
        limit_bytes: Bytes that all files together may have.
        limit_files: Members that the archive may have.

    Raises:
        SkipSegError: If ``folder`` holds something; if the archive is missing, damaged or beyond a limit; if a member
            is encrypted, a link or a device, or its name leaves the folder, names a drive, holds a backslash or
            differs from another's only in case.
        OSError: If the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SkipSegError(f"{folder} is not empty; unpack {archive.name} into a new folder")
    with _one_line_errors(archive), zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        if len(members) > limit_files:
            raise SkipSegError(f"{archive.name} has {len(members)} members, more than {limit_files}; split it")
        for member in members:
            if fault := _fault(member):
                raise SkipSegError(f"{archive.name}: {_shown(member)} {fault}; make the archive again without it")
        if twice := _met_twice(members):
            raise SkipSegError(f"{archive.name}: {_shown(twice)} is there twice; make the archive again")
        room = limit_bytes
        for member in members:
            if not member.is_dir():
                room -= _unpack(opened, member, folder, room)
        time = archive.stat().st_mtime_ns  # of the same archive the files are the same, and not taken for new ones
        for file in folder.rglob("*"):
            os.utime(file, ns=(time, time))


@contextmanager
def _one_line_errors(archive: Path) -> Generator[None, None, None]:
    """Turn whatever is wrong with an archive into one line, which repeats nothing out of it."""
    try:
        yield
    except SkipSegError:
        raise
    except FileNotFoundError:
        raise SkipSegError(f"{archive} does not exist") from None
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; bzip2 raises one without a number
            raise
        reason = "a checksum differs" if "CRC" in str(error) else "is it complete, and a common zip?"
        raise SkipSegError(f"{archive.name} cannot be unpacked ({reason}); make it again") from None


def _fault(member: zipfile.ZipInfo) -> str | None:
    """What is wrong with a member that is no regular file or folder, or whose name leads out of the folder."""
    name, kind = member.orig_filename, stat.S_IFMT(member.external_attr >> 16)
    parts = name.removesuffix("/").split("/")
    faults = {
        "is encrypted": bool(member.flag_bits & _ENCRYPTED),
        "is a link or a device": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "has an absolute path": name.startswith("/") or re.match("[A-Za-z]:", name) is not None,
        "leads out of its folder": ".." in parts,
        "has a backslash in its path": "\\" in name,
        "has no proper name": any(part in ("", ".") or not part.isprintable() for part in parts),
        "has too long a path": len(parts) > _DEEPEST or any(len(part.encode()) > _LONGEST_NAME_BYTES for part in parts),
    }
    return next((fault for fault, found in faults.items() if found), None)


def _met_twice(members: Sequence[zipfile.ZipInfo]) -> zipfile.ZipInfo | None:
    """A file whose path another file or folder has too, as a disk sees it that does not tell case apart."""
    files: dict[str, zipfile.ZipInfo] = {}
    folders: set[str] = set()
    for member in members:
        path = unicodedata.normalize("NFC", member.filename.removesuffix("/")).casefold()
        parts = path.split("/")
        folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + member.is_dir())}
        if not member.is_dir():
            if path in files:
                return member
            files[path] = member
    return next((member for path, member in files.items() if path in folders), None)


def _shown(member: zipfile.ZipInfo) -> str:
    """Last part of a member's name for a message."""
    last = re.split(r"[/\\]", member.orig_filename.rstrip("/\\"))[-1]
    return repr("".join(letter if letter.isprintable() else "?" for letter in last[:60]))


def _unpack(opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, room: int) -> int:
    """Unpack one file that may have up to ``room`` bytes; gives how many it has."""
    target = folder / member.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with opened.open(member) as source, target.open("xb") as out:
        while block := source.read(_BLOCK_BYTES):
            size += len(block)
            if size > room:
                name = Path(str(opened.filename)).name
                raise SkipSegError(f"{name} unpacks to more than the bytes that are allowed; split it")
            out.write(block)
    return size
