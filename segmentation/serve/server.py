"""``skipseg serve``: one server a state folder, on this machine alone unless there is a token."""

import contextlib
import http.client
import ipaddress
import json
import logging
import os
from typing import Any

import uvicorn

from segmentation import SkipSegError
from segmentation.config import ServeSettings
from segmentation.config.serve import SHORTEST_TOKEN, is_token
from segmentation.serve.app import build, state_folder
from segmentation.training.lock import locked

VARIABLE = "SKIPSEG_TOKEN"
"""Environment variable that may hold the token."""

_OPEN_REQUESTS = 256
_PATIENCE_SECONDS = 5


def serve(settings: ServeSettings) -> int:
    """Serve until interrupted.

    Raises:
        SkipSegError: If another machine could reach the server without a token, a folder is missing, another server
            has the state folder, or the port is taken.
    """
    token = token_of(settings)
    for folder in filter(None, (settings.models, settings.runs)):
        if not folder.is_dir():
            raise SkipSegError(f"{folder} is not a folder; give the folder below which models or runs lie")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with locked(state_folder(settings)):
        config = uvicorn.Config(
            build(settings, token),
            settings.host,
            settings.port,
            access_log=False,  # it would hold the names of uploads
            log_config=None,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=_OPEN_REQUESTS,
            timeout_graceful_shutdown=_PATIENCE_SECONDS,
        )
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        print(f"SkipSeg serves at http://{host}:{settings.port}; Ctrl-C ends it", flush=True)
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):  # raised again once everything has ended
            server.run()
        return 0 if server.started else 1


def token_of(settings: ServeSettings) -> str | None:
    """The token that requests must carry; None if none is needed.

    Raises:
        SkipSegError: If one is needed, or the variable holds none that will do.
    """
    token = settings.token or os.environ.get(VARIABLE) or None
    if token is not None and not is_token(token):
        raise SkipSegError(f"{VARIABLE} must hold at least {SHORTEST_TOKEN} printable characters without spaces")
    if token is None and not _is_own(settings.host):
        raise SkipSegError(
            f"{settings.host} can be reached from other machines, so a token is needed: set {VARIABLE} to a secret "
            f"of at least {SHORTEST_TOKEN} characters, or serve at 127.0.0.1"
        )
    return token


def check(settings: ServeSettings) -> dict[str, Any]:
    """Ask the server that runs at the settings' host and port whether it is well; gives its answer.

    Raises:
        SkipSegError: If it is not there or not well.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=10)
    try:
        connection.request("GET", "/api/health", headers={"Host": "localhost"})
        answer = connection.getresponse()
        health = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SkipSegError(f"no server answers at {host}:{settings.port} ({type(error).__name__})") from None
    finally:
        connection.close()
    if answer.status != 200 or health.get("status") != "ok":
        raise SkipSegError(f"the server at {host}:{settings.port} is not well (status {answer.status})")
    return health


def _is_own(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
