"""What every request passes: where it comes from, how often, with which token; and what every answer carries.

A page of another origin can make a browser send requests here. It is refused by the names that the server answers to
(its own name, rebound to this address, is none of them) and by the origin that browsers state in what changes things.
"""

import hashlib
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("skipseg.serve")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/api/health",)
"""Paths below /api that need no token."""

_SAFE = ("GET", "HEAD", "OPTIONS")
_BODY_BYTES = 1 << 16
_CLIENTS = 4096
_FORGOTTEN_SECONDS = 60.0
_BURST = 10
"""Requests that may come at once, as a multiple of those allowed a second."""
_WRONG_TOKENS = (0.2, 10)
"""Wrong tokens that one client may send: a second, and at once."""

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_API_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


class TooLargeError(Exception):
    """The body of a request is larger than is allowed."""


class GoneError(Exception):
    """Who sent the request has left before it was whole."""


@dataclass(frozen=True)
class Rules:
    """What the guard allows.

    Attributes:
        token: That requests must carry; None if none is needed.
        names: Host names that the server answers to, beside addresses and localhost.
        rate: Requests a second of one client.
        upload: Bytes of the body of an upload.
    """

    token: str | None
    names: Sequence[str]
    rate: float
    upload: int


class Buckets:
    """Counts what each client does.

    Args:
        rate: How often a second it may do it, in the long run.
        burst: How often at once.
        clock: Tells seconds.
    """

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.burst = max(burst, 1.0)
        self.clock = clock
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, client: str) -> bool:
        """Count one more; False if it is too much."""
        now = self.clock()
        if len(self._left) > _CLIENTS:
            self._left = {who: each for who, each in self._left.items() if now - each[1] < _FORGOTTEN_SECONDS}
        left, then = self._left.get(client, (self.burst, now))
        left = min(self.burst, left + (now - then) * self.rate)
        self._left[client] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class Guard:
    """Stands before an application.

    Args:
        app: What answers the requests that pass.
        rules: What passes.
    """

    def __init__(self, app: App, rules: Rules) -> None:
        self.app = app
        self.rules = rules
        self._requests = Buckets(rules.rate, _BURST * rules.rate)
        self._wrong = Buckets(*_WRONG_TOKENS)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        began, answer = time.monotonic(), _Answer(scope, send)
        try:
            refusal = self._refusal(scope)
            if refusal:
                await answer.refuse(*refusal)
            else:
                await self.app(scope, _counted(receive, self._most(scope)), answer.send)
        except GoneError:
            return
        except TooLargeError:
            await answer.refuse(413, "the request is larger than this server takes")
        except Exception as error:  # its words may be of the request
            log.error("a request met %s at %s", type(error).__name__, _place(error))
            await answer.refuse(500, "internal error")
        finally:
            route = getattr(scope.get("route"), "path", "-")
            log.info("%s %s %d %.0f ms", scope["method"], route, answer.status, 1000 * (time.monotonic() - began))

    def _refusal(self, scope: Message) -> tuple[int, str, Mapping[str, str]] | None:
        """Status, reason and headers of a refusal; None if the request passes."""
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        client = scope["client"][0] if scope.get("client") else ""
        if not self._knows(headers.get("host", "")):
            return 403, "this server does not answer to that name; start it with --names", {}
        if not self._requests.take(client):
            return 429, "too many requests; wait a little", {"retry-after": "1"}
        if scope["method"] not in _SAFE and not _same_origin(headers):
            return 403, "a page of another origin may change nothing here", {}
        if headers.get("content-length", "0").isdecimal() and int(headers.get("content-length", 0)) > self._most(scope):
            return 413, "the request is larger than this server takes", {}
        return self._wrong_token(scope["path"], headers, client)

    def _wrong_token(
        self, path: str, headers: Mapping[str, str], client: str
    ) -> tuple[int, str, Mapping[str, str]] | None:
        """Refuse a request to the API without the token; who sends many wrong ones has to wait."""
        if self.rules.token is None or not path.startswith("/api/") or path in OPEN_PATHS:
            return None
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _equal(given.strip(), self.rules.token):
            return None
        if given and not self._wrong.take(client):
            return 429, "too many wrong tokens; wait a little", {"retry-after": "10"}
        return 401, "this server needs its token", {"www-authenticate": "Bearer"}

    def _knows(self, host: str) -> bool:
        """Whether a Host header names this server; an address is no name that could be rebound to another."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() and not host.endswith("]") else host
        name = name.removeprefix("[").removesuffix("]").lower()
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return name in ("localhost", *map(str.lower, self.rules.names))

    def _most(self, scope: Message) -> int:
        """Bytes that the body of a request may have."""
        return _BODY_BYTES + (self.rules.upload if scope["path"] == "/api/uploads" else 0)


class _Answer:
    """An answer on its way: its status is kept, its headers are completed."""

    def __init__(self, scope: Message, send: Send) -> None:
        self.is_api = scope["path"].startswith("/api/")
        self.status = 0
        self._send = send

    async def send(self, message: Message) -> None:
        """Send a part of it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = {key.lower() for key, _ in message.get("headers", [])}
            policy = _API_POLICY if self.is_api else _PAGE_POLICY
            store = "no-store" if self.is_api else "no-cache"
            added = _HEADERS | {"content-security-policy": policy, "cache-control": store}
            extra = [(key.encode(), value.encode()) for key, value in added.items() if key.encode() not in given]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self._send(message)

    async def refuse(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        """Answer by a reason, unless an answer has begun."""
        if self.status:
            return
        content = json.dumps({"detail": reason}).encode()
        about = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        named = [(key.encode(), value.encode()) for key, value in about.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": named})
        await self.send({"type": "http.response.body", "body": content})


def _counted(receive: Receive, most: int) -> Receive:
    """Receive a whole body of up to ``most`` bytes."""
    count, is_whole = 0, False

    async def counted() -> Message:
        nonlocal count, is_whole
        message = await receive()
        if message["type"] == "http.disconnect" and not is_whole:
            raise GoneError
        is_whole = is_whole or not message.get("more_body", False)
        count += len(message.get("body", b""))
        if count > most:
            raise TooLargeError
        return message

    return counted


def _same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a request comes from a page of this server, or from no page at all."""
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower() != ""


def _equal(one: str, other: str) -> bool:
    """Compare secrets in a time that tells nothing of either."""
    digests = [hashlib.sha256(each.encode()).digest() for each in (one, other)]
    return hmac.compare_digest(*digests)


def _place(error: BaseException) -> str:
    """Where an error came from: file and line, without its words."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else "-"
