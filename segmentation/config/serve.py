"""Settings of the server."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from segmentation.config.checks import require, require_positive

SHORTEST_TOKEN = 16
"""Characters that a token has at least."""


@dataclass(frozen=True)
class ServeSettings:
    """Serve a web page, and an API, that segments scans by the models of a folder."""

    models: Path
    """Folder below which models lie: run folders, or what export --format torch wrote. Read anew when it changes."""
    runs: Path | None = None
    """Folder below which studies and runs lie, whose state and curves the page shows."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own needs a token."""
    port: int = 8000
    """Port to listen on."""
    names: list[str] = field(default_factory=list)
    """Host names by which the server is called, beside addresses and localhost: [scans.hospital.example]."""
    token: str | None = None
    """Secret of at least 16 characters that each request must carry; better given by the variable SKIPSEG_TOKEN, for
    other users of this machine can read a command line."""
    state: Path | None = None
    """Folder for uploads, jobs and results; otherwise below the user's cache folder."""
    queue: int = 32
    """Jobs that may wait or run at a time; more are refused."""
    workers: int = 1
    """Jobs that run at a time, each in a process of its own."""
    threads: int = 0
    """CPU threads of a job; 0 takes all cores."""
    memory: str = "4GiB"
    """Memory that the process of a job may take; one that takes more is ended."""
    minutes: float = 60.0
    """Time that a job may take; one that takes longer is ended."""
    upload: str = "2GiB"
    """Largest upload."""
    unpacked: str = "8GiB"
    """Most that an upload may hold when it is unpacked."""
    storage: str = "50GiB"
    """Room for all uploads and results together."""
    hours: float = 24.0
    """Time after which uploads and results are deleted."""
    rate: float = 20.0
    """Requests a second that one client may send, in bursts of ten times as many."""
    backend: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto"
    """Runtime of the network, as of `skipseg predict`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    check: bool = False
    """Start nothing, and ask the server that runs at this host and port whether it is well."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(0 < self.port < 65536, f"port must be in [1, 65535], got {self.port}")
        require_positive(self, "queue", "workers", "minutes", "hours", "rate")
        require(self.threads >= 0, f"threads must be at least 0, got {self.threads}")
        fits = self.token is None or is_token(self.token)
        require(fits, f"token must be at least {SHORTEST_TOKEN} printable characters without spaces")


def is_token(text: str) -> bool:
    """Tell whether a text can be a token: long enough, and of characters that a header of a request may hold."""
    return len(text) >= SHORTEST_TOKEN and re.fullmatch(r"[!-~]+", text) is not None
