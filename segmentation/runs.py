"""What a run folder holds, and how anything is written so that an interruption cannot leave half a file.

Every result of the project goes to disk through :func:`atomic_path`: the bytes are written beside the
target, flushed to the disk, and renamed over it. A reader therefore sees the old file or the new one.
"""

import csv
import hashlib
import io
import json
import os
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segmentation import SkipSegError


def user_cache() -> Path:
    """The user's cache folder: ``$XDG_CACHE_HOME/skipseg``, by default ``~/.cache/skipseg``."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "skipseg"


@contextmanager
def atomic_path(target: Path) -> Generator[Path]:
    """Give a temporary path beside ``target`` and rename it over ``target`` when the block succeeds.

    The temporary name keeps the target's endings (``.nii.gz``), because writers choose the format by them.

    Args:
        target: The file to create or replace; its folder is created.

    Yields:
        The path to write to. If the block raises, it is removed and ``target`` is left as it was.

    Raises:
        OSError: If the disk is full or the folder cannot be written.

    Examples:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_path(target) as draft:
        ...     _ = draft.write_text("whole or not at all")
        >>> target.read_text()
        'whole or not at all'
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.parent / f".{uuid.uuid4().hex[:12]}.partial{''.join(target.suffixes)}"
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(target)
    except OSError as error:
        error.filename = str(target)  # the name that the user knows
        raise
    finally:
        draft.unlink(missing_ok=True)


def is_draft(path: Path) -> bool:
    """Tell whether ``path`` is what a killed :func:`atomic_path` left behind; nothing ever reads it."""
    return path.name.startswith(".") and ".partial" in path.name


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` to ``target`` whole or not at all."""
    with atomic_path(target) as draft:
        draft.write_bytes(content)


def write_text(target: Path, content: str) -> None:
    """Write UTF-8 text to ``target`` whole or not at all."""
    write_bytes(target, content.encode())


def write_json(target: Path, content: Any) -> None:
    """Write ``content`` as indented JSON; NaN and infinity are refused, write ``None`` instead."""
    write_text(target, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(source: Path) -> Any:
    """Read a JSON file.

    Raises:
        SkipSegError: If the file is missing or is not JSON; the message names it.
    """
    try:
        return json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SkipSegError(f"{source} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SkipSegError(f"{source} is not valid JSON ({error}); restore it or delete it and rerun") from None


def peek_json(source: Path) -> dict[str, Any]:
    """Read what may stand in a JSON file: its mapping, or an empty one if it cannot be read or holds none."""
    try:
        found = read_json(source)
    except (SkipSegError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def write_csv(target: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write ``rows`` as CSV with a header; a value of ``None`` or NaN becomes an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="raise")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: "" if value is None or value != value else value for key, value in row.items()})
    write_text(target, text.getvalue())


def read_csv(source: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header into one dictionary of strings a row.

    Raises:
        SkipSegError: If the file is missing or is not text.
    """
    try:
        with source.open(newline="", encoding="utf-8-sig") as stream:
            return list(csv.DictReader(stream))
    except FileNotFoundError:
        raise SkipSegError(f"{source} does not exist") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise SkipSegError(f"{source} is not a CSV text file ({error})") from None


def content_hash(content: Any) -> str:
    """Hash plain data independent of key order: 64 hexadecimal digits of SHA-256 over canonical JSON.

    Examples:
        >>> content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
        True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(source: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits, read in blocks."""
    with source.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
