import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from data_prep import fetch
from data_prep.disk import alone
from segmentation import SkipSegError

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves CONTENT at any address; breaks off, or ignores ranges, when told so."""

    resumes, breaks_at, ranges, delay_s = True, None, [], 0.0

    def do_GET(self):
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        time.sleep(self.delay_s)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.resumes else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.breaks_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[type[Server], str]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    handler = type("Handler", (Server,), {"ranges": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield handler, f"http://127.0.0.1:{running.server_port}/set.tar"
        running.shutdown()
        thread.join()


def test_download_is_checked_and_kept(server):
    handler, url = server
    file = fetch.download(url, "md5", MD5)
    assert file.read_bytes() == CONTENT
    assert fetch.download(url, "md5", MD5) == file
    assert len(handler.ranges) == 1


def test_two_programs_fetch_one_file_once(server):
    handler, url = server
    handler.delay_s = 0.5
    with ThreadPoolExecutor(2) as pool:  # the lock keeps threads apart as it does programs
        files = list(pool.map(lambda _: fetch.download(url, "md5", MD5), range(2)))
    assert [file.read_bytes() for file in files] == [CONTENT] * 2
    assert len(handler.ranges) == 1


@pytest.mark.parametrize("above", [False, True])
def test_dataset_in_the_cache_does_not_wait_for_itself(server, above):
    _, url = server
    with alone(fetch.cache_folder().parent if above else fetch.cache_folder()):
        assert fetch.download(url, "md5", MD5).read_bytes() == CONTENT


@pytest.mark.parametrize("resumes", [True, False])
def test_download_that_broke_off_is_resumed(server, resumes):
    handler, url = server
    handler.breaks_at = 3000
    with pytest.raises(SkipSegError, match=r"broke off at 3000 of 10240 bytes.*rerun to resume"):
        fetch.download(url, "md5", MD5)
    handler.breaks_at, handler.resumes = None, resumes
    assert fetch.download(url, "md5", MD5).read_bytes() == CONTENT
    assert handler.ranges == [None, "bytes=3000-"]


def test_whole_part_of_a_killed_download_is_taken(server):
    _, url = server
    fetch.cache_folder().mkdir(parents=True)
    (fetch.cache_folder() / "set.tar.part").write_bytes(CONTENT)
    assert fetch.download(url, "md5", MD5).read_bytes() == CONTENT


def test_a_damaged_file_in_the_cache_is_fetched_again(server):
    _, url = server
    fetch.download(url, "md5", MD5).write_bytes(b"damaged")
    assert fetch.download(url, "md5", MD5).read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_not_kept(server):
    _, url = server
    with pytest.raises(SkipSegError, match=f"set.tar.* has md5 {MD5}, not the expected 0000"):
        fetch.download(url, "md5", "0000")
    assert list(fetch.cache_folder().iterdir()) == []


def test_address_that_cannot_be_reached_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SkipSegError, match=r"could not be fetched .* --source"):
        fetch.download("http://127.0.0.1:9/set.tar", "md5", MD5)


def fake_pip(monkeypatch, returncode: int, stderr: str = "", **files: bytes) -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command, **_):
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    return calls


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.usefixtures("empty_cache")
def test_pip_brings_the_wheel_once(monkeypatch):
    calls = fake_pip(monkeypatch, 0, wheel=CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    for _ in range(2):
        assert fetch.pip_download("thing==1", "wheel", digest).read_bytes() == CONTENT
    assert len(calls) == 1
    assert calls[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "thing==1"} <= set(calls[0])
    assert [p.name for p in fetch.cache_folder().iterdir()] == ["wheel"]


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("returncode", "files", "message"),
    [
        (1, {}, r"pip could not fetch thing==1 \(ERROR: no network\); .* give wheel as --source"),
        (0, {"other": b""}, r"pip brought \['other'\] instead of wheel"),
        (0, {"wheel": b"tampered"}, "wheel has sha256 .* not the expected"),
    ],
)
def test_pip_failure_is_one_line_and_keeps_nothing(monkeypatch, returncode, files, message):
    fake_pip(monkeypatch, returncode, "warning\nERROR: no network\n", **files)
    with pytest.raises(SkipSegError, match=message):
        fetch.pip_download("thing==1", "wheel", hashlib.sha256(CONTENT).hexdigest())
    assert not list(fetch.cache_folder().glob("*"))
