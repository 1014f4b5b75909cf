"""Many clients at once: no job is lost, memory is bounded, and what is over the limits is refused politely.

    python -m tests.serve.load --seconds 120

Each client sends a scan, asks for a job, follows it and compares the mask with that of ``skipseg predict``, again and
again; when it is refused it waits as long as it is told.
"""

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.inference.test_predictor import ask, write_model, write_volume
from tests.serve.conftest import Server


@dataclass
class Load:
    """Clients that work on a server for some time; what they met is counted."""

    server: Server
    scan: Path
    expected: bytes
    seconds: float
    answers: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    accepted: dict[str, str] = field(default_factory=dict)
    right: int = 0
    waits: list[float] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=lambda: {"server": [], "all": []})

    def run(self, clients: int) -> dict[str, Any]:
        """Let the clients work; each waits for the job that it has when the time is over."""
        self._end = time.monotonic() + self.seconds
        threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self._look()
            time.sleep(0.5)
        return self._found(clients)

    def _client(self) -> None:
        """Work until the time is over."""
        with httpx.Client(base_url=self.server.client.base_url, timeout=120) as client:
            while time.monotonic() < self._end:
                try:
                    self._segment(client)
                except httpx.HTTPError as error:
                    self.faults.append(type(error).__name__)

    def _segment(self, client: httpx.Client) -> None:
        """One scan from upload to mask; given up when it is refused."""
        upload = self._asked(client, "POST", "/api/uploads", files={"file": self.scan.read_bytes()})
        if upload.status_code != 201:
            return
        wanted = {"upload": upload.json()["id"], "model": "volumes"}
        job = self._asked(client, "POST", "/api/jobs", json=wanted)
        if job.status_code == 202:
            self.accepted[job.json()["id"]] = "open"
            self._follow(client, job.json()["id"])

    def _follow(self, client: httpx.Client, id: str) -> None:
        """Wait for a job and compare its mask."""
        began = time.monotonic()
        while (job := self._asked(client, "GET", f"/api/jobs/{id}")).json().get("state") in ("queued", "running", None):
            if time.monotonic() > began + 600:
                return  # and is counted as open
            time.sleep(1)
        self.accepted[id] = job.json()["state"]
        self.waits.append(time.monotonic() - began)
        mask = self._asked(client, "GET", f"/api/jobs/{id}/result")
        self.right += mask.content == self.expected

    def _asked(self, client: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response:
        """Send a request; a refusal must say how long to wait."""
        answer = client.request(method, path, **content)
        self.answers[answer.status_code] += 1
        if answer.status_code == 429:
            wait = answer.headers.get("retry-after", "")
            if not wait.isdecimal():
                self.faults.append("429 without Retry-After")
            time.sleep(min(float(wait or 1), max(0.0, self._end - time.monotonic())))
        return answer

    def _look(self) -> None:
        """Measure the memory of the server, and of it with its workers."""
        server = psutil.Process(self.server.process.pid)
        total = 0
        for process in (server, *server.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        self.memory["server"].append(server.memory_info().rss)
        self.memory["all"].append(total)

    def _found(self, clients: int) -> dict[str, Any]:
        """What came of it."""
        half = len(self.memory["server"]) // 2
        megabytes = {name: [round(value / 1e6) for value in values] for name, values in self.memory.items()}
        return {
            "clients": clients,
            "seconds": self.seconds,
            "answers": dict(sorted(self.answers.items())),
            "faults": dict(Counter(self.faults)),
            "jobs_accepted": len(self.accepted),
            "jobs_by_state": dict(Counter(self.accepted.values())),
            "masks_right": self.right,
            "longest_wait_s": round(max(self.waits, default=0), 1),
            "server_mb_most_first_half": max(megabytes["server"][: half or 1]),
            "server_mb_most": max(megabytes["server"]),
            "with_workers_mb_most": max(megabytes["all"]),
        }


def measure(folder: Path, seconds: float, clients: int) -> dict[str, Any]:
    """Start a server, put it under load, and say what came of it."""
    write_model(folder / "models" / "volumes", 3)
    scan = write_volume(folder / "scan.nii.gz")
    (mask,) = ask(folder / "models" / "volumes", scan, folder / "masks")
    server = Server(folder / "models", folder, queue=16)
    try:
        return Load(server, scan, mask.read_bytes(), seconds).run(clients)
    finally:
        server.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="put a server under load")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), given.seconds, given.clients), indent=2))


if __name__ == "__main__":
    main()
